//! What is told arrives as it was.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

use super::*;
use crate::rules::decision::{Corrupt, Corruption, Effect, Fault, FaultEntry, FaultKind};

/// A report of a write.
pub(crate) fn operation(dev: u32, unique: u64) -> OpReport {
    OpReport {
        unique,
        dev,
        op: Op::Write,
        ino: 99,
        mode: 0,
        path: Arc::from(&b"pg_wal/000000010000000000000001"[..]),
        target: None,
        tid: 43,
        uid: 1000,
        open_file: 7,
        open_flags: None,
        offset: Some(4096),
        asked: Some(8192),
        done: Some(8192),
        errno: 0,
        started_ns: 81_000_000_000_000,
        answered_ns: 81_000_000_123_456,
        backing_ns: 98_765,
        delay_ns: 0,
        throttle_ns: 0,
        throttle: Throttled::No,
        faults: Vec::new(),
    }
}

fn path() -> impl Strategy<Value = Arc<[u8]>> {
    vec(any::<u8>(), 0..40).prop_map(Arc::from)
}

fn effect() -> impl Strategy<Value = Effect> {
    let how = prop_oneof![
        any::<u32>().prop_map(|bits| Corrupt::BitFlip { bits }),
        any::<u64>().prop_map(|bytes| Corrupt::Zero { bytes }),
        any::<u64>().prop_map(|bytes| Corrupt::Random { bytes }),
        (any::<u64>(), vec(any::<u8>(), 0..9)).prop_map(|(bytes, pattern)| Corrupt::Pattern { bytes, pattern }),
    ];
    prop_oneof![
        Just(Effect::Done),
        any::<i32>().prop_map(Effect::Fail),
        Just(Effect::Abort),
        any::<u64>().prop_map(Effect::Short),
        any::<u64>().prop_map(Effect::Torn),
        (how, any::<u64>()).prop_map(|(how, seed)| Effect::Corrupt(Corruption { how, seed })),
        any::<i32>().prop_map(Effect::FailFsync),
        Just(Effect::LieFsync),
    ]
}

fn fault() -> impl Strategy<Value = FaultEntry> {
    let fault = (".{0,9}", select(&FaultKind::ALL[..]), option::of(any::<i32>()), any::<u64>());
    let numbers = (any::<[u64; 7]>(), any::<[u32; 2]>());
    (fault, select(Op::ALL), path(), numbers, effect()).prop_map(|(fault, op, path, (long, short), effect)| {
        let (rule, kind, errno, delay_ns) = fault;
        let [sequence, unix_ns, ordinal, ino, offset, asked, done] = long;
        let fault = Fault { rule: Arc::from(rule), kind, errno, delay: Duration::from_nanos(delay_ns) };
        let [pid, uid] = short;
        FaultEntry { sequence, unix_ns, fault, op, path, ordinal, ino, pid, uid, offset, asked, done, effect }
    })
}

fn any_operation(dev: u32) -> impl Strategy<Value = OpReport> {
    let said = select(&[Throttled::No, Throttled::Waited, Throttled::Again][..]);
    let may_miss = (option::of(any::<u32>()), any::<[Option<u64>; 3]>(), any::<i32>());
    let numbers = (any::<[u64; 8]>(), any::<[u32; 3]>());
    let rest = (said, vec(fault(), 0..4));
    (select(Op::ALL), path(), option::of(path()), may_miss, numbers, rest).prop_map(
        move |(op, path, target, (open_flags, [offset, asked, done], errno), (long, short), (throttle, faults))| {
            let [unique, ino, open_file, started_ns, answered_ns, backing_ns, delay_ns, throttle_ns] = long;
            let [mode, tid, uid] = short;
            OpReport {
                unique,
                dev,
                op,
                ino,
                mode,
                path,
                target,
                tid,
                uid,
                open_file,
                open_flags,
                offset,
                asked,
                done,
                errno,
                started_ns,
                answered_ns,
                backing_ns,
                delay_ns,
                throttle_ns,
                throttle,
                faults,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_report_arrives_as_it_was(report in any_operation(52)) {
        let bytes = report_to_wire(report.clone()).encode_to_vec();
        prop_assert!(bytes.len() <= weight(&report), "{} bytes", bytes.len());
        let decoded = wire::Report::decode(&bytes[..]).unwrap();
        prop_assert_eq!(report_from_wire(52, decoded).unwrap(), report);
    }

    #[test]
    fn any_bytes_are_a_report_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(decoded) = wire::Report::decode(&bytes[..]) {
            report_from_wire(52, decoded).ok();
        }
    }
}

fn mount() -> MountInfo {
    MountInfo {
        dev: (3 << 20) + 52,
        device_major: 3,
        device_minor: 52,
        target: convert::path_from_bytes(b"/mnt/\xff".to_vec()),
        source: "/data".into(),
        volume: Some("pvc-1".to_owned()),
        namespace: Some("shop".to_owned()),
        server_pid: 12,
        version: "1.2.3".to_owned(),
        servers: 4,
        dropped: 5,
    }
}

#[test]
fn a_hello_arrives_as_it_was_or_is_refused() {
    assert_eq!(hello_from_wire(hello_to_wire(mount(), 9)).unwrap(), mount());
    let refused = |change: fn(&mut wire::Hello)| {
        let mut hello = hello_to_wire(mount(), 9);
        change(&mut hello);
        hello_from_wire(hello).unwrap_err()
    };
    assert!(matches!(refused(|hello| hello.target.clear()), WireError::Length { what: "target", bytes: 0 }));
    assert!(matches!(refused(|hello| hello.source = vec![b'/'; 1 << 20]), WireError::Length { what: "source", .. }));
    assert!(matches!(refused(|hello| hello.volume = Some(String::new())), WireError::Length { what: "volume", .. }));
    let unnamed = |hello: &mut wire::Hello| hello.namespace = Some(String::new());
    assert!(matches!(refused(unnamed), WireError::Length { what: "namespace", .. }));
    assert!(matches!(refused(|hello| hello.dev = 1), WireError::Device { dev: 1, .. }));
}

#[test]
fn what_is_unknown_is_refused() {
    let refused = |change: fn(&mut wire::Operation)| {
        let mut operation = operation_to_wire(operation(52, 1));
        change(&mut operation);
        operation_from_wire(52, operation).unwrap_err()
    };
    assert_eq!(refused(|operation| operation.op = "teleport".to_owned()), WireError::Op("teleport".to_owned()));
    assert_eq!(refused(|operation| operation.throttle = 9), WireError::Throttle(9));
    assert!(matches!(refused(|operation| operation.faults.push(Default::default())), WireError::Fault(_)));
    assert_eq!(report_from_wire(52, wire::Report::default()).unwrap_err(), WireError::Empty);
}
