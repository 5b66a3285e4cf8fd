//! What is said of an operation, in words.

use super::*;
use crate::rules::parse::parse;

const SET: &str = "
version: 1
rules:
- { name: wal, match: { ops: [write, fsync], path: 'pg_wal/**', uid: 999, process: postgres, offset: 4KiB..8KiB }, do: { short: 0.5 } }
- { name: all, when: { skip: 1, every: 2, probability: 0.5, limit: 3, after: 1s, until: 2s }, do: { delay: 5ms, errno: EIO } }
";

fn question() -> Question {
    Question {
        op: Op::Write,
        path: b"pg_wal/1".to_vec(),
        uid: Some(999),
        gid: None,
        process: Some(b"postgres".to_vec()),
        size: None,
        offset: Some(4095),
        len: Some(2),
    }
}

fn wal(question: &Question) -> (Held, Vec<(&'static str, Held)>) {
    let set = parse(&SET.replace("[write, fsync]", "write")).unwrap();
    let wal = explain(&set, question).remove(0);
    (wal.matches, wal.reasons.iter().map(|reason| (reason.key, reason.held)).collect())
}

#[test]
fn one_thing_that_does_not_hold_is_enough() {
    assert_eq!(wal(&question()).0, Held::Yes);
    let (matches, reasons) = wal(&Question { offset: Some(8192), uid: None, ..question() });
    assert_eq!(matches, Held::No);
    assert!(reasons.contains(&("offset", Held::No)) && reasons.contains(&("uid", Held::Open)));
    assert_eq!(wal(&Question { path: b"base/1".to_vec(), ..question() }).0, Held::No);
    assert_eq!(wal(&Question { op: Op::Read, ..question() }).0, Held::No);
    assert_eq!(wal(&Question { len: Some(1), offset: Some(4096), ..question() }).0, Held::No);
}

#[test]
fn what_is_not_said_stays_open() {
    assert_eq!(wal(&Question { uid: None, ..question() }).0, Held::Open);
    assert_eq!(wal(&Question { process: None, ..question() }).0, Held::Open);
    assert_eq!(wal(&Question { offset: None, ..question() }).0, Held::Open);
    assert_eq!(wal(&Question { len: None, ..question() }).0, Held::Open);
}

#[test]
fn sentences() {
    let set = parse(&SET.replace("[write, fsync]", "write")).unwrap();
    let all = explain(&set, &question()).remove(1);
    assert_eq!(all.does, "it waits 5ms, then it fails with EIO");
    assert_eq!(
        all.when,
        "not the first 1, one in each 2 that match, with probability 0.5, at most 3 times, from 1s after the rules were set, \
         until 2s after the rules were set; counted for each file and operation on its own"
    );
}
