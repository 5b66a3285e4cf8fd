//! Volumes that are made, cloned, grown and deleted, with a crash between any two steps.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, symlink};

use std::fs::File;

use tempfile::TempDir;

use super::*;
use crate::proto::csi::CapacityRange;

fn pool() -> (TempDir, Pool) {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::open(&folder.path().join("pool")).unwrap();
    (folder, pool)
}

fn wish(name: &str) -> Wish {
    Wish {
        id: VolumeId::of_name(name),
        name: name.to_owned(),
        range: Range::default(),
        parameters: BTreeMap::new(),
        clone_of: None,
        lifetime: Lifetime::Claim,
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
    give_to(&data, group).unwrap();
    assert_eq!(fs::metadata(data.join("d/f")).unwrap().mode() & 0o7777, 0o660);
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o2070, 0o2070);
    fs::set_permissions(data.join("d/f"), Permissions::from_mode(0o600)).unwrap();
    give_to(&data, group).unwrap();
    assert_eq!(fs::metadata(data.join("d/f")).unwrap().mode() & 0o7777, 0o600, "not walked again");
}
