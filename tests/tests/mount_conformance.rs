//! What others know of file systems holds on a mount as on the disk below it: the same cases with the same results.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fsi_tests::conformance::{Results, SUITES, Suite};
use fsi_tests::expected::{Expected, none, only};
use fsi_tests::mount::{Mount, scratch};
use fsi_tests::need::{Need, has};

/// Every operation comes to the server, is decided on, and is then done.
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

/// What the disk says; run once for all tests.
fn native(suite: &Suite) -> Results {
    static KNOWN: Mutex<BTreeMap<&str, Results>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(suite.name).or_insert_with(|| suite.run(scratch().path())).clone()
}

fn agrees(mount: Mount, suite: &Suite) {
    if !has(&[Need::Mounts, suite.need]) {
        return;
    }
    let mounted = mount.mount();
    only(suite.name, &suite.run(&mounted.target()).difference(&native(suite)), expected(suite));
}

/// What no FUSE mount has as the disk has it.
fn expected(suite: &Suite) -> &'static [Expected] {
    match suite.name {
        "pjdfstest" => &[Expected {
            starts: "link::link_count_max: natively ok, here skipped",
            reason: "how many links a file may have is glibc's guess by the type of the file system, and it has none for FUSE",
        }],
        _ => &[],
    }
}

/// Else a mount would be compared with nothing.
#[test]
fn the_suites_pass_on_a_disk() {
    for suite in SUITES {
        if !has(&[suite.need]) {
            continue;
        }
        let native = native(suite);
        let failed: Vec<_> = native.not_ok().into_iter().filter(|case| case.contains(": failed")).collect();
        none(suite.name, &failed);
        let again = suite.run(scratch().path());
        none(suite.name, &again.difference(&native));
    }
}

macro_rules! agree {
    ($($name:ident: $suite:literal on $mount:expr;)*) => {
        $(#[test]
        fn $name() {
            agrees($mount, &Suite::named($suite));
        })*
    };
}

agree! {
    pjdfstest_without_rules: "pjdfstest" on Mount::plain();
    fsx_without_rules: "fsx" on Mount::plain();
    fio_without_rules: "fio" on Mount::plain();
    stress_ng_without_rules: "stress-ng" on Mount::plain();
    sqlite_without_rules: "sqlite" on Mount::plain();
    git_without_rules: "git" on Mount::plain();
    pjdfstest_with_rules_that_match_nothing: "pjdfstest" on Mount::with_rules(MATCH_NOTHING);
    fsx_with_rules_that_match_nothing: "fsx" on Mount::with_rules(MATCH_NOTHING);
    fio_with_rules_that_match_nothing: "fio" on Mount::with_rules(MATCH_NOTHING);
    stress_ng_with_rules_that_match_nothing: "stress-ng" on Mount::with_rules(MATCH_NOTHING);
    sqlite_with_rules_that_match_nothing: "sqlite" on Mount::with_rules(MATCH_NOTHING);
    git_with_rules_that_match_nothing: "git" on Mount::with_rules(MATCH_NOTHING);
    pjdfstest_with_everything_intercepted: "pjdfstest" on Mount::with_rules(EVERYTHING);
    fsx_with_everything_intercepted: "fsx" on Mount::with_rules(EVERYTHING);
    fio_with_everything_intercepted: "fio" on Mount::with_rules(EVERYTHING);
    stress_ng_with_everything_intercepted: "stress-ng" on Mount::with_rules(EVERYTHING);
    sqlite_with_everything_intercepted: "sqlite" on Mount::with_rules(EVERYTHING);
    git_with_everything_intercepted: "git" on Mount::with_rules(EVERYTHING);
    pjdfstest_without_passthrough: "pjdfstest" on Mount::plain().option("--no-passthrough");
    stress_ng_without_passthrough: "stress-ng" on Mount::plain().option("--no-passthrough");
    sqlite_without_passthrough: "sqlite" on Mount::plain().option("--no-passthrough");
    git_without_passthrough: "git" on Mount::plain().option("--no-passthrough");
    fsx_without_passthrough: "fsx" on Mount::plain().option("--no-passthrough");
    fio_without_passthrough: "fio" on Mount::plain().option("--no-passthrough");
}
