//! What a person sees for a made-up observation.

use super::super::operations::{FailureRow, OperationRow};
use super::super::{Events, Loss, Totals};
use super::*;

fn summary() -> Summary {
    Summary {
        subject: "git gc".to_owned(),
        exit_code: Some(0),
        start_unix_ns: 0,
        duration_ns: 1_234_567_890,
        totals: Totals {
            operations: 12_345,
            failed: 45,
            read_bytes: 3 << 20,
            written_bytes: 100,
            files: 2,
            processes: 1,
            ..Totals::default()
        },
        operations: vec![OperationRow {
            op: "read",
            count: 12_345,
            failed: 45,
            bytes: 3 << 20,
            p50_ns: 900,
            p99_ns: 5_600,
            max_ns: 1_200_000,
            time_ns: 12_300_000,
        }],
        files: vec![FileRow {
            path: "/srv/a/very/long/directory/name/that/does/not/fit/here/file.pack".to_owned(),
            opens: 1,
            operations: 10,
            read_bytes: 1024,
            time_ns: 1_000,
            ..FileRow::default()
        }],
        other_files: super::super::files::OtherFiles { files: 1, operations: 3, time_ns: 5, ..Default::default() },
        failures: vec![FailureRow {
            op: "stat",
            errno: 2,
            errno_name: "ENOENT".to_owned(),
            message: "No such file or directory".to_owned(),
            count: 45,
            example_path: None,
        }],
        listed: None,
        events: Events::default(),
        exports: Vec::new(),
        lost: Vec::new(),
        notes: Vec::new(),
    }
}

#[test]
fn a_page() {
    let page = render(&summary(), &Look { width: Some(80), color: false });
    let expected = "\
git gc: 12,345 operations, 2 files, 1 process in 1.23 s; read 3.00 MiB, wrote 100 B; 45 failed

operation   count  failed     bytes     p50      p99      max    total
read       12,345      45  3.00 MiB  900 ns  5.60 us  1.20 ms  12.3 ms

file (most time first)            opens  ops      read  written  failed     time
/srv/a/ver.../fit/here/file.pack      1   10  1.00 KiB        -       -  1.00 us
and 1 other file: 3 operations, 5 ns

failed  count  errno   meaning
stat       45  ENOENT  No such file or directory
--failed lists them with their paths

lost: nothing";
    assert_eq!(page, expected);
}

#[test]
fn losses_notes_and_survivors_come_last() {
    let mut summary = summary();
    summary.totals.processes_running = 2;
    summary.exit_code = Some(3);
    summary.lost = vec![Loss { stage: "ring", reason: "operation", count: 1_000 }];
    summary.notes = vec!["something".to_owned()];
    let page = render(&summary, &Look { width: None, color: false });
    let last: Vec<_> = page.lines().rev().take(4).collect();
    assert!(last[0].starts_with("lost: 1,000 operations without a span"), "{page}");
    assert!(last[0].contains("try --ring 64MiB"), "{page}");
    assert_eq!(last[1], "note: something");
    assert_eq!(last[2], "2 observed processes still run");
    assert_eq!(last[3], "the command ended with exit code 3");
    assert!(page.contains("/srv/a/very/long/directory/name/that/does/not/fit/here/file.pack"));
}

#[test]
fn the_json_document_says_the_same() {
    let document = super::super::json::document(&summary()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(value["schema"], "fsi.observe/1");
    assert_eq!(value["totals"]["read_bytes"], 3 << 20);
    assert_eq!(value["operations"][0]["p99_ns"], 5_600);
    assert_eq!(value["failures"][0]["errno_name"], "ENOENT");
    assert_eq!(value["lost"], serde_json::json!([]));
}
