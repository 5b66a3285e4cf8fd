//! The content of files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{self as sys, AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom};

use super::{Seen, errno};

const GIB: u64 = 1 << 30;
const BLOCK: usize = 4096;

/// What O_DIRECT asks of a buffer.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

pub(super) fn see(directory: &Path, seen: &mut Seen) {
    ways_to_open(directory, seen);
    far_offsets(directory, seen);
    holes(directory, seen);
    allocations(directory, seen);
    without_a_name(directory, seen);
    appends(directory, seen);
    direct(directory, seen);
    copies(directory, seen);
    locks(directory, seen);
    vectors(directory, seen);
}

fn file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).expect("a file")
}

fn digest(path: &Path) -> (usize, u64) {
    let bytes = fs::read(path).expect("it can be read");
    let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    (bytes.len(), sum)
}

fn ways_to_open(directory: &Path, seen: &mut Seen) {
    let path = directory.join("ways");
    let mut open = |case: &str, flags: OFlags| {
        let result = sys::open(&path, flags, Mode::from_raw_mode(0o640));
        seen.saw(&format!("open {case}"), result.map(|_| ()));
    };
    open("a file that is not there", OFlags::RDWR);
    open("a directory that is not there", OFlags::RDONLY | OFlags::DIRECTORY);
    open("O_EXCL anew", OFlags::RDWR | OFlags::CREATE | OFlags::EXCL);
    open("O_EXCL again", OFlags::RDWR | OFlags::CREATE | OFlags::EXCL);
    open("a file as a directory", OFlags::RDONLY | OFlags::DIRECTORY);
    open("O_PATH", OFlags::PATH);
    open("O_NOATIME", OFlags::RDONLY | OFlags::NOATIME);
    open("O_SYNC", OFlags::RDWR | OFlags::SYNC);
    open("O_RDONLY and O_TRUNC", OFlags::RDONLY | OFlags::TRUNC);
    let reader = File::open(&path).expect("it is there");
    seen.saw("write to a reader", errno((&reader).write(b"x")));
    let writer = OpenOptions::new().write(true).open(&path).expect("it is there");
    seen.saw("read from a writer", errno((&writer).read(&mut [0])));
    seen.saw("read a directory as a file", errno(fs::read(directory).map(|_| ())));
    seen.saw("truncate past what a file may be", sys::ftruncate(&writer, u64::MAX >> 1));
    seen.saw("seek before the start", sys::seek(&writer, SeekFrom::Current(-1)));
}

fn far_offsets(directory: &Path, seen: &mut Seen) {
    let path = directory.join("far");
    let file = file(&path);
    for offset in [4 * GIB - 2, 4 * GIB + 5, 9 * GIB] {
        seen.saw("write far out", errno(file.write_at(b"far out", offset)));
    }
    let mut bytes = [1; 16];
    for offset in [4 * GIB - 4, 4 * GIB + 4, 9 * GIB - 3, 9 * GIB + 100] {
        seen.saw("read far out", (errno(file.read_at(&mut bytes, offset)), bytes));
    }
    seen.saw("size of it", file.metadata().expect("it is open").len());
    seen.saw("cut below 4 GiB", sys::ftruncate(&file, 4 * GIB - 1));
    seen.saw("what is left", errno(file.read_at(&mut bytes, 4 * GIB - 3)));
    seen.saw("blocks of it", file.metadata().expect("it is open").blocks() < 1000);
    seen.saw("grow it", sys::ftruncate(&file, 20 * GIB));
    seen.saw("the end of it", file.metadata().expect("it is open").len());
}

fn holes(directory: &Path, seen: &mut Seen) {
    let file = file(&directory.join("holes"));
    for block in [0, 16, 17, 64] {
        file.write_all_at(&[7; BLOCK], block * BLOCK as u64).expect("it can be written");
    }
    file.sync_all().expect("it can be synced");
    sys::ftruncate(&file, 100 * BLOCK as u64).expect("it can grow");
    let mut at = 0;
    while let Ok(data) = sys::seek(&file, SeekFrom::Data(at)) {
        let hole = sys::seek(&file, SeekFrom::Hole(data)).expect("there is one behind all data");
        seen.saw("data", (data, hole));
        at = hole;
    }
    seen.saw("data behind the last", sys::seek(&file, SeekFrom::Data(at)));
    seen.saw("a hole behind the end", sys::seek(&file, SeekFrom::Hole(1000 * BLOCK as u64)));
}

fn allocations(directory: &Path, seen: &mut Seen) {
    let modes = [
        ("plain", FallocateFlags::empty()),
        ("keep size", FallocateFlags::KEEP_SIZE),
        ("punch", FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
        ("punch without keep size", FallocateFlags::PUNCH_HOLE),
        ("zero", FallocateFlags::ZERO_RANGE),
        ("zero and keep size", FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE),
        ("collapse", FallocateFlags::COLLAPSE_RANGE),
        ("insert", FallocateFlags::INSERT_RANGE),
        ("unshare", FallocateFlags::UNSHARE_RANGE),
    ];
    for (case, mode) in modes {
        for (offset, length) in [(BLOCK, 2 * BLOCK), (100, 5000), (9 * BLOCK, 4 * BLOCK), (0, 0)] {
            let path = directory.join("allocated");
            let file = file(&path);
            let bytes: Vec<u8> = (0_u8..=250).cycle().take(10 * BLOCK).collect();
            file.write_all_at(&bytes, 0).expect("it can be written");
            let result = sys::fallocate(&file, mode, offset as u64, length as u64);
            let blocks = file.metadata().expect("it is open").blocks();
            seen.saw(&format!("fallocate {case} {offset}+{length}"), (result, digest(&path), blocks));
        }
    }
}

fn without_a_name(directory: &Path, seen: &mut Seen) {
    let path = directory.join("unlinked");
    let mut file = file(&path);
    fs::remove_file(&path).expect("it can be");
    seen.saw("links of an unlinked file", file.metadata().expect("it is open").nlink());
    seen.saw("write to it", errno(file.write_all(b"still here")));
    seen.saw("cut it", sys::ftruncate(&file, 5));
    seen.saw("its mode", sys::fchmod(&file, Mode::from_raw_mode(0o604)));
    file.rewind().expect("it is a file");
    let mut text = String::new();
    seen.saw("read it", errno(file.read_to_string(&mut text)));
    seen.saw("its text, size and mode", (text, file.metadata().map(|m| (m.len(), m.mode())).ok()));
    let other = directory.join("unlinked.other");
    fs::write(&other, "one").expect("a file");
    let reader = File::open(&other).expect("it is there");
    fs::write(directory.join("unlinked.new"), "two").expect("a file");
    fs::rename(directory.join("unlinked.new"), &other).expect("it can be");
    let mut bytes = [0; 3];
    seen.saw("the file that a rename replaced", (errno(reader.read_at(&mut bytes, 0)), bytes));
    match sys::open(directory, OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600)) {
        Ok(file) => {
            let mut file = File::from(file);
            file.write_all(b"temporary").expect("it can be written");
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            let linked = sys::linkat(CWD, own, CWD, directory.join("named"), AtFlags::SYMLINK_FOLLOW);
            seen.saw("O_TMPFILE that gets a name", (linked, fs::read_to_string(directory.join("named")).ok()));
        }
        Err(error) => seen.saw("O_TMPFILE", error),
    }
}

fn appends(directory: &Path, seen: &mut Seen) {
    let path = directory.join("appended");
    let open = || OpenOptions::new().append(true).create(true).open(&path).expect("a file");
    let (mut one, mut other) = (open(), open());
    for _ in 0..100 {
        one.write_all(b"one,").expect("it can be written");
        other.write_all(b"other,").expect("it can be written");
    }
    seen.saw("two who append", digest(&path));
    seen.saw("pwrite by one who appends", (errno(one.write_at(b"where?", 0)), digest(&path)));
    seen.saw("where it stands", errno(one.stream_position()));
    sys::ftruncate(&one, 10).expect("it can be cut");
    one.write_all(b"after").expect("it can be written");
    seen.saw("append after a cut", digest(&path));
}

fn direct(directory: &Path, seen: &mut Seen) {
    let path = directory.join("direct");
    let flags = OFlags::DIRECT.bits().cast_signed();
    let opened = OpenOptions::new().read(true).write(true).create(true).custom_flags(flags).open(&path);
    let file = match errno(opened) {
        Ok(file) => file,
        Err(error) => return seen.saw("open with O_DIRECT", error),
    };
    let mut block = Aligned([5; BLOCK]);
    for offset in [0, BLOCK, 10 * BLOCK] {
        seen.saw("write past the cache", errno(file.write_at(&block.0, offset as u64)));
    }
    seen.saw("read past the cache", (errno(file.read_at(&mut block.0, BLOCK as u64)), block.0 == [5; BLOCK]));
    seen.saw("read a hole", (errno(file.read_at(&mut block.0, 3 * BLOCK as u64)), block.0 == [0; BLOCK]));
    seen.saw("read across the end", errno(file.read_at(&mut block.0, 11 * BLOCK as u64)));
    let cached = OpenOptions::new().read(true).write(true).open(&path).expect("it is there");
    cached.write_all_at(b"by the cache", 0).expect("it can be written");
    seen.saw("what the cache wrote", (errno(file.read_at(&mut block.0, 0)), block.0.starts_with(b"by the cache")));
    file.write_all_at(&Aligned([9; BLOCK]).0, 0).expect("it can be written");
    let mut bytes = [0; 4];
    seen.saw("what the cache reads", (errno(cached.read_at(&mut bytes, 0)), bytes));
}

fn copies(directory: &Path, seen: &mut Seen) {
    let (from, to) = (directory.join("copied"), directory.join("copy"));
    fs::write(&from, (0_u8..=250).cycle().take(50_000).collect::<Vec<_>>()).expect("a file");
    let source = File::open(&from).expect("it is there");
    let target = file(&to);
    for (mut at, mut into, length) in [(0, 0, 50_000), (100, 60_000, 4096), (49_000, 10, 5000), (60_000, 0, 10)] {
        let copied = sys::copy_file_range(&source, Some(&mut at), &target, Some(&mut into), length);
        seen.saw("copy_file_range", (copied, at, into, digest(&to)));
    }
    let (mut at, mut into) = (0, 10);
    let within = sys::copy_file_range(&target, Some(&mut at), &target, Some(&mut into), 1000);
    seen.saw("copy_file_range onto itself", within);
}

fn locks(directory: &Path, seen: &mut Seen) {
    let path = directory.join("locked");
    let (one, other) = (file(&path), File::open(&path).expect("it is there"));
    let mut flock = |case: &str, file: &File, how: FlockOperation| {
        seen.saw(&format!("flock {case}"), sys::flock(file.as_fd(), how));
    };
    flock("alone", &one, FlockOperation::NonBlockingLockExclusive);
    flock("while another has it alone", &other, FlockOperation::NonBlockingLockShared);
    flock("shared instead", &one, FlockOperation::NonBlockingLockShared);
    flock("shared by both", &other, FlockOperation::NonBlockingLockShared);
    flock("alone, while both share", &one, FlockOperation::NonBlockingLockExclusive);
    drop(other);
    seen.saw("flock when the other is closed", sys::flock(&one, FlockOperation::NonBlockingLockExclusive));
    let by_others = |how: &str| {
        let script = format!("exec flock --nonblock --{how} locked true");
        std::process::Command::new("sh").args(["-c", &script]).current_dir(directory).status().map(|s| s.code()).ok()
    };
    seen.saw("flock of another process, held", by_others("exclusive"));
    sys::flock(&one, FlockOperation::Unlock).expect("it is ours");
    seen.saw("flock of another process, free", by_others("exclusive"));
    seen.saw("fcntl lock", sys::fcntl_lock(&one, FlockOperation::NonBlockingLockExclusive));
    seen.saw("fcntl unlock", sys::fcntl_lock(&one, FlockOperation::NonBlockingUnlock));
}

fn vectors(directory: &Path, seen: &mut Seen) {
    let path = directory.join("vectors");
    let mut file = file(&path);
    let parts = [io::IoSlice::new(b"one "), io::IoSlice::new(b""), io::IoSlice::new(b"two")];
    seen.saw("writev", errno(file.write_vectored(&parts)));
    file.rewind().expect("it is a file");
    let (mut first, mut second) = ([0; 3], [0; 10]);
    let read = file.read_vectored(&mut [io::IoSliceMut::new(&mut first), io::IoSliceMut::new(&mut second)]);
    seen.saw("readv", (errno(read), first, second));
    let large = vec![3; 5 << 20];
    seen.saw("a large write", (errno(file.write_at(&large, 1)), digest(&path)));
    seen.saw("a write of nothing", errno(file.write(&[])));
}
