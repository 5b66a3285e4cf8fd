//! Trees that are changed while they are walked, and trees that are deep.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, mkdirat, open, openat, renameat_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::tests::{pool, wish};
use super::*;

/// More than there are descriptors, and far more than a path can name.
const DEPTH: usize = 50_000;
const DESCRIPTORS: u64 = 1024;
/// Enough that a walk by path is led astray many times.
const TURNS: usize = 5000;

/// Exchanges a directory with a link to another one, and a file with a link to another one, for as long as `walk` is at it.
fn while_swapped(data: &Path, outside: &Path, walk: impl Fn()) {
    fs::create_dir(outside).unwrap();
    fs::write(outside.join("f"), "secret").unwrap();
    fs::set_permissions(outside.join("f"), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(data.join("d")).unwrap();
    fs::write(data.join("d/f"), "own").unwrap();
    fs::write(data.join("f"), "own").unwrap();
    symlink(outside, data.join("to-d")).unwrap();
    symlink(outside.join("f"), data.join("to-f")).unwrap();
    let is_over = AtomicBool::new(false);
    let swap = |one: &str, other: &str| {
        while !is_over.load(Ordering::Relaxed) {
            renameat_with(CWD, data.join(one), CWD, data.join(other), RenameFlags::EXCHANGE).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| swap("d", "to-d"));
        scope.spawn(|| swap("f", "to-f"));
        for _ in 0..TURNS {
            walk();
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_link_that_takes_the_place_of_a_file_is_not_followed_into_a_clone() {
    let (folder, pool) = pool();
    pool.create(&wish("v")).unwrap();
    let (copy, links) = (pool.root().join("new/copy"), pool.root().join("new/links"));
    while_swapped(&pool.data(&wish("v").id), &folder.path().join("outside"), || {
        copy::tree(&pool.data(&wish("v").id), &copy, &links).unwrap();
        for name in ["f", "d/f", "to-f", "to-d/f"] {
            let path = copy.join(name);
            let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
            if !is_link(&path) && !path.parent().is_some_and(is_link) && path.exists() {
                assert_eq!(fs::read_to_string(&path).unwrap(), "own", "{}", path.display());
            }
        }
        fs::remove_dir_all(&copy).unwrap();
        fs::remove_dir_all(&links).unwrap();
    });
}

#[test]
fn a_link_that_takes_the_place_of_a_file_is_not_given_away() {
    let (folder, pool) = pool();
    pool.create(&wish("v")).unwrap();
    let (data, outside) = (pool.data(&wish("v").id), folder.path().join("outside"));
    let group = fs::metadata(&data).unwrap().gid();
    while_swapped(&data, &outside, || {
        fs::set_permissions(&data, Permissions::from_mode(VOLUME_MODE)).unwrap();
        give_to(&data, group, Refusal::Fails).unwrap();
        assert_eq!(fs::metadata(outside.join("f")).unwrap().mode() & 0o7777, 0o600);
    });
}

/// A file below so many directories.
fn deep(root: &Path) {
    let mut here: OwnedFd = open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = openat(&here, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    drop(openat(here.as_fd(), "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
}

/// The group's part of the mode of that file.
fn at_the_bottom(root: &Path) -> Option<u32> {
    let mut here: OwnedFd = open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        here = openat(&here, "d", OFlags::DIRECTORY, Mode::empty()).ok()?;
    }
    let file = File::from(openat(&here, "f", OFlags::RDONLY, Mode::empty()).ok()?);
    Some(file.metadata().unwrap().mode() & 0o070)
}

#[test]
fn a_tree_may_be_deeper_than_there_are_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), ..limit }).unwrap();
    // Where a disk is told of every directory that goes, this takes minutes.
    let memory = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }).unwrap();
    let pool = Pool::open(&folder.path().join("pool")).unwrap();
    pool.create(&wish("v")).unwrap();
    let data = pool.data(&wish("v").id);
    deep(&data);
    let clone = Wish { clone_of: Some(wish("v").id), ..wish("w") };
    pool.create(&clone).unwrap();
    assert_eq!(at_the_bottom(&pool.data(&clone.id)), Some(0));
    give_to(&pool.data(&clone.id), fs::metadata(&data).unwrap().gid(), Refusal::Fails).unwrap();
    assert_eq!(at_the_bottom(&pool.data(&clone.id)), Some(0o060));
    assert_eq!(at_the_bottom(&data), Some(0));
    for id in [&clone.id, &wish("v").id] {
        pool.delete(id).unwrap();
    }
    for name in ["volumes", "new", "gone"] {
        assert_eq!(fs::read_dir(folder.path().join("pool").join(OsStr::new(name))).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn a_walk_that_comes_back_goes_on_where_it_was() {
    const DIRECTORIES: usize = 40;
    const FILES: usize = 150;
    let (_folder, pool) = pool();
    pool.create(&wish("v")).unwrap();
    let mut here = pool.data(&wish("v").id);
    for _ in 0..DIRECTORIES {
        for file in 0..FILES {
            fs::write(here.join(format!("{file:0>64}")), "").unwrap();
            // Among the files, wherever the file system puts it.
            if file == FILES / 2 {
                fs::create_dir(here.join("d")).unwrap();
            }
        }
        here.push("d");
    }
    let clone = Wish { clone_of: Some(wish("v").id), ..wish("w") };
    pool.create(&clone).unwrap();
    let mut here = pool.data(&clone.id);
    for _ in 0..DIRECTORIES {
        assert_eq!(fs::read_dir(&here).unwrap().count(), FILES + 1, "{}", here.display());
        here.push("d");
    }
    pool.delete(&clone.id).unwrap();
    assert_eq!(fs::read_dir(pool.root().join("gone")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_moved_away_ends_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    let (root, other) = (folder.path().join("root"), folder.path().join("other"));
    let deep: PathBuf = std::iter::repeat_n("d", 50).collect();
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::create_dir(&other).unwrap();
    let mut way = walk::Way::into(&root).unwrap();
    while let Some(name) = way.next().unwrap() {
        let walk::Found::Node(node) = way.look(&name).unwrap() else { panic!("it is there") };
        way.down(name, &node).unwrap();
    }
    fs::rename(root.join("d/d"), other.join("d")).unwrap();
    let moved = loop {
        match way.up() {
            Ok(left) => assert!(left.is_some(), "it came back to the root"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&moved, CallError::Moved(path) if path.starts_with(&root)), "{moved}");
}
