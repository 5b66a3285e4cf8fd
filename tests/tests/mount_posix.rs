//! POSIX and Linux, operation by operation, on a mount as on the disk below it.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fsi_tests::expected::{Expected, none, only};
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

/// No name is so long.
const MATCH_NOTHING: &str = "version: 1
rules:
  - name: nothing
    match: { ops: [read, write], path: 'no/such/directory/*' }
    do: { errno: EIO }
";

/// Linux passes three kinds of fallocate on to a FUSE server: allocating, punching, zeroing (`fuse_file_fallocate`).
const NOT_PASSED_ON: &str = "the kernel refuses it for all of FUSE, without a request";
/// The request is the kernel's `FUSE_TMPFILE` (51), of which fuser 0.18 knows nothing: it answers ENOSYS.
const NO_TMPFILE: &str = "fuser has no such operation";

const OF_DATA: &[Expected] = &[
    Expected { starts: "natively fallocate collapse ", reason: NOT_PASSED_ON },
    Expected { starts: "here fallocate collapse ", reason: NOT_PASSED_ON },
    Expected { starts: "natively fallocate insert ", reason: NOT_PASSED_ON },
    Expected { starts: "here fallocate insert ", reason: NOT_PASSED_ON },
    Expected { starts: "natively O_TMPFILE that gets a name: ", reason: NO_TMPFILE },
    Expected { starts: "here O_TMPFILE: ", reason: NO_TMPFILE },
];

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

fn agrees(mount: impl Fn() -> Mount, see: See, expected: &[Expected]) {
    if !has(NEEDS) {
        return;
    }
    let mounted = mount().mount();
    only("a mount", &see(&mounted.target()).difference(&on_disk(see)), expected);
}

macro_rules! agree {
    ($($name:ident: $see:ident, but for $expected:expr, on $mount:expr;)*) => {
        $(#[test]
        fn $name() {
            agrees(|| $mount, posix::$see, $expected);
        })*
    };
}

agree! {
    data_without_rules: data, but for OF_DATA, on Mount::plain();
    names_without_rules: names, but for &[], on Mount::plain();
    users_without_rules: users, but for &[], on Mount::plain();
    data_with_rules_that_match_nothing: data, but for OF_DATA, on Mount::with_rules(MATCH_NOTHING);
    names_with_rules_that_match_nothing: names, but for &[], on Mount::with_rules(MATCH_NOTHING);
    users_with_rules_that_match_nothing: users, but for &[], on Mount::with_rules(MATCH_NOTHING);
    data_with_everything_intercepted: data, but for OF_DATA, on Mount::with_rules(EVERYTHING);
    names_with_everything_intercepted: names, but for &[], on Mount::with_rules(EVERYTHING);
    users_with_everything_intercepted: users, but for &[], on Mount::with_rules(EVERYTHING);
    data_without_passthrough: data, but for OF_DATA, on Mount::plain().option("--no-passthrough");
    users_without_passthrough: users, but for &[], on Mount::plain().option("--no-passthrough");
}
