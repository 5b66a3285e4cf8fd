//! Names, links, renames, attributes, directories and times.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{
    self as sys, AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
};

use super::{Seen, errno};

pub(super) fn see(directory: &Path, seen: &mut Seen) {
    long_and_odd(directory, seen);
    deep(directory, seen);
    links(directory, seen);
    renames(directory, seen);
    attributes(directory, seen);
    directories(directory, seen);
    times(directory, seen);
    kinds(directory, seen);
}

fn long_and_odd(directory: &Path, seen: &mut Seen) {
    let names: [&[u8]; 7] = [
        &[b'n'; 255],
        &[b'n'; 256],
        b"\xff\xfe\x80",
        b"line\nbreak",
        b"*?[a]\\ \"'",
        "\u{1F4BE}\u{0301}".as_bytes(),
        b"-rf",
    ];
    let odd = directory.join("odd");
    fs::create_dir(&odd).expect("a directory");
    for name in names {
        let path = odd.join(OsStr::from_bytes(name));
        let case = format!("name of {} bytes {:?}", name.len(), &name[..name.len().min(4)]);
        seen.saw(&case, (errno(fs::write(&path, name)), errno(fs::metadata(&path).map(|file| file.len()))));
        seen.saw(&format!("{case}, renamed"), errno(fs::rename(&path, odd.join("other"))));
        seen.saw(&format!("{case}, back"), errno(fs::rename(odd.join("other"), &path)));
    }
    let mut listed: Vec<_> =
        fs::read_dir(&odd).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    listed.sort();
    seen.saw("listed", listed);
}

/// Further down than any path reaches: 30 directories of 200 bytes are past 4,096.
fn deep(directory: &Path, seen: &mut Seen) {
    let name = "d".repeat(200);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut open: Vec<OwnedFd> = vec![sys::open(directory, flags, Mode::empty()).expect("it is there")];
    for level in 0..30 {
        let last = &open[level];
        let made = sys::mkdirat(last, &name, Mode::RWXU);
        let next = sys::openat(last, &name, flags, Mode::empty());
        seen.saw(&format!("level {level}"), (made, next.as_ref().map(|_| ()).err()));
        let Ok(next) = next else { break };
        open.push(next);
    }
    let last = &open[open.len() - 1];
    let file = sys::openat(last, "f", OFlags::CREATE | OFlags::RDWR, Mode::RUSR).expect("a file");
    seen.saw("write far down", rustix::io::write(&file, b"deep"));
    seen.saw("rename from far down", sys::renameat(last, "f", &open[2], "f"));
    seen.saw("and back", sys::renameat(&open[2], "f", last, "f"));
    seen.saw("unlink far down", sys::unlinkat(last, "f", AtFlags::empty()));
    for level in (0..open.len() - 1).rev() {
        let removed = sys::unlinkat(&open[level], &name, AtFlags::REMOVEDIR);
        seen.saw(&format!("remove level {level}"), removed);
    }
}

fn links(directory: &Path, seen: &mut Seen) {
    let (one, two) = (directory.join("link-1"), directory.join("link-2"));
    fs::write(&one, "shared").expect("a file");
    seen.saw("link", errno(fs::hard_link(&one, &two)));
    seen.saw("link again", errno(fs::hard_link(&one, &two)));
    let of = |path: &Path| fs::metadata(path).map(|file| (file.ino(), file.nlink())).expect("it is there");
    seen.saw("one file", (of(&one) == of(&two), of(&one).1));
    fs::write(&two, "changed").expect("it can be written");
    seen.saw("read by the other name", fs::read_to_string(&one).ok());
    fs::set_permissions(&one, fs::Permissions::from_mode(0o600)).expect("it is ours");
    seen.saw("mode by the other name", fs::metadata(&two).expect("it is there").mode());
    seen.saw("rename one onto the other", errno(fs::rename(&one, &two)));
    seen.saw("both are there", (one.exists(), two.exists()));
    fs::remove_file(&one).expect("it can be");
    seen.saw("links left", of(&two).1);
    seen.saw("link to a directory", errno(fs::hard_link(directory, directory.join("link-3"))));
    for (case, target) in [("short", "x".to_owned()), ("4095", "y".repeat(4095)), ("4096", "z".repeat(4096))] {
        let path = directory.join(format!("symlink-{case}"));
        let made = errno(symlink(&target, &path));
        let read = fs::read_link(&path).map(|read| read.as_os_str().len());
        seen.saw(&format!("symlink {case}"), (made, errno(read), fs::symlink_metadata(&path).map(|s| s.len()).ok()));
    }
    symlink("loop", directory.join("loop")).expect("a link");
    seen.saw("loop", errno(fs::read(directory.join("loop"))));
    symlink("/etc/hostname", directory.join("outside")).expect("a link");
    seen.saw("a link that leads out", fs::read(directory.join("outside")).ok() == fs::read("/etc/hostname").ok());
    let nofollow = sys::open(directory.join("outside"), OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty());
    seen.saw("not followed", nofollow.map(|_| ()));
}

fn renames(directory: &Path, seen: &mut Seen) {
    let flags = [
        ("plain", RenameFlags::empty()),
        ("noreplace", RenameFlags::NOREPLACE),
        ("exchange", RenameFlags::EXCHANGE),
        ("whiteout", RenameFlags::WHITEOUT),
        ("noreplace and exchange", RenameFlags::NOREPLACE | RenameFlags::EXCHANGE),
    ];
    let kinds = ["file", "directory", "full", "nothing"];
    for (case, flags) in flags {
        for (from, to) in kinds.into_iter().flat_map(|from| kinds.map(|to| (from, to))) {
            let place = directory.join("renames");
            fs::create_dir(&place).expect("a directory");
            for (name, kind) in [("from", from), ("to", to)] {
                let path = place.join(name);
                match kind {
                    "file" => fs::write(&path, name).expect("a file"),
                    "directory" => fs::create_dir(&path).expect("a directory"),
                    "full" => fs::create_dir_all(path.join("inner")).expect("directories"),
                    _ => {}
                }
            }
            let renamed = sys::renameat_with(CWD, place.join("from"), CWD, place.join("to"), flags);
            let after = ["from", "to", "from/inner", "to/inner"].map(|name| {
                fs::symlink_metadata(place.join(name))
                    .map(|file| (file.mode(), file.is_file().then_some(file.len())))
                    .ok()
            });
            seen.saw(&format!("rename {case}: {from} to {to}"), (renamed, after));
            fs::remove_dir_all(&place).expect("it can be removed");
        }
    }
    let (outer, inner) = (directory.join("outer"), directory.join("outer/inner"));
    fs::create_dir_all(&inner).expect("directories");
    seen.saw("rename into itself", errno(fs::rename(&outer, inner.join("x"))));
    seen.saw("rename to a name with a slash", errno(fs::rename(&outer, directory.join("missing/x"))));
}

fn attributes(directory: &Path, seen: &mut Seen) {
    let path = directory.join("attributes");
    fs::write(&path, "x").expect("a file");
    let mut buffer = vec![0; 70_000];
    for name in ["user.a", "trusted.a", "security.a", "system.a", "a", "user."] {
        seen.saw(&format!("set {name}"), sys::setxattr(&path, name, b"value", XattrFlags::empty()));
        seen.saw(&format!("get {name}"), sys::getxattr(&path, name, &mut buffer[..]));
    }
    seen.saw("create again", sys::setxattr(&path, "user.a", b"v", XattrFlags::CREATE));
    seen.saw("replace none", sys::setxattr(&path, "user.b", b"v", XattrFlags::REPLACE));
    seen.saw("empty", sys::setxattr(&path, "user.empty", b"", XattrFlags::empty()));
    seen.saw("a long name", sys::setxattr(&path, format!("user.{}", "n".repeat(250)), b"v", XattrFlags::empty()));
    seen.saw("a longer name", sys::setxattr(&path, format!("user.{}", "n".repeat(251)), b"v", XattrFlags::empty()));
    for size in [1000, 3000, 65_536, 65_537] {
        let set = sys::setxattr(&path, "user.large", &vec![7; size], XattrFlags::empty());
        seen.saw(&format!("value of {size}"), (set, sys::getxattr(&path, "user.large", &mut buffer[..])));
    }
    seen.saw("a short buffer", sys::getxattr(&path, "user.a", &mut buffer[..2]));
    seen.saw("no buffer", sys::getxattr(&path, "user.a", &mut buffer[..0]));
    let length = sys::listxattr(&path, &mut buffer[..]).expect("they can be listed");
    let mut names: Vec<_> = buffer[..length].split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    names.sort();
    seen.saw("names", names);
    seen.saw("remove", sys::removexattr(&path, "user.a"));
    seen.saw("remove again", sys::removexattr(&path, "user.a"));
    seen.saw("gone", sys::getxattr(&path, "user.a", &mut buffer[..]));
}

fn directories(directory: &Path, seen: &mut Seen) {
    const ENTRIES: usize = 3000;
    let place = directory.join("many");
    fs::create_dir(&place).expect("a directory");
    for number in 0..ENTRIES {
        File::create(place.join(format!("entry-{number}"))).expect("a file");
    }
    let descriptor = sys::open(&place, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there");
    let mut read = Dir::read_from(&descriptor).expect("it is a directory");
    let mut names = Vec::new();
    let mut kinds = Vec::new();
    // What is there all the time is listed exactly once, whatever goes meanwhile.
    while let Some(Ok(entry)) = read.read() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !kinds.contains(&entry.file_type()) {
            kinds.push(entry.file_type());
        }
        if names.len() % 2 == 0 && name.starts_with("entry") {
            fs::remove_file(place.join(&name)).expect("it is there");
        }
        names.push(name);
    }
    let listed = names.len();
    names.sort();
    names.dedup();
    kinds.sort_by_key(|kind| kind.as_raw_mode());
    seen.saw("listed while half of them go", (listed, names.len(), kinds));
    seen.saw("remove a full directory", errno(fs::remove_dir(&place)));
    fs::remove_dir_all(&place).expect("it can be");
    let mut again = Dir::read_from(&descriptor).expect("it is a directory");
    seen.saw("list one that is gone", again.read().map(|entry| entry.map(|_| ())));
    let made = sys::openat(&descriptor, "x", OFlags::CREATE | OFlags::RDWR, Mode::RUSR).map(|_| ());
    seen.saw("make a file in one that is gone", made);
    let inner = directory.join("counted");
    fs::create_dir_all(inner.join("a/b")).expect("directories");
    seen.saw("links of a directory", fs::metadata(&inner).expect("it is there").nlink());
    let parent = |path: &Path| fs::metadata(path.join("..")).map(|file| file.ino()).expect("each has one");
    seen.saw("the parent", parent(&inner.join("a")) == fs::metadata(&inner).expect("it is there").ino());
}

fn times(directory: &Path, seen: &mut Seen) {
    let path = directory.join("times");
    fs::write(&path, "x").expect("a file");
    let of = || fs::metadata(&path).map(|file| (file.atime(), file.atime_nsec(), file.mtime(), file.mtime_nsec()));
    for (second, nanosecond) in [(1, 1), (-5, 999_999_999), (5_000_000_000, 123_456_789)] {
        let time = Timespec { tv_sec: second, tv_nsec: nanosecond };
        let times = Timestamps { last_access: time, last_modification: Timespec { tv_sec: 7, tv_nsec: 8 } };
        let set = sys::utimensat(CWD, &path, &times, AtFlags::empty());
        seen.saw("utimensat", (set, errno(of())));
    }
    let before = fs::metadata(&path).expect("it is there");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).expect("it is ours");
    let changed = fs::metadata(&path).expect("it is there");
    let order = |file: &fs::Metadata| (file.ctime(), file.ctime_nsec());
    seen.saw("chmod changes the change time alone", (order(&before) <= order(&changed), changed.mtime() == 7));
    fs::write(&path, "longer").expect("it can be written");
    seen.saw("a write changes the modification time", fs::metadata(&path).expect("it is there").mtime() > 7);
}

fn kinds(directory: &Path, seen: &mut Seen) {
    let kinds = [
        ("fifo", FileType::Fifo),
        ("socket", FileType::Socket),
        ("null", FileType::CharacterDevice),
        ("file", FileType::RegularFile),
    ];
    for (name, kind) in kinds {
        let path = directory.join(name);
        let made = sys::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o640), rustix::fs::makedev(1, 3));
        let is = fs::symlink_metadata(&path).map(|file| (file.mode(), file.rdev()));
        seen.saw(&format!("mknod {name}"), (made, errno(is)));
    }
    let of = |path: &Path| sys::statfs(path).map(|fs| (fs.f_bsize, fs.f_blocks, fs.f_files, fs.f_namelen));
    seen.saw("statfs", of(directory));
}
