//! A log that is written and read strikes the same again.

use std::sync::Mutex;

use proptest::prelude::*;

use super::line::{LineError, read_all, write};
use super::*;
use crate::rules::decision::{Corrupt, Corruption};
use crate::rules::engine::Engine;
use crate::rules::parse::parse;

#[derive(Default)]
struct Memory(Mutex<HashMap<u128, u64>>);

impl Counters for Memory {
    fn next(&self, key: u128) -> u64 {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(key).or_default();
        *count += 1;
        *count - 1
    }

    fn below(&self, key: u128, limit: u64) -> bool {
        self.next(key) < limit
    }
}

struct Nothing;

impl Facts for Nothing {
    fn size(&self) -> Option<u64> {
        None
    }

    fn process(&self) -> Option<Vec<u8>> {
        None
    }
}

const RULES: &str = "
version: 1
seed: 9
rules:
- { name: late, when: { every: 3 }, do: { delay: { uniform: { max: 5ms } } } }
- { name: bad, match: { ops: [read, write] }, when: { probability: 0.3 }, do: { errno: ENOSPC } }
- { name: flip, match: { ops: [read, write] }, when: { probability: 0.3 }, do: { corrupt: { bitflip: 2 } } }
- { name: lost, match: { ops: write }, when: { every: 4 }, do: { lose_until_fsync: true } }
- { name: sync, match: { ops: fsync, path: b }, when: { skip: 2, limit: 1 }, do: { fail_fsync: EIO } }
";

const OPS: [Op; 4] = [Op::Read, Op::Write, Op::Fsync, Op::Mkdir];

fn request(op: Op, path: &[u8]) -> Request<'_> {
    Request { op, path, target: None, offset: 0, len: 512, uid: 0, gid: 0, pid: 1 }
}

fn entries(request: &Request<'_>, decision: &Decision) -> Vec<FaultEntry> {
    let entry = |fault: &Fault| FaultEntry {
        sequence: 1,
        unix_ns: 2,
        fault: fault.clone(),
        op: request.op,
        path: Arc::from(request.path),
        ordinal: decision.ordinal,
        ino: 3,
        pid: 4,
        uid: 5,
        offset: 6,
        asked: 7,
        done: 8,
        effect: decision.effect.clone(),
    };
    decision.faults.iter().map(entry).collect()
}

/// Runs the operations and gives the decisions.
fn run(decider: &dyn Decider) -> Vec<(Op, &'static [u8], Decision)> {
    let mut decisions = Vec::new();
    for _ in 0..100 {
        for path in [b"a\xff".as_slice(), b"b"] {
            for op in OPS {
                if decider.concern(path).contains(op) {
                    decisions.push((op, path, decider.decide(&request(op, path), &Nothing, Duration::ZERO)));
                }
            }
        }
    }
    decisions
}

#[test]
fn a_log_gives_the_same_faults_again() {
    let engine = Engine::arm(parse(RULES).unwrap(), Arc::new(Memory::default()));
    let first = run(&engine);
    let log: Vec<FaultEntry> =
        first.iter().flat_map(|(op, path, decision)| entries(&request(*op, path), decision)).collect();
    assert!(log.len() > 100);
    let text: String = log.iter().map(|entry| write(entry) + "\n").collect();
    let replay = Replay::arm(&read_all(&text).unwrap(), Arc::new(Memory::default()));
    let second = run(&replay);
    let outcome = |decisions: &[(Op, &'static [u8], Decision)]| -> Vec<_> {
        let struck = decisions.iter().filter(|(_, _, decision)| !decision.faults.is_empty() || decision.volatile);
        struck
            .map(|(op, path, decision)| {
                let Decision { ordinal, delay, effect, volatile, faults, .. } = decision.clone();
                (*op, *path, ordinal, delay, effect, volatile, faults)
            })
            .collect()
    };
    assert_eq!(outcome(&first), outcome(&second));
}

#[test]
fn power_cuts_are_left_out_and_said() {
    let decision = Decision { faults: vec![fault(FaultKind::PowerCut)], ..Decision::default() };
    let log = entries(&request(Op::Write, b"a"), &decision);
    let replay = Replay::arm(&log, Arc::new(Memory::default()));
    assert_eq!((replay.left_out(), replay.concern_any()), (1, OpSet::EMPTY));
}

fn fault(kind: FaultKind) -> Fault {
    Fault { rule: Arc::from("r"), kind, errno: None, delay: Duration::ZERO }
}

fn effects() -> impl Strategy<Value = Effect> {
    let how = prop_oneof![
        any::<u32>().prop_map(|bits| Corrupt::BitFlip { bits }),
        any::<u64>().prop_map(|bytes| Corrupt::Zero { bytes }),
        any::<u64>().prop_map(|bytes| Corrupt::Random { bytes }),
        (any::<u64>(), any::<Vec<u8>>()).prop_map(|(bytes, pattern)| Corrupt::Pattern { bytes, pattern }),
    ];
    prop_oneof![
        Just(Effect::Done),
        (1..134).prop_map(Effect::Fail),
        Just(Effect::Abort),
        any::<u64>().prop_map(Effect::Short),
        any::<u64>().prop_map(Effect::Torn),
        (how, any::<u64>()).prop_map(|(how, seed)| Effect::Corrupt(Corruption { how, seed })),
        (1..134).prop_map(Effect::FailFsync),
        Just(Effect::LieFsync),
    ]
}

proptest! {
    #[test]
    fn a_line_leads_back(path: Vec<u8>, numbers: [u64; 6], effect in effects(), kind in 0_usize..11, delay: u64, rule: String) {
        let [sequence, unix_ns, ordinal, ino, offset, asked] = numbers;
        let entry = FaultEntry {
            sequence,
            unix_ns,
            fault: Fault {
                rule: Arc::from(rule),
                kind: FaultKind::ALL[kind],
                errno: Some(5),
                delay: Duration::from_nanos(delay),
            },
            op: Op::Rename,
            path: Arc::from(path),
            ordinal,
            ino,
            pid: 1,
            uid: u32::MAX,
            offset,
            asked,
            done: 0,
            effect,
        };
        let line = write(&entry);
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(read_all(&line).unwrap(), vec![entry]);
    }
}

#[test]
fn what_is_no_entry_is_named_by_its_line() {
    let decision = Decision { faults: vec![fault(FaultKind::Errno)], ..Decision::default() };
    let good = write(&entries(&request(Op::Write, b"a"), &decision)[0]);
    let told = |line: String| read_all(&format!("{good}\n\n{line}")).unwrap_err().to_string();
    assert!(told("{".to_owned()).starts_with("line 3 of the fault log is no entry: "));
    assert!(told(good.replace("\"write\"", "\"wriet\"")).contains("names the operation `wriet`"));
    assert!(told(good.replace("\"errno\"", "\"err\"")).contains("kind of fault `err`"));
    let error = read_all(&good.replace("\"path\":\"a\"", "\"path_hex\":\"6\"")).unwrap_err();
    assert!(matches!(error, LineError::Path { line: 1 }));
}
