//! POSIX and Linux, operation by operation, on a mount as on the disk below it.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fsi_tests::conformance::none;
use fsi_tests::mount::{Mount, scratch};
use fsi_tests::need::{Need, has};
use fsi_tests::posix::{self, Seen};

const NEEDS: &[Need<'static>] = &[
    Need::Mounts,
    Need::Program("setpriv"),
    Need::Program("setcap"),
    Need::Program("setfacl"),
    Need::Program("flock"),
];

const EVERYTHING: &str = "version: 1
rules:
  - name: everything
    when: { after: 1h }
    do: { errno: EIO }
";

type See = fn(&Path) -> Seen;

/// Each part, and how many cases it has at least.
const PARTS: &[(See, usize)] = &[(posix::data, 90), (posix::names, 200), (posix::users, 500)];

/// On a directory that others may reach.
fn on_disk(see: See) -> Seen {
    let disk = scratch();
    fs::set_permissions(disk.path(), Permissions::from_mode(0o755)).expect("it is ours");
    see(disk.path())
}

/// Else nothing but chance would be compared.
#[test]
fn what_a_disk_does_it_does_twice() {
    if !has(NEEDS) {
        return;
    }
    for (see, least) in PARTS {
        let native = on_disk(*see);
        // The table would be of no use if nothing in it were cleared.
        if let Some(cleared) = native.line("nobody overwrite 6777 0:0") {
            assert!(cleared.contains("0 777 0:0"), "{cleared}");
        }
        assert!(native.count() >= *least, "{} cases", native.count());
        none("a disk", &on_disk(*see).difference(&native));
    }
}

fn agrees(mount: impl Fn() -> Mount, see: See) {
    if !has(NEEDS) {
        return;
    }
    let mounted = mount().mount();
    none("a mount", &see(&mounted.target()).difference(&on_disk(see)));
}

#[test]
fn data_without_rules() {
    agrees(Mount::plain, posix::data);
}

#[test]
fn names_without_rules() {
    agrees(Mount::plain, posix::names);
}

#[test]
fn users_without_rules() {
    agrees(Mount::plain, posix::users);
}

#[test]
fn data_with_everything_intercepted() {
    agrees(|| Mount::with_rules(EVERYTHING), posix::data);
}

#[test]
fn names_with_everything_intercepted() {
    agrees(|| Mount::with_rules(EVERYTHING), posix::names);
}

#[test]
fn users_with_everything_intercepted() {
    agrees(|| Mount::with_rules(EVERYTHING), posix::users);
}

#[test]
fn data_without_passthrough() {
    agrees(|| Mount::plain().option("--no-passthrough"), posix::data);
}
