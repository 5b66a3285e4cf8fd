//! Volumes that are made, cloned, grown and deleted, with a crash between any two steps.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, symlink};

use std::fs::File;

use tempfile::TempDir;

use super::*;
use crate::proto::csi::CapacityRange;

pub(super) fn pool() -> (TempDir, Pool) {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::open(&folder.path().join("pool")).unwrap();
    (folder, pool)
}

pub(super) fn wish(name: &str) -> Wish {
    Wish {
        id: VolumeId::of_name(name),
        name: name.to_owned(),
        range: Range::default(),
        parameters: BTreeMap::new(),
        clone_of: None,
        lifetime: Lifetime::Claim,
        backing: None,
    }
}

fn sized(name: &str, required_bytes: i64, limit_bytes: i64) -> Wish {
    let range = Range::read(Some(&CapacityRange { required_bytes, limit_bytes })).unwrap();
    Wish { range, ..wish(name) }
}

#[test]
fn the_same_wish_makes_one_volume() {
    let (_folder, pool) = pool();
    let first = pool.create(&sized("v", 1000, 0)).unwrap();
    assert_eq!(first.bytes, Some(1000));
    fs::write(pool.data(&wish("v").id).join("file"), "x").unwrap();
    assert_eq!(pool.create(&sized("v", 1000, 0)).unwrap(), first);
    assert!(pool.data(&wish("v").id).join("file").exists(), "made once");
    let other = pool.create(&sized("v", 2000, 0)).unwrap_err();
    assert_eq!(other.to_string(), "volume `v` exists already, with another capacity");
    let parameters = BTreeMap::from([("fake".to_owned(), "null".to_owned())]);
    assert!(pool.create(&Wish { parameters, ..sized("v", 1000, 0) }).is_err());
}

#[test]
fn a_crash_while_it_is_made_or_deleted_is_made_good() {
    let (_folder, pool) = pool();
    let wish = wish("v");
    let (data, new) = (pool.data(&wish.id), pool.root().join("new/v"));
    // Between the intention and the folder, with half a copy.
    pool.write(&wish.id, &wish.volume(None)).unwrap();
    fs::create_dir(&new).unwrap();
    fs::write(new.join("half"), "x").unwrap();
    assert!(matches!(pool.get(&wish.id), Err(CallError::NoVolume(_))), "not there yet");
    pool.create(&wish).unwrap();
    assert!(!data.join("half").exists());
    // Between the folder and the last word.
    pool.write(&wish.id, &wish.volume(None)).unwrap();
    pool.create(&wish).unwrap();
    // Between the intention to delete it and its end, before and after the folder was moved.
    for moved in [false, true] {
        pool.create(&wish).unwrap();
        pool.write(&wish.id, &Volume { state: State::Deleting, ..wish.volume(None) }).unwrap();
        if moved {
            fs::rename(&data, pool.root().join("gone/v")).unwrap();
        }
        assert!(pool.get(&wish.id).is_err());
        pool.delete(&wish.id).unwrap();
        assert_eq!(pool.ids().unwrap(), []);
    }
    pool.delete(&wish.id).unwrap();
    for name in ["volumes", "new", "gone"] {
        assert_eq!(fs::read_dir(pool.root().join(name)).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn what_is_no_volume_is_not_touched() {
    let (_folder, pool) = pool();
    let data = pool.data(&wish("v").id);
    fs::create_dir(&data).unwrap();
    fs::write(data.join("precious"), "x").unwrap();
    assert!(pool.create(&wish("v")).unwrap_err().to_string().contains("is in the pool and no volume"));
    pool.delete(&wish("v").id).unwrap();
    assert!(data.join("precious").exists());
}

#[test]
fn a_clone_is_the_same_but_its_own() {
    let (_folder, pool) = pool();
    pool.create(&sized("v", 1000, 0)).unwrap();
    let data = pool.data(&wish("v").id);
    fs::create_dir(data.join("d")).unwrap();
    fs::write(data.join("d/f"), "content").unwrap();
    fs::set_permissions(data.join("d/f"), Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(data.join("d/f"), data.join("second")).unwrap();
    symlink("/nowhere", data.join("link")).unwrap();
    let is_root = rustix::process::getuid().is_root();
    if is_root {
        let own = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(data.join("link"), "trusted.fsi", b"of a link", own).unwrap();
        rustix::fs::setxattr(data.join("d/f"), "trusted.fsi", b"of a file", own).unwrap();
        std::os::unix::fs::lchown(data.join("link"), Some(7), Some(8)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, data.join("fifo"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
    }
    let holes = File::create(data.join("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&holes, b"end", 32 << 20).unwrap();
    let small = Wish { clone_of: Some(wish("v").id), ..sized("w", 10, 0) };
    assert!(matches!(pool.create(&small), Err(CallError::CloneTooSmall { .. })));
    let clone = Wish { clone_of: Some(wish("v").id), ..sized("w", 1000, 0) };
    pool.create(&clone).unwrap();
    let copy = pool.data(&clone.id);
    assert_eq!(fs::read(copy.join("d/f")).unwrap(), b"content");
    let look = |name: &str| fs::symlink_metadata(copy.join(name)).unwrap();
    assert_eq!(look("d/f").mode() & 0o7777, 0o4751);
    assert_eq!(look("d/f").ino(), look("second").ino());
    let same_time = fs::metadata(data.join("d/f")).unwrap().modified().unwrap();
    assert_eq!(look("d/f").modified().unwrap(), same_time);
    assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("/nowhere"));
    if is_root {
        let attribute = |name: &str| {
            let mut value = [0; 9];
            rustix::fs::lgetxattr(copy.join(name), "trusted.fsi", &mut value).unwrap();
            value
        };
        assert_eq!((&attribute("link"), &attribute("second")), (b"of a link", b"of a file"));
        assert_eq!((look("link").uid(), look("link").gid()), (7, 8));
        assert_eq!(look("fifo").mode(), fs::symlink_metadata(data.join("fifo")).unwrap().mode());
    }
    let link_time = fs::symlink_metadata(data.join("link")).unwrap().modified().unwrap();
    assert_eq!(look("link").modified().unwrap(), link_time);
    assert_eq!(look("holes").len(), 64 << 20);
    assert!(look("holes").blocks() < 2048, "holes stay holes");
    assert_eq!(&fs::read(copy.join("holes")).unwrap()[32 << 20..][..3], b"end");
    fs::write(copy.join("d/f"), "changed").unwrap();
    assert_eq!(fs::read(data.join("d/f")).unwrap(), b"content");
    let none = Wish { clone_of: Some(wish("x").id), ..sized("y", 1000, 0) };
    assert!(matches!(pool.create(&none), Err(CallError::NoCloneSource(id)) if id == "x"));
}

#[test]
fn sizes_are_looked_at() {
    let (_folder, pool) = pool();
    assert!(Range::read(Some(&CapacityRange { required_bytes: 2, limit_bytes: 1 })).is_err());
    assert!(Range::read(Some(&CapacityRange { required_bytes: -2, limit_bytes: 0 })).is_err());
    assert_eq!(pool.create(&sized("limited", 0, 77)).unwrap().bytes, Some(77));
    assert!(matches!(pool.create(&sized("huge", i64::MAX, 0)), Err(CallError::PoolFull { .. })));
    assert_eq!(pool.ids().unwrap().len(), 1, "what does not fit leaves nothing");
    let limited = pool.get(&wish("limited").id).unwrap();
    let room = pool.room().unwrap();
    pool.can_grow(&wish("limited").id, &limited, 1 << 20).unwrap();
    for required in [room.total + 1, i64::MAX.unsigned_abs()] {
        let refused = pool.can_grow(&wish("limited").id, &limited, required).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    }
    let huge = Volume { bytes: Some(room.total), ..limited };
    pool.can_grow(&wish("limited").id, &huge, 1000).unwrap();
    assert!(pool.can_grow(&wish("limited").id, &huge, room.total + 1).is_err(), "more than a pool that were empty has");
    assert_eq!(pool.grow(&wish("limited").id, 100).unwrap(), 100);
    assert_eq!(pool.grow(&wish("limited").id, 10).unwrap(), 100, "volumes do not shrink");
}

#[test]
fn a_group_gets_all_files_once() {
    let (_folder, pool) = pool();
    pool.create(&wish("v")).unwrap();
    let data = pool.data(&wish("v").id);
    fs::create_dir(data.join("d")).unwrap();
    fs::write(data.join("d/f"), "x").unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    let group = fs::metadata(&data).unwrap().gid();
    fs::set_permissions(data.join("d/f"), Permissions::from_mode(0o600)).unwrap();
    give_to(&data, group, Refusal::Fails).unwrap();
    assert_eq!(fs::metadata(data.join("d/f")).unwrap().mode() & 0o7777, 0o660);
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o2070, 0o2070);
    fs::set_permissions(data.join("d/f"), Permissions::from_mode(0o600)).unwrap();
    give_to(&data, group, Refusal::Fails).unwrap();
    assert_eq!(fs::metadata(data.join("d/f")).unwrap().mode() & 0o7777, 0o600, "not walked again");
}

#[test]
fn what_another_file_system_refuses_is_logged_of_a_wrapped_claim() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let small = Small::new(64);
    fs::write(small.0.path().join("file"), "x").unwrap();
    rustix::mount::mount_remount(small.0.path(), rustix::mount::MountFlags::RDONLY, "").unwrap();
    let strict = give_to(small.0.path(), 4321, Refusal::Fails).unwrap_err().to_string();
    assert!(strict.starts_with("give to the group ") && strict.contains("/file: Read-only"), "{strict}");
    give_to(small.0.path(), 4321, Refusal::Logged).unwrap();
}

/// A pool on a file system of its own, which is unmounted in the end.
struct Small(TempDir);

impl Small {
    /// With so many kilobytes.
    fn new(kilobytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kilobytes}k");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "pool"]).arg(folder.path());
        assert!(mount.status().unwrap().success());
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").args(["--lazy"]).arg(self.0.path()).status());
    }
}

#[test]
fn a_pool_that_runs_full_is_left_as_it_was() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let small = Small::new(1024);
    let pool = Pool::open(&small.0.path().join("pool")).unwrap();
    pool.create(&wish("v")).unwrap();
    let data = pool.data(&wish("v").id);
    fs::write(data.join("first"), vec![1; 300 << 10]).unwrap();
    fs::hard_link(data.join("first"), data.join("second")).unwrap();
    fs::write(data.join("third"), vec![1; 300 << 10]).unwrap();
    let before = pool.room().unwrap().available;
    let clone = Wish { clone_of: Some(wish("v").id), ..wish("w") };
    let full = pool.create(&clone).unwrap_err();
    assert_eq!(full.code(), tonic::Code::ResourceExhausted, "{full}");
    assert_eq!(pool.ids().unwrap(), [wish("v").id]);
    assert_eq!(fs::read_dir(pool.root().join("new")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(pool.root().join("gone")).unwrap().count(), 0);
    assert_eq!(pool.room().unwrap().available, before);
    fs::remove_file(data.join("third")).unwrap();
    pool.create(&clone).unwrap();
    let inode = |name: &str| fs::metadata(pool.data(&clone.id).join(name)).unwrap().ino();
    assert_eq!(inode("first"), inode("second"));
}

#[test]
fn what_is_mounted_in_a_volume_is_none_of_its_files() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let (_folder, pool) = pool();
    pool.create(&wish("v")).unwrap();
    let data = pool.data(&wish("v").id);
    let small = Small::new(64);
    fs::write(small.0.path().join("other"), "x").unwrap();
    fs::set_permissions(small.0.path().join("other"), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(data.join("mounted")).unwrap();
    rustix::mount::mount_bind(small.0.path(), data.join("mounted")).unwrap();
    let clone = Wish { clone_of: Some(wish("v").id), ..wish("w") };
    pool.create(&clone).unwrap();
    assert!(!pool.data(&clone.id).join("mounted").exists());
    give_to(&data, fs::metadata(&data).unwrap().gid(), Refusal::Fails).unwrap();
    assert_eq!(fs::metadata(data.join("mounted/other")).unwrap().mode() & 0o777, 0o600);
    assert!(matches!(pool.delete(&wish("v").id), Err(CallError::Foreign(_))));
    assert!(small.0.path().join("other").exists());
    rustix::mount::unmount(pool.root().join("gone/v/mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
    pool.delete(&wish("v").id).unwrap();
    assert_eq!(fs::read_dir(pool.root().join("gone")).unwrap().count(), 0);
}
