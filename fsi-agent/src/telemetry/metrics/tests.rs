//! The text, by its samples; and by Prometheus's own checker where there is one.

use std::io::Write as _;
use std::process::{Command, Stdio};

use fsi_common::aggregate::{CREATED, READ, WRITTEN, bucket_of};
use fsi_common::op::OpKind;

use super::*;
use crate::telemetry::containers::NoContainers;

fn entry(op: OpKind, ns: u64, count: u64) -> (AggregateKey, AggregateValue) {
    let key =
        AggregateKey { cgroup: 1, dev: 8 << 20 | 1, op: op.code(), bucket: bucket_of(ns), ..AggregateKey::default() };
    (key, AggregateValue { count, bytes: 0, duration_ns: ns * count, max_ns: ns })
}

fn failed(op: OpKind, errno: u16) -> (AggregateKey, AggregateValue) {
    let (key, value) = entry(op, 1000, 1);
    (AggregateKey { errno, dev: 0, ..key }, value)
}

fn moved(op: OpKind, flags: u16, bytes: u64) -> (AggregateKey, AggregateValue) {
    let (key, value) = entry(op, 2000, 2);
    (AggregateKey { flags, ..key }, AggregateValue { bytes, ..value })
}

fn snapshot(aggregates: Vec<(AggregateKey, AggregateValue)>) -> MetricsSnapshot<'static> {
    MetricsSnapshot {
        aggregates,
        counters: [0; Counter::COUNT as usize],
        losses: Vec::new(),
        spans: Vec::new(),
        tier: "tracepoint",
        open_files: None,
        containers: &NoContainers,
    }
}

fn text(snapshot: &MetricsSnapshot<'_>) -> String {
    render(snapshot).unwrap()
}

#[track_caller]
fn has(text: &str, sample: &str) {
    assert!(text.lines().any(|line| line == sample), "no `{sample}` in:\n{text}");
}

#[test]
fn operations_errors_and_bytes() {
    let text = text(&snapshot(vec![
        entry(OpKind::Read, 700, 3),
        moved(OpKind::Read, READ, 600),
        moved(OpKind::CopyFileRange, READ | WRITTEN, 50),
        failed(OpKind::Open, 2),
        failed(OpKind::Open, 512),
    ]));
    has(&text, r#"fsi_operations_total{container="",device="8:1",op="read"} 5"#);
    has(&text, r#"fsi_operations_total{container="",device="",op="open"} 2"#);
    has(&text, r#"fsi_errors_total{container="",device="",op="open",errno="ENOENT"} 1"#);
    has(&text, r#"fsi_errors_total{container="",device="",op="open",errno="ERESTARTSYS"} 1"#);
    has(&text, r#"fsi_bytes_total{container="",device="8:1",op="read",direction="read"} 600"#);
    has(&text, r#"fsi_bytes_total{container="",device="8:1",op="copy_file_range",direction="read"} 50"#);
    has(&text, r#"fsi_bytes_total{container="",device="8:1",op="copy_file_range",direction="write"} 50"#);
}

#[test]
fn the_histogram_is_folded_exactly() {
    let durations = [0, 511, 512, 1023, 1024, 1 << 20, (1 << 33) - 1, 1 << 33, u64::MAX];
    let text = text(&snapshot(
        durations
            .iter()
            .map(|ns| {
                let (key, value) = entry(OpKind::Fsync, *ns, 1);
                (key, AggregateValue { duration_ns: 1_500_000_000, ..value })
            })
            .collect(),
    ));
    let bucket = |le: &str, count: u64| {
        let labels = format!(r#"container="",device="8:1",op="fsync",le="{le}""#);
        has(&text, &format!("fsi_operation_duration_seconds_bucket{{{labels}}} {count}"));
    };
    bucket("0.000000512", 2);
    bucket("0.000001024", 4);
    bucket("0.000002048", 5);
    bucket("0.001048576", 5);
    bucket("0.002097152", 6);
    bucket("8.589934592", 7);
    bucket("+Inf", 9);
    has(&text, r#"fsi_operation_duration_seconds_count{container="",device="8:1",op="fsync"} 9"#);
    has(&text, r#"fsi_operation_duration_seconds_sum{container="",device="8:1",op="fsync"} 13.5"#);
}

#[test]
fn created_minus_removed() {
    let (key, value) = entry(OpKind::Open, 1000, 4);
    let created = (AggregateKey { flags: CREATED, ..key }, value);
    let mut aggregates = vec![created, failed(OpKind::Mkdir, 17), failed(OpKind::Unlink, 2)];
    for (op, count) in [
        (OpKind::Open, 100),
        (OpKind::Mknod, 1),
        (OpKind::Link, 1),
        (OpKind::Symlink, 1),
        (OpKind::Unlink, 10),
        (OpKind::Mkdir, 5),
        (OpKind::Rmdir, 2),
    ] {
        aggregates.push(entry(op, 2000, count));
    }
    let text = text(&snapshot(aggregates));
    has(&text, r#"fsi_files_net{container=""} -3"#);
    has(&text, r#"fsi_directories_net{container=""} 3"#);
}

#[test]
fn every_known_loss_and_outcome_is_there_from_the_start() {
    let mut shot = snapshot(Vec::new());
    shot.counters[Counter::RingOperation as usize] = 7;
    shot.counters[Counter::SampledOut as usize] = 9;
    shot.losses = vec![("export", "timeout", 2), ("export", "timeout", 1)];
    shot.spans = vec![(defs::OUTCOME_MADE, 4)];
    shot.open_files = Some(3);
    let text = text(&shot);
    for (stage, reason) in defs::losses() {
        assert!(text.contains(&format!(r#"fsi_lost_total{{stage="{stage}",reason="{reason}"}}"#)), "{stage} {reason}");
    }
    has(&text, r#"fsi_lost_total{stage="ring",reason="operation"} 7"#);
    has(&text, r#"fsi_lost_total{stage="export",reason="timeout"} 3"#);
    has(&text, r#"fsi_spans_total{outcome="sampled_out"} 9"#);
    has(&text, r#"fsi_spans_total{outcome="made"} 4"#);
    has(&text, r#"fsi_spans_total{outcome="exported"} 0"#);
    has(&text, "fsi_open_files 3");
    has(&text, r#"fsi_probe_info{tier="tracepoint"} 1"#);
}

#[derive(Debug)]
struct EachItsOwn;

impl ContainerNames for EachItsOwn {
    fn container(&self, cgroup: u64) -> Option<Arc<str>> {
        Some(Arc::from(format!("c{}", cgroup % 50)))
    }
}

#[test]
fn series_are_bounded_and_no_operation_is_missing() {
    let aggregates = (0..200)
        .map(|cgroup| {
            let (key, value) = entry(OpKind::Read, 1000, 2);
            (AggregateKey { cgroup, ..key }, value)
        })
        .collect();
    let mut shot = snapshot(aggregates);
    shot.containers = &EachItsOwn;
    let text = super::text(&families(&shot, 10)).unwrap();
    let samples: Vec<_> = text.lines().filter(|line| line.starts_with("fsi_operations_total")).collect();
    assert_eq!(samples.len(), 11);
    // Four cgroups are one container here.
    has(&text, r#"fsi_operations_total{container="c0",device="8:1",op="read"} 8"#);
    has(&text, r#"fsi_operations_total{container="other",device="other",op="read"} 320"#);
    has(&text, r#"fsi_lost_total{stage="metrics",reason="series"} 320"#);
}

#[test]
fn an_unknown_operation_is_counted() {
    let (key, value) = entry(OpKind::Read, 1000, 3);
    let text = text(&snapshot(vec![(AggregateKey { op: 999, ..key }, value)]));
    has(&text, r#"fsi_lost_total{stage="metrics",reason="unknown_operation"} 3"#);
}

#[test]
fn promtool_accepts_it() {
    let mut shot =
        snapshot(vec![moved(OpKind::Read, READ, 600), failed(OpKind::Open, 2), entry(OpKind::Mkdir, 5000, 1)]);
    shot.open_files = Some(1);
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        // Where it is not installed the other tests hold the format.
        return;
    };
    promtool.stdin.take().unwrap().write_all(text(&shot).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
