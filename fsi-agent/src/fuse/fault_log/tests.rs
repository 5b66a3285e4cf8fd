//! What one server logs, its successor has.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::rules::decision::{Effect, Fault, FaultKind};
use crate::rules::op::Op;

fn entry(sequence: u64, path: &[u8]) -> FaultEntry {
    FaultEntry {
        sequence,
        unix_ns: 7,
        fault: Fault { rule: "r".into(), kind: FaultKind::Errno, errno: Some(libc::EIO), delay: Duration::ZERO },
        op: Op::Write,
        path: Arc::from(path),
        ordinal: 1,
        ino: 2,
        pid: 3,
        uid: 4,
        offset: 5,
        asked: 6,
        done: 0,
        effect: Effect::Fail(libc::EIO),
    }
}

fn log(lines: &OwnedFd) -> FaultLog {
    FaultLog::open(lines.try_clone().unwrap()).unwrap()
}

fn sequences(log: &mut FaultLog) -> Vec<u64> {
    log.page(0, usize::MAX).entries.iter().map(|entry| entry.sequence).collect()
}

#[test]
fn a_successor_has_what_was_logged() {
    let lines = create().unwrap();
    let mut first = log(&lines);
    first.push(entry(1, b"a\nb\xff"));
    first.push(entry(2, b"c"));
    let mut next = log(&lines);
    next.push(entry(3, b"d"));
    assert!(next.has(1) && next.has(3) && !next.has(4));
    assert_eq!(next.page(0, 2), FaultPage { entries: vec![entry(1, b"a\nb\xff"), entry(2, b"c")], forgotten: 0 });
    assert_eq!(sequences(&mut log(&lines)), [1, 2, 3]);
}

#[test]
fn a_torn_line_is_passed_over() {
    let lines = create().unwrap();
    let mut first = log(&lines);
    first.push(entry(1, b"a"));
    let torn = line::write(&entry(2, b"b"));
    first.lines.write_all_at(&torn.as_bytes()[..40], first.at).unwrap();
    let mut next = log(&lines);
    next.push(entry(3, b"c"));
    assert_eq!(sequences(&mut next), [1, 3]);
    assert_eq!(sequences(&mut log(&lines)), [1, 3]);
}

/// At least as much as fits one half, at most as much as fits both, and always the last ones.
#[test]
fn the_last_ones_are_kept() {
    let lines = create().unwrap();
    let path = vec![b'x'; 100_000];
    let in_half = HALF / (line::write(&entry(100, &path)).len() as u64 + 1);
    for last in [in_half, in_half + 1, 2 * in_half, 2 * in_half + 1, 5 * in_half + 3] {
        let known = sequences(&mut log(&lines)).last().copied().unwrap_or(0);
        for sequence in known + 1..=last {
            // Each by a server of its own.
            log(&lines).push(entry(sequence, &path));
        }
        let kept = sequences(&mut log(&lines));
        assert_eq!(kept.last(), Some(&last));
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "without gaps");
        let count = kept.len() as u64;
        assert!(count == last || (in_half - 1..=2 * in_half).contains(&count), "{count} of {last}");
    }
    let mut log = log(&lines);
    log.push(entry(5 * in_half + 4, &vec![b'x'; usize::try_from(HALF).unwrap()]));
    assert_eq!(sequences(&mut log).last(), Some(&(5 * in_half + 4)), "one that is too long is known to its own server");
}
