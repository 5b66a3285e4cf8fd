//! What is decided: each key of match, when and do, and that the same seed decides the same.

use std::collections::HashMap;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
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
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(key).or_default();
        let is_below = *count < limit;
        *count += u64::from(is_below);
        is_below
    }
}

struct Known {
    size: Option<u64>,
    process: Option<&'static [u8]>,
}

impl Facts for Known {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn process(&self) -> Option<Vec<u8>> {
        self.process.map(<[u8]>::to_vec)
    }
}

const FACTS: Known = Known { size: Some(8192), process: Some(b"postgres") };

fn engine(rules: &str) -> Engine {
    let text = format!("version: 1\nseed: 42\nrules:\n{rules}");
    Engine::arm(parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}")), Arc::new(Memory::default()))
}

fn request(op: Op, path: &str) -> Request<'_> {
    Request { op, path: path.as_bytes(), target: None, offset: 0, len: 4096, uid: 999, gid: 999, pid: 1 }
}

/// Which of so many operations are struck.
fn struck(engine: &Engine, op: Op, path: &str, count: u64) -> Vec<u64> {
    let decide = |_| engine.decide(&request(op, path), &FACTS, Duration::ZERO);
    (0..count).map(decide).filter(|decision| decision.fired != 0).map(|decision| decision.ordinal).collect()
}

#[test]
fn the_first_effect_wins_and_delays_add_up() {
    let engine = engine(
        "- { name: a, do: { delay: 5ms } }\n- { name: b, do: { errno: EIO, delay: 1ms } }\n- { name: c, do: { errno: ENOSPC } }\n",
    );
    let decision = engine.decide(&request(Op::Mkdir, "d"), &FACTS, Duration::ZERO);
    assert_eq!(decision.delay, Duration::from_millis(6));
    assert_eq!(decision.effect, Effect::Fail(libc::EIO));
    let faults: Vec<_> = decision.faults.iter().map(|fault| (&*fault.rule, fault.kind)).collect();
    assert_eq!(faults, [("a", FaultKind::Delay), ("b", FaultKind::Delay), ("b", FaultKind::Errno)]);
    assert_eq!(decision.fired, 0b111);
}

#[test]
fn each_key_of_match_narrows() {
    type Change = fn(&mut Request<'_>);
    let cases: [(&str, Change, Known); 9] = [
        ("ops: read", |request| request.op = Op::Write, FACTS),
        ("path: 'pg_wal/**'", |request| request.path = b"base/1", FACTS),
        ("path: 'pg_wal/*'", |request| request.path = b"x/pg_wal/1", FACTS),
        ("min_size: 8KiB", |_| {}, Known { size: Some(8191), ..FACTS }),
        ("max_size: 8KiB", |_| {}, Known { size: Some(8193), ..FACTS }),
        ("uid: [999, 0]", |request| request.uid = 1, FACTS),
        ("gid: 999", |request| request.gid = 1, FACTS),
        ("process: 'post*'", |_| {}, Known { process: Some(b"cat"), ..FACTS }),
        ("{ ops: read, offset: 0..4KiB }", |request| request.offset = 4096, FACTS),
    ];
    for (matching, change, facts) in cases {
        let matching = if matching.starts_with('{') { matching.to_owned() } else { format!("{{ {matching} }}") };
        let engine = engine(&format!("- {{ match: {matching}, do: {{ errno: EIO }} }}\n"));
        let mut request = request(Op::Read, "pg_wal/1");
        assert_eq!(engine.decide(&request, &FACTS, Duration::ZERO).fired, 1, "{matching}");
        change(&mut request);
        assert_eq!(engine.decide(&request, &facts, Duration::ZERO).fired, 0, "{matching}");
    }
}

#[test]
fn counts_are_per_path_and_operation() {
    let engine = engine("- { name: a, when: { skip: 2, every: 3, limit: 2 }, do: { errno: EIO } }\n");
    assert_eq!(struck(&engine, Op::Write, "a", 20), [4, 7]);
    assert_eq!(struck(&engine, Op::Write, "b", 20), [4, 7]);
    assert_eq!(struck(&engine, Op::Read, "a", 20), [4, 7]);
    assert_eq!(struck(&engine, Op::Write, "a", 20), [] as [u64; 0]);
}

#[test]
fn time_opens_and_closes_but_does_not_count() {
    let engine = engine("- { when: { after: 10s, until: 20s, every: 2 }, do: { errno: EIO } }\n");
    let fired = |seconds| engine.decide(&request(Op::Read, "a"), &FACTS, Duration::from_secs(seconds)).fired;
    assert_eq!([0, 9, 10, 15, 19, 19, 20, 99].map(fired), [0, 0, 0, 1, 0, 1, 0, 0]);
}

#[test]
fn a_probability_is_what_it_says() {
    let engine = engine("- { name: a, when: { probability: 0.1 }, do: { errno: EIO } }\n");
    let count = struck(&engine, Op::Write, "a", 20_000).len();
    assert!((1900..2100).contains(&count), "{count}");
}

#[test]
fn the_draws_are_part_of_the_format() {
    // These are the ordinals that every version and machine must strike.
    let engine = engine("- { name: flaky, when: { probability: 0.05 }, do: { errno: EIO } }\n");
    assert_eq!(struck(&engine, Op::Write, "data/file", 100), [52, 57, 67, 71, 75]);
}

#[test]
fn amounts_fit_the_request() {
    let engine = engine("- { match: { ops: write }, do: { short: 0.5 } }\n");
    let effect = |len| {
        let request = Request { len, ..request(Op::Write, "a") };
        engine.decide(&request, &FACTS, Duration::ZERO).effect
    };
    assert_eq!(
        [0, 1, 2, 3, 4096].map(effect),
        [Effect::Done, Effect::Done, Effect::Short(1), Effect::Short(1), Effect::Short(2048)]
    );
}

#[test]
fn what_an_fsync_may_lose_is_volatile_from_the_first_write() {
    for action in ["fail_fsync: true", "lie_fsync: true"] {
        let engine = engine(&format!(
            "- {{ match: {{ ops: fsync, path: 'wal/*' }}, when: {{ skip: 5 }}, do: {{ {action} }} }}\n"
        ));
        let concern = engine.concern(b"wal/1");
        for op in [Op::Write, Op::Truncate, Op::Fallocate, Op::Fsync, Op::Fdatasync] {
            assert!(concern.contains(op), "{op:?}");
        }
        assert!(!concern.contains(Op::Read));
        assert!(engine.concern(b"data/1").is_empty());
        let write = engine.decide(&request(Op::Write, "wal/1"), &FACTS, Duration::ZERO);
        assert!(write.volatile && write.faults.is_empty() && write.fired == 0);
        assert!(!engine.decide(&request(Op::Write, "data/1"), &FACTS, Duration::ZERO).volatile);
    }
}

#[test]
fn concern_covers_create_and_fdatasync() {
    let engine = engine("- { match: { ops: [open, fsync] }, do: { errno: EIO } }\n");
    let ops: Vec<Op> = engine.concern(b"x").iter().collect();
    assert_eq!(ops, [Op::Open, Op::Create, Op::Fsync, Op::Fdatasync]);
    assert_eq!(engine.concern_any(), engine.concern(b"x"));
}

const MIXED: &str = "\
- { name: a, match: { ops: [read, write] }, when: { probability: 0.3 }, do: { errno: EIO, delay: { uniform: { max: 9ms } } } }
- { name: b, when: { every: 3 }, do: { delay: { normal: { mean: 5ms, stddev: 2ms } } } }
- { name: c, match: { ops: write }, when: { skip: 3, limit: 4 }, do: { corrupt: { bitflip: 3 } } }
- { name: d, match: { ops: [read, write] }, when: { probability: 0.5 }, do: { short: random } }
";

proptest! {
    /// However the operations of different files are mixed, each file sees the same.
    #[test]
    fn files_do_not_depend_on_each_other(order in prop::collection::vec((0_usize..4, any::<bool>()), 1..200)) {
        let mixed = engine(MIXED);
        let mut seen: HashMap<(usize, bool), Vec<Decision>> = HashMap::new();
        for (file, is_write) in order {
            let op = if is_write { Op::Write } else { Op::Read };
            let path = format!("file-{file}");
            let decision = mixed.decide(&request(op, &path), &FACTS, Duration::ZERO);
            seen.entry((file, is_write)).or_default().push(decision);
        }
        for ((file, is_write), decisions) in seen {
            let alone = engine(MIXED);
            let op = if is_write { Op::Write } else { Op::Read };
            let path = format!("file-{file}");
            for decision in decisions {
                let request = request(op, &path);
                let expected = alone.decide(&request, &FACTS, Duration::ZERO);
                prop_assert_eq!(&decision, &expected);
                prop_assert_eq!(&alone.again(&request, &FACTS, decision.ordinal, decision.fired), &expected);
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let together = Arc::new(engine(MIXED));
    let paths: Vec<String> = (0..8).map(|file| format!("file-{file}")).collect();
    let run = |engine: &Engine, path: &str| -> Vec<Decision> {
        (0..200).map(|_| engine.decide(&request(Op::Write, path), &FACTS, Duration::ZERO)).collect()
    };
    let parallel: Vec<Vec<Decision>> = std::thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|path| scope.spawn(|| run(&together, path))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let alone = engine(MIXED);
    let serial: Vec<Vec<Decision>> = paths.iter().map(|path| run(&alone, path)).collect();
    assert_eq!(parallel, serial);
    assert_ne!(parallel[0], parallel[1]);
}

#[test]
fn seeds_differ() {
    let text = |seed| {
        format!("version: 1\nseed: {seed}\nrules:\n- {{ when: {{ probability: 0.5 }}, do: {{ errno: EIO }} }}\n")
    };
    let run = |seed| struck(&Engine::arm(parse(&text(seed)).unwrap(), Arc::new(Memory::default())), Op::Read, "a", 100);
    assert_ne!(run(1), run(2));
    assert_eq!(run(1), run(1));
}

#[test]
fn the_older_rates_strike_one_in_so_many() {
    let set = parse(r#"{ "file_fail_rate": 10, "directory_fail_rate": 0, "delay_time": 2 }"#).unwrap();
    let engine = Engine::arm(set, Arc::new(Memory::default()));
    let mut errnos: HashMap<i32, u64> = HashMap::new();
    for _ in 0..30_000 {
        let decision = engine.decide(&request(Op::Flush, "a"), &FACTS, Duration::ZERO);
        assert!(decision.delay <= Duration::from_secs(2));
        if let Effect::Fail(errno) = decision.effect {
            *errnos.entry(errno).or_default() += 1;
        }
    }
    for errno in [libc::EIO, libc::ENOSPC, libc::ENOENT] {
        assert!((900..1100).contains(&errnos[&errno]), "{errnos:?}");
    }
    assert!(engine.concern_any().contains(Op::Create) && !engine.concern_any().contains(Op::Opendir));
}

/// A device takes its time for data on every path, for nothing else, and the same time again.
#[test]
fn a_profile_is_a_delay_that_no_rule_strikes() {
    let engine = Engine::arm(parse("version: 1\nprofile: hdd-7200\n").unwrap(), Arc::new(Memory::default()));
    assert!(engine.concern(b"any").contains(Op::Fsync) && !engine.concern_any().contains(Op::Open));
    let delays: Vec<_> =
        (0..50).map(|_| engine.decide(&request(Op::Read, "a"), &FACTS, Duration::ZERO).delay).collect();
    assert!(delays.iter().all(|delay| (230..=18_330).contains(&delay.as_micros())), "{delays:?}");
    let again = engine.again(&request(Op::Read, "a"), &FACTS, 7, 0);
    assert_eq!((again.delay, again.faults.len()), (delays[7], 0));
}
