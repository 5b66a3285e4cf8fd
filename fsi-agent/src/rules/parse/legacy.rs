//! The JSON of the older driver, turned into the rules it stands for. It is known by its keys, at the top or under `faultyIO`.
//!
//! A rate N means one in N, for each kind of fault on its own; 0 means never. `local_log_path` is where the older driver wrote its
//! log; ours has a place of its own, so it is taken and has no effect. A `capacity`, which the older driver had not, may stand among the keys or
//! beside `faultyIO`.

use std::sync::Arc;
use std::time::Duration;

use super::effect::LONGEST_DELAY;
use super::volume;
use crate::rules::model::{Action, Delay, Injection, Match, Portion, Probability, Rule, RuleSet, When};
use crate::rules::op::{Op, OpSet};
use crate::yaml::{Fields, Node, Reader, Value};

const KEYS: &[&str] =
    &["local_log_path", "file_fail_rate", "directory_fail_rate", "use_seednum", "seed", "delay_time", "capacity"];
/// Keys that only the older format has.
const MARKS: &[&str] =
    &["local_log_path", "file_fail_rate", "directory_fail_rate", "use_seednum", "delay_time", "faultyIO"];
/// Keys of the rules that would have no effect beside `faultyIO`.
const OTHERS: &[&str] = &["rules", "throttle", "fake", "profile"];
const DEFAULT_DELAY: Duration = Duration::from_secs(3);
const FILE_OPS: [Op; 4] = [Op::Read, Op::Write, Op::Flush, Op::Open];
const DIRECTORY_OPS: [Op; 2] = [Op::Opendir, Op::Readdir];
const ERRNOS: [(&str, i32); 3] = [("eio", libc::EIO), ("enospc", libc::ENOSPC), ("enoent", libc::ENOENT)];

pub(super) fn is(node: &Node) -> bool {
    match &node.value {
        Value::Map(map) => map.iter().any(|(key, _)| MARKS.contains(&key.text.as_str())),
        Value::Null | Value::Scalar(_) | Value::List(_) => false,
    }
}

pub(super) fn read(reader: &mut Reader, node: &Node) -> Option<RuleSet> {
    let Value::Map(map) = &node.value else { return None };
    let of_top = |name: &str| map.iter().find(|(key, _)| key.text == name).map(|(_, node)| node);
    let (node, capacity) = match of_top("faultyIO") {
        // What else stands beside it configures other parts of the older driver.
        Some(section) => {
            for (key, _) in map.iter().filter(|(key, _)| OTHERS.contains(&key.text.as_str())) {
                let sentence = format!("`{}` has no effect beside `faultyIO`; write one kind of rules", key.text);
                reader.wrong(key.at, sentence);
            }
            (section, of_top("capacity"))
        }
        None => (node, None),
    };
    let fields = Fields::of(reader, node, "the older configuration", KEYS)?;
    if let Some(node) = fields.get("local_log_path") {
        reader.text(node, "local_log_path", "a path")?;
    }
    let mut set = RuleSet { version: 1, ..RuleSet::default() };
    set.capacity = fields.get("capacity").or(capacity).and_then(|node| volume::capacity(reader, node));
    if let Some(node) = fields.get("seed") {
        set.seed = reader.number(node, "seed", 0..=u64::MAX)?;
    }
    if let Some(node) = fields.get("use_seednum") {
        let words = [("false", false), ("true", true), ("0", false), ("1", true)];
        let given = reader.word(node, "use_seednum", &words)?;
        set.seed = if given { set.seed } else { 0 };
    }
    let delay = match fields.get("delay_time") {
        Some(node) => {
            let right = "seconds from 0 to 3600, for example `3`";
            let longest = |seconds| (0.0..=LONGEST_DELAY.as_secs_f64()).contains(&seconds);
            Duration::from_secs_f64(reader.real(node, "delay_time", right, longest)?)
        }
        None => DEFAULT_DELAY,
    };
    for (key, kind, ops) in
        [("file_fail_rate", "file", &FILE_OPS[..]), ("directory_fail_rate", "directory", &DIRECTORY_OPS)]
    {
        let Some(node) = fields.get(key) else { continue };
        let rate = reader.number(node, key, 0..=u64::from(u32::MAX))?;
        if rate > 0 {
            set.rules.extend(rules(kind, ops, rate, delay));
        }
    }
    Some(set)
}

/// One in `rate` fails, with each errno as often as the others; one in `rate` is late; one in `rate` is cut short.
#[expect(clippy::cast_precision_loss, reason = "a rate has at most 32 bits")]
fn rules(kind: &str, ops: &[Op], rate: u64, delay: Duration) -> Vec<Rule> {
    let chance = 1.0 / rate as f64;
    let ops: OpSet = Op::ALL.iter().copied().filter(|op| ops.iter().any(|named| named.covers(*op))).collect();
    let rule = |name: &str, ops, probability, action| Rule {
        name: Arc::from(format!("{kind}-{name}")),
        matching: Match { ops, ..Match::default() },
        when: When { probability, ..When::default() },
        action,
    };
    let mut rules = Vec::new();
    let shared: Arc<str> = Arc::from(format!("{kind}-errno"));
    let share = chance / ERRNOS.len() as f64;
    for (index, (name, errno)) in ERRNOS.into_iter().enumerate() {
        let from = share * index as f64;
        let probability = Probability { from, to: from + share, shared: Some(Arc::clone(&shared)) };
        let action = Action { effect: Some(Injection::Errno(errno)), delay: None };
        rules.push(rule(name, ops, probability, action));
    }
    let alone = Probability { to: chance, ..Probability::ALWAYS };
    let late = Action { delay: Some(Delay::Uniform { min: Duration::ZERO, max: delay }), effect: None };
    rules.push(rule("delay", ops, alone.clone(), late));
    if ops.contains(Op::Read) {
        let transfers = OpSet::EMPTY.with(Op::Read).with(Op::Write);
        let short = Action { effect: Some(Injection::Short(Portion::Fraction(0.5))), delay: None };
        rules.push(rule("short", transfers, alone, short));
    }
    rules
}
