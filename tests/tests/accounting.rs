//! Nothing is lost silently: operations seen = spans + sampled out + named losses, with a ring that is far too small; and nothing
//! stays in the kernel.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeSet;

use fsi_tests::eventually::eventually;
use fsi_tests::fsi::load;
use fsi_tests::loaded;
use fsi_tests::need::{Need, has};
use fsi_tests::observe::{Observation, Observe};
use tempfile::{NamedTempFile, tempdir};

const READS: u64 = 100_000;

/// So many reads from a ring that holds a few hundred events.
fn under_full_load(options: &[&str]) -> Observation {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "x").expect("a byte in it");
    let program = load();
    let arguments = ["reads".as_ref(), file.path().as_os_str(), READS.to_string().as_ref()].map(ToOwned::to_owned);
    let options = ["--ring", "64KiB"].iter().chain(options);
    let observation = Observe::with(options).run(std::iter::once(program.into_os_string()).chain(arguments));
    // The libraries are read too.
    let reads = observation.metrics.sum("fsi_operations_total", "op", "read");
    assert!((READS..READS + 20).contains(&reads), "metrics are exact whatever was lost: {reads} reads");
    let bytes = observation.metrics.counts().bytes[&("read".to_owned(), "read".to_owned())];
    assert!((READS..READS + 20_000).contains(&bytes), "{bytes} bytes");
    observation
}

#[test]
fn every_operation_told() {
    if !has(&[Need::Probes]) {
        return;
    }
    let observation = under_full_load(&[]);
    let [seen, spans, sampled_out, lost] = observation.balances();
    assert_eq!(sampled_out, 0, "all were asked for");
    assert!(lost > 0 && spans > 0, "the ring was too small for {seen}: {spans} spans, {lost} lost");
}

#[test]
fn slow_operations_told() {
    if !has(&[Need::Probes]) {
        return;
    }
    let observation = under_full_load(&["--slower", "1us"]);
    let [seen, spans, sampled_out, lost] = observation.balances();
    assert!(sampled_out > 0 && sampled_out < seen && spans + lost > 0, "{spans}, {sampled_out}, {lost}");
    let fast = observation.spans.operations().filter(|span| span.end_ns - span.start_ns < 1_000).count();
    assert_eq!(fast, 0, "only slow ones are told");
}

#[test]
fn failed_operations_told() {
    if !has(&[Need::Probes]) {
        return;
    }
    let observation = under_full_load(&["--failed"]);
    let [seen, spans, sampled_out, lost] = observation.balances();
    assert_eq!(spans + lost, observation.metrics.total("fsi_errors_total"), "{seen} seen, {sampled_out} not asked for");
    assert!(observation.spans.operations().all(|span| !span.attribute("error.type").is_empty()), "only failed ones");
}

#[test]
fn one_in_a_hundred_told() {
    if !has(&[Need::Probes]) {
        return;
    }
    let [seen, spans, sampled_out, lost] = under_full_load(&["--sample", "1/100"]).balances();
    let asked = spans + lost;
    assert!(asked > seen / 200 && asked < seen / 50, "{asked} of {seen}, {sampled_out} not asked for");
}

#[test]
fn threads_that_write_all_at_once() {
    if !has(&[Need::Probes]) {
        return;
    }
    let directory = tempdir().expect("a directory");
    let program = load();
    let observation = Observe::with(["--ring", "64KiB"]).within(directory.path()).run([
        program.as_os_str(),
        "threads".as_ref(),
        ".".as_ref(),
        "50".as_ref(),
        "300".as_ref(),
    ]);
    observation.balances();
    assert_eq!(observation.metrics.sum("fsi_operations_total", "op", "write"), 50 * 300 * 2);
    assert_eq!(observation.metrics.sum("fsi_operations_total", "op", "fdatasync"), 50);
}

#[test]
fn ten_thousand_short_lived_processes() {
    if !has(&[Need::Probes]) {
        return;
    }
    let program = load();
    let observation = Observe::with(["--op", "open", "--sample", "1/1000"]).run([
        program.as_os_str(),
        "forks".as_ref(),
        "10000".as_ref(),
    ]);
    observation.balances();
    // `true` opens the loader's cache and the C library; each of the ten thousand does.
    let opens = observation.metrics.sum("fsi_operations_total", "op", "open");
    assert!((20_000..20_100).contains(&opens), "{opens} opens");
    assert_eq!(observation.metrics.total("fsi_lost_total"), 0, "{:?}", observation.metrics.losses());
}

/// Runs something that observes, and demands that what it loaded goes.
fn leaves_nothing(observe: impl FnOnce(&mut dyn FnMut())) {
    let before = loaded::ours();
    let mut loaded_by_it = BTreeSet::new();
    observe(&mut || loaded_by_it = loaded::ours().difference(&before).copied().collect());
    assert!(!loaded_by_it.is_empty(), "it loads programs while it observes");
    eventually("the programs are unloaded", || loaded::ours().is_disjoint(&loaded_by_it));
}

#[test]
fn nothing_stays_loaded() {
    if !has(&[Need::Probes]) {
        return;
    }
    leaves_nothing(|look| {
        let running = Observe::with(["--all", "--op", "fsync"]).start();
        look();
        running.stop();
    });
}

#[test]
fn nothing_stays_loaded_after_a_kill() {
    if !has(&[Need::Probes]) {
        return;
    }
    leaves_nothing(|look| {
        let running = Observe::with(["--all", "--op", "fsync"]).start();
        look();
        running.kill();
    });
}
