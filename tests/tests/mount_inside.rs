//! Nothing that is done to a mount leads out of SOURCE, whatever becomes of the directories below it meanwhile.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use fsi_tests::mount::{Mount, Mounted, scratch};
use fsi_tests::need::{Need, has};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempDir;

const SECRET: &str = "outside";

/// A mount with `d/inner/file`, and a directory outside on the same disk that has a secret under the same names.
fn mounted() -> Option<(Mounted, TempDir)> {
    if !has(&[Need::Mounts]) {
        return None;
    }
    let outside = scratch();
    let mount = Mount::plain();
    for (place, text) in [(mount.source(), "inside"), (outside.path().to_owned(), SECRET)] {
        fs::create_dir_all(place.join("d/inner")).expect("directories");
        for name in ["secret", "d/secret", "d/inner/secret"] {
            fs::write(place.join(name), text).expect("a file");
        }
    }
    Some((mount.mount(), outside))
}

fn directory(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there")
}

fn read(at: &OwnedFd, path: &str) -> Result<String, Errno> {
    let file = rustix::fs::openat(at, path, OFlags::RDONLY, Mode::empty())?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).expect("it can be read");
    Ok(text)
}

/// A directory that the mount knows leaves SOURCE: what is done in it stays in it, and the way up is the mount's.
#[test]
fn a_directory_that_leaves_takes_nobody_along() {
    let Some((mounted, outside)) = mounted() else { return };
    let inner = directory(&mounted.target().join("d/inner"));
    fs::rename(mounted.source().join("d/inner"), outside.path().join("moved")).expect("it can be");
    assert_eq!(read(&inner, "secret"), Ok("inside".to_owned()), "its own");
    for path in ["../secret", "../d/secret", "../../secret", "../inner/../secret"] {
        assert!(!matches!(read(&inner, path), Ok(text) if text == SECRET), "{path}");
    }
    let above = rustix::fs::statat(&inner, "..", AtFlags::empty()).expect("each has one");
    assert_eq!(above.st_ino, fs::metadata(mounted.target().join("d")).expect("it is there").ino());
}

/// Somebody puts a link in the place of a directory that the mount knows.
#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let Some((mounted, outside)) = mounted() else { return };
    let (source, known) = (mounted.source(), directory(&mounted.target().join("d")));
    fs::rename(source.join("d"), source.join("e")).expect("it can be");
    symlink(outside.path().join("d"), source.join("d")).expect("a link");
    assert_eq!(read(&known, "secret"), Ok("inside".to_owned()));
    assert_eq!(read(&known, "inner/secret"), Ok("inside".to_owned()));
    let made = rustix::fs::openat(&known, "made", OFlags::CREATE | OFlags::RDWR, Mode::RWXU);
    assert!(made.is_ok(), "{made:?}");
    rustix::fs::mkdirat(&known, "inner/made", Mode::RWXU).expect("a directory");
    rustix::fs::unlinkat(&known, "secret", AtFlags::empty()).expect("it is there");
    for (name, there) in [("made", false), ("inner/made", false), ("secret", true)] {
        assert_eq!(outside.path().join("d").join(name).exists(), there, "{name} outside");
        assert_eq!(source.join("e").join(name).exists(), !there, "{name} inside");
    }
}

/// A link in the place of a file that the mount knows: attributes and content are the file's.
#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let Some((mounted, outside)) = mounted() else { return };
    let (source, path) = (mounted.source(), mounted.target().join("secret"));
    let known = fs::metadata(&path).expect("it is there").ino();
    let held = File::options().read(true).write(true).open(&path).expect("it is there");
    fs::rename(source.join("secret"), source.join("other")).expect("it can be");
    symlink(outside.path().join("secret"), source.join("secret")).expect("a link");
    held.set_len(3).expect("it can be cut");
    held.set_permissions(fs::Permissions::from_mode(0o604)).expect("it is ours");
    assert_eq!(held.metadata().expect("it is open").ino(), known);
    assert_eq!(fs::read_to_string(outside.path().join("secret")).expect("it is there"), SECRET);
    assert_eq!(fs::metadata(outside.path().join("secret")).expect("it is there").mode() & 0o777, 0o644);
    assert_eq!(fs::read_to_string(source.join("other")).expect("it is there"), "ins");
}

/// Links are the caller's to follow, from where the caller stands.
#[test]
fn a_link_means_what_it_means_to_the_caller() {
    let Some((mounted, outside)) = mounted() else { return };
    let target = mounted.target();
    symlink("../../../../../../../../../../etc/hostname", target.join("up")).expect("a link");
    symlink(outside.path().join("secret"), target.join("away")).expect("a link");
    symlink("d/inner/../secret", target.join("within")).expect("a link");
    assert_eq!(fs::read(target.join("up")).ok(), fs::read("/etc/hostname").ok());
    assert_eq!(fs::read_to_string(target.join("away")).expect("it is there"), SECRET);
    assert_eq!(fs::read_to_string(target.join("within")).expect("it is there"), "inside");
    let root = directory(&target);
    let above = rustix::fs::statat(&root, "..", AtFlags::empty()).expect("each has one");
    let expected = fs::metadata(target.parent().expect("it has one")).expect("it is there");
    assert_eq!((above.st_ino, above.st_dev), (expected.ino(), expected.dev()), "above the mount is what it stands in");
}

/// What is mounted below SOURCE is not shown, so nothing leads into it.
#[test]
fn a_mount_below_is_not_entered() {
    let Some((mounted, outside)) = mounted() else { return };
    let place = mounted.source().join("d");
    rustix::mount::mount_bind(outside.path(), &place).expect("a mount");
    let seen = fs::read_to_string(mounted.target().join("d/secret"));
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).expect("it is mounted");
    assert_eq!(seen.expect("it is there"), "inside");
}
