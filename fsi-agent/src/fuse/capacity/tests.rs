//! What is counted is what the files take; the limit holds to the last block and not one further.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::*;

const BLOCK: u64 = 4096;

struct Volume {
    directory: tempfile::TempDir,
    used: AtomicU64,
    capacity: Capacity,
}

impl Volume {
    fn new(blocks: u64) -> Self {
        // Where blocks are taken at once and none ahead.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let capacity = Capacity::new(blocks * BLOCK, WhenFull::NoSpace);
        Self { directory, used: AtomicU64::new(0), capacity }
    }

    fn file(&self, name: &str) -> File {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.directory.path().join(name))
            .unwrap()
    }

    /// As the mount writes: what is granted.
    fn write(&self, file: &File, offset: u64, len: u64) -> Result<u64, i32> {
        match self.capacity.reserve(&self.used, file.as_fd(), offset, len) {
            Ok(grant) => {
                let bytes = grant.bytes;
                file.write_all_at(&vec![1; usize::try_from(bytes).unwrap()], offset).unwrap();
                self.capacity.settle(&self.used, grant, file.as_fd()).unwrap();
                Ok(bytes)
            }
            Err(CapacityError::Full { errno }) => Err(errno),
            Err(CapacityError::Io(error)) => panic!("{error}"),
        }
    }

    fn resize(&self, file: &File, size: u64) {
        let grant = self.capacity.change(file.as_fd()).unwrap();
        file.set_len(size).unwrap();
        self.capacity.settle(&self.used, grant, file.as_fd()).unwrap();
    }

    fn agrees(&self) -> u64 {
        let used = self.used.load(Ordering::Acquire);
        let root = File::open(self.directory.path()).unwrap();
        assert_eq!(used, count(root.as_fd(), Duration::MAX).unwrap().unwrap());
        assert!(used <= self.capacity.limit());
        used / BLOCK
    }
}

#[test]
fn a_write_gets_what_is_left_and_then_nothing() {
    let volume = Volume::new(10);
    let file = volume.file("a");
    assert_eq!(volume.write(&file, 0, 8 * BLOCK), Ok(8 * BLOCK));
    assert_eq!(volume.write(&file, 8 * BLOCK, 5 * BLOCK), Ok(2 * BLOCK));
    assert_eq!(volume.write(&file, 10 * BLOCK, 1), Err(libc::ENOSPC));
    assert_eq!(volume.agrees(), 10);
    assert_eq!(volume.write(&file, 100, 9 * BLOCK), Ok(9 * BLOCK), "overwriting needs nothing");
    assert_eq!(volume.write(&file, 9 * BLOCK, 2 * BLOCK), Ok(BLOCK), "up to where something is needed");
    assert_eq!(volume.agrees(), 10);
}

#[test]
fn the_other_errno_by_choice() {
    let volume = Volume { capacity: Capacity::new(0, WhenFull::Quota), ..Volume::new(0) };
    assert_eq!(volume.write(&volume.file("a"), 0, 1), Err(libc::EDQUOT));
}

#[test]
fn space_comes_back() {
    let volume = Volume::new(4);
    let (one, other) = (volume.file("a"), volume.file("b"));
    assert_eq!(volume.write(&one, 0, 4 * BLOCK), Ok(4 * BLOCK));
    assert_eq!(volume.write(&other, 0, 1), Err(libc::ENOSPC));
    volume.resize(&one, BLOCK);
    assert_eq!(volume.agrees(), 1);
    assert_eq!(volume.write(&other, 0, BLOCK), Ok(BLOCK));
    let last = rustix::fs::fstat(&one).unwrap();
    std::fs::remove_file(volume.directory.path().join("a")).unwrap();
    volume.capacity.removed(&volume.used, allocated(&last));
    assert_eq!(volume.agrees(), 1);
    assert_eq!(volume.write(&other, BLOCK, 9 * BLOCK), Ok(3 * BLOCK));
}

#[test]
fn holes_cost_nothing_until_they_are_filled() {
    let volume = Volume::new(3);
    let file = volume.file("a");
    volume.resize(&file, 1 << 40);
    assert_eq!(volume.agrees(), 0);
    for at in [1 << 39, 1 << 20, 5] {
        assert_eq!(volume.write(&file, at, 1), Ok(1));
    }
    assert_eq!(volume.agrees(), 3);
    assert_eq!(volume.write(&file, 1 << 30, 1), Err(libc::ENOSPC));
    assert_eq!(volume.write(&file, (1 << 20) + 7, 9), Ok(9));
}

#[test]
fn allocated_ahead_is_space_to_write_to() {
    let volume = Volume::new(4);
    let file = volume.file("a");
    let grant = volume.capacity.reserve(&volume.used, file.as_fd(), 0, 4 * BLOCK).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 4 * BLOCK).unwrap();
    volume.capacity.settle(&volume.used, grant, file.as_fd()).unwrap();
    assert_eq!(volume.agrees(), 4);
    assert_eq!(volume.write(&file, 0, 4 * BLOCK), Ok(4 * BLOCK));
}

#[test]
fn a_file_with_two_names_counts_once_and_directories_are_looked_into() {
    let volume = Volume::new(100);
    std::fs::create_dir_all(volume.directory.path().join("d/e")).unwrap();
    let _written = volume.write(&volume.file("d/e/a"), 0, 3 * BLOCK).unwrap();
    std::fs::hard_link(volume.directory.path().join("d/e/a"), volume.directory.path().join("d/b")).unwrap();
    std::os::unix::fs::symlink("/", volume.directory.path().join("out")).unwrap();
    assert_eq!(volume.agrees(), 3);
}

#[test]
fn writers_at_once_never_pass_the_limit() {
    let volume = Volume::new(64);
    let shared = volume.file("shared");
    std::thread::scope(|scope| {
        for writer in 0..8_u64 {
            let (volume, shared) = (&volume, &shared);
            scope.spawn(move || {
                let own = volume.file(&format!("own-{writer}"));
                for round in 0..40 {
                    let file = if round % 2 == 0 { shared } else { &own };
                    let done = volume.write(file, (round * 8 + writer) / 2 * BLOCK, 2 * BLOCK);
                    assert!(done.is_ok() || done == Err(libc::ENOSPC));
                    let taken = shared.metadata().unwrap().blocks() * 512;
                    assert!(taken <= volume.capacity.limit());
                    if round % 10 == 9 {
                        volume.resize(&own, 0);
                    }
                }
            });
        }
    });
    volume.agrees();
}
