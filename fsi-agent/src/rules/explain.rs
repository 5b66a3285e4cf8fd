//! Which rules would strike an operation, and why or why not. Uses the very tests that the engine uses; what a question leaves open
//! stays open in the answer.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::engine::overlaps;
use super::model::{Fake, Globs, Match, Rule, RuleSet};
use super::op::Op;
use crate::summary::format;

mod words;

/// An operation as far as it is known.
#[derive(Clone, Debug)]
pub struct Question {
    pub op: Op,
    /// From the mount's root, without a leading slash.
    pub path: Vec<u8>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub process: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub offset: Option<u64>,
    pub len: Option<u64>,
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    Yes,
    No,
    /// It depends on something that the question does not say.
    Open,
}

impl Held {
    fn from_bool(held: bool) -> Self {
        if held { Self::Yes } else { Self::No }
    }

    /// Of what is not said it is not known.
    fn of<T>(known: Option<T>, test: impl FnOnce(T) -> bool) -> Self {
        known.map_or(Self::Open, |value| Self::from_bool(test(value)))
    }
}

/// One key of `match`, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub key: &'static str,
    pub held: Held,
    pub sentence: String,
}

/// What one rule has to do with the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    pub rule: String,
    pub matches: Held,
    pub reasons: Vec<Reason>,
    /// Which of the operations it matches it strikes.
    pub when: String,
    /// What it does to those.
    pub does: String,
}

/// Every rule of the set, in its order.
#[must_use]
pub fn explain(set: &RuleSet, question: &Question) -> Vec<Explained> {
    set.rules.iter().map(|rule| one(rule, question)).collect()
}

/// What a set consists of, in a few words.
#[must_use]
pub fn summary(set: &RuleSet) -> String {
    let RuleSet { version: _, seed, rules, throttle, capacity, fake, profile } = set;
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut parts = vec![count(rules.len(), "rule"), format!("seed {seed}")];
    if !throttle.is_empty() {
        parts.push(count(throttle.len(), "throttle"));
    }
    if let Some(capacity) = capacity {
        parts.push(format!("a capacity of {}", format::bytes(capacity.bytes)));
    }
    match fake {
        Fake::None => {}
        Fake::Null => parts.push("null data".to_owned()),
        Fake::Memory => parts.push("data in memory".to_owned()),
        Fake::Pattern => parts.push("pattern data".to_owned()),
    }
    if let Some(profile) = profile {
        parts.push(format!("profile {}", profile.name));
    }
    parts.join(", ")
}

fn one(rule: &Rule, question: &Question) -> Explained {
    let reasons = reasons(rule, question);
    let has = |held| reasons.iter().any(|reason| reason.held == held);
    let matches = if has(Held::No) {
        Held::No
    } else if has(Held::Open) {
        Held::Open
    } else {
        Held::Yes
    };
    Explained {
        rule: rule.name.to_string(),
        matches,
        reasons,
        when: words::when(&rule.when),
        does: words::action(&rule.action),
    }
}

fn reasons(rule: &Rule, question: &Question) -> Vec<Reason> {
    let Match { ops, path, min_size, max_size, uid, gid, process, offset } = &rule.matching;
    let mut reasons = Vec::new();
    let mut add = |key, held, sentence| reasons.push(Reason { key, held, sentence });
    let is_in = ops.contains(question.op);
    let sentence = match (is_in, ops.iter().count() == Op::ALL.len()) {
        (true, true) => "every operation matches".to_owned(),
        (true, false) => format!("`{}` is one of its operations", question.op.name()),
        (false, _) => format!("`{}` is none of its operations: {}", question.op.name(), words::ops(*ops)),
    };
    add("ops", Held::from_bool(is_in), sentence);
    if let Some(globs) = path {
        let (held, sentence) = glob(globs, Some(&question.path), "the path");
        add("path", held, sentence);
    }
    for (key, ids, known) in [("uid", uid, question.uid), ("gid", gid, question.gid)] {
        let Some(ids) = ids else { continue };
        let held = Held::of(known, |id| ids.contains(&id));
        let wanted: Vec<String> = ids.iter().map(u32::to_string).collect();
        add(key, held, words::compared(key, held, known, &wanted.join(" or ")));
    }
    if let Some(globs) = process {
        let (held, sentence) = glob(globs, question.process.as_deref(), "the process");
        add("process", held, sentence);
    }
    if let Some(min) = min_size {
        let held = Held::of(question.size, |size| size >= *min);
        add(
            "min_size",
            held,
            words::compared("the file's size", held, question.size, &format!("at least {min} bytes")),
        );
    }
    if let Some(max) = max_size {
        let held = Held::of(question.size, |size| size <= *max);
        add("max_size", held, words::compared("the file's size", held, question.size, &format!("at most {max} bytes")));
    }
    if let Some(range) = offset {
        let (held, sentence) = in_range(range, question);
        add("offset", held, sentence);
    }
    if !rule.has_room(0) {
        let held = Held::of(question.len, |len| rule.has_room(len));
        let least = if rule.has_room(1) { "at least 1 byte" } else { "at least 2 bytes" };
        add("do", held, words::compared("the length", held, question.len, least));
    }
    reasons
}

fn glob(globs: &Globs, known: Option<&[u8]>, what: &str) -> (Held, String) {
    let held = Held::of(known, |bytes| globs.matches(bytes));
    let wanted: Vec<String> = globs.texts.iter().map(|text| format!("`{text}`")).collect();
    let shown = known.map(|bytes| format!("`{}`", String::from_utf8_lossy(bytes)));
    let sentence = match held {
        Held::Yes => format!("{what} {} matches {}", shown.unwrap_or_default(), wanted.join(" or ")),
        Held::No => format!("{what} {} does not match {}", shown.unwrap_or_default(), wanted.join(" or ")),
        Held::Open => format!("{what} is not given; it has to match {}", wanted.join(" or ")),
    };
    (held, sentence)
}

fn in_range(range: &Range<u64>, question: &Question) -> (Held, String) {
    let wanted = words::range(range);
    match (question.offset, question.len) {
        (Some(offset), len) if range.contains(&offset) || len.is_some() => {
            let held = Held::from_bool(overlaps(range, offset, len.unwrap_or(0)));
            let verb = if held == Held::Yes { "has a byte" } else { "has no byte" };
            let length = len.map(|len| format!(" of {len} bytes")).unwrap_or_default();
            (held, format!("the data at {offset}{length} {verb} in {wanted}"))
        }
        (Some(offset), _) if offset >= range.end => (Held::No, format!("the data begins at {offset}, after {wanted}")),
        (Some(_), _) => (Held::Open, format!("the length is not given; some byte has to be in {wanted}")),
        (None, _) => (Held::Open, format!("the offset is not given; some byte has to be in {wanted}")),
    }
}

/// A time, as people write it.
pub(super) fn duration(duration: Duration) -> String {
    format!("{duration:?}")
}

#[cfg(test)]
mod tests;
