//! A database on a mount: slow storage only makes it slower, a failed fsync makes it recover, and what it had committed is there
//! after a power cut.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use fsi_tests::eventually::eventually;
use fsi_tests::fsi::text;
use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has};
use fsi_tests::postgres::{self, Postgres, Run};

/// Everything comes to the server from the start, so that rules that are set later reach every open file.
const WATCHED: &str =
    "version: 1\nrules: [{ name: seen, match: { ops: [read, write] }, when: { after: 24h }, do: { delay: 1s } }]\n";

fn begin(rules: &str) -> Option<(Mounted, Postgres)> {
    if !has(&[Need::Mounts, Need::Program("setpriv")]) {
        return None;
    }
    let programs = postgres::programs()?;
    let mounted = Mount::with_rules(rules).logged().mount();
    // The server is somebody else.
    for directory in [mounted.target().parent().expect("it has one"), &mounted.source(), &mounted.target()] {
        fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("it is ours");
    }
    let server = Postgres::begin(programs, &mounted.target().join("data"));
    server.fill();
    Some((mounted, server))
}

fn set(mounted: &Mounted, rules: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), format!("version: 1\n{rules}")).expect("it can be written");
    mounted.ctl([std::ffi::OsStr::new("set"), file.path().as_os_str()]);
}

fn bench(server: &Postgres) -> Run {
    let output = server.bench(5).output().expect("pgbench starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run = Run::read(&text(&output.stdout));
    assert!(run.transactions > 0 && run.failed == 0, "{run:?}");
    run
}

#[test]
fn slow_storage_only_makes_it_slower() {
    let Some((mounted, server)) = begin(WATCHED) else { return };
    bench(&server);
    set(
        &mounted,
        "rules:
  - { name: slow-sync, match: { ops: fsync }, do: { delay: 20ms } }
  - { name: slow-reads, match: { ops: read }, do: { delay: { uniform: { min: 1ms, max: 5ms } } } }
throttle:
  - { scope: volume, write: 8MiB/s, burst: 100ms }
",
    );
    let run = bench(&server);
    // Each transaction waits for an fsync of the log at least; a timer is never early.
    assert!(run.latency_ms >= 20.0, "{run:?}");
    set(&mounted, "profile: hdd-7200\n");
    let run = bench(&server);
    assert!(run.latency_ms >= 0.32, "{run:?}");
    server.is_consistent();
    assert!(!server.log().contains("PANIC"), "{}", server.log());
}

/// "Since it's not safe to retry fsync": PostgreSQL panics, and recovers from its log.
#[test]
fn a_failed_fsync_makes_it_recover() {
    let Some((mounted, server)) = begin(WATCHED) else { return };
    let done = bench(&server).transactions;
    set(
        &mounted,
        "rules: [{ name: lost, match: { ops: fsync, path: 'data/pg_wal/*' }, when: { skip: 50, limit: 1 }, do: { fail_fsync: EIO } }]\n",
    );
    // It ends when its server does.
    let output = server.bench(60).output().expect("pgbench starts");
    let acknowledged = done + Run::read(&text(&output.stdout)).transactions;
    eventually("postgres has recovered", || {
        server.log().contains("PANIC:  could not fdatasync file") && server.log().contains("redo done")
    });
    server.answers();
    assert!(server.transactions() >= acknowledged, "{} of {acknowledged}", server.transactions());
    server.is_consistent();
    assert!(mounted.fault_log().contains("fail_fsync"));
    mounted.ctl(["clear"]);
    bench(&server);
}

#[test]
fn what_was_committed_is_there_after_a_power_cut() {
    let rules = "version: 1\nrules: [{ name: volatile, match: { path: 'data/**' }, do: { lose_until_fsync: true } }]\n";
    let Some((mounted, mut server)) = begin(rules) else { return };
    let mut acknowledged = 0;
    for round in 0..3 {
        let mut running = server.bench(60).spawn().expect("pgbench starts");
        let enough = acknowledged + 200;
        eventually("it has written something", || server.transactions() > enough);
        mounted.ctl(["power-cut"]);
        // Its files answer EIO from now on: it dies, or what it does is refused.
        let output = {
            eventually("pgbench notices", || running.try_wait().is_ok_and(|ended| ended.is_some()));
            running.wait_with_output().expect("it is ours")
        };
        acknowledged += Run::read(&text(&output.stdout)).transactions;
        server.kill();
        server.start();
        let there = server.transactions();
        assert!(there >= acknowledged, "round {round}: {there} of {acknowledged}\n{}", text(&output.stderr));
        acknowledged = there;
        server.is_consistent();
    }
    assert_eq!(mounted.fault_log().matches("\"power_cut\"").count(), 3);
}
