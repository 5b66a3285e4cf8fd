//! The text of a set of rules to a [`RuleSet`], or to everything that is wrong with it, each with line and column.
//!
//! Nothing unknown is passed over: a key, an operation, an errno or a unit that is not known is a problem, and a text with a
//! problem gives no rules at all.

mod effect;
mod fields;
mod legacy;
mod rule;
mod tree;
mod volume;

use std::fmt;

use super::model::{Fake, MAX_RULES, RuleSet};
use fields::{Fields, Reader};
use tree::Value;

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {sentence}", at.line, at.column)]
pub struct Problem {
    pub at: Position,
    pub sentence: String,
}

/// Everything that is wrong, in the order of the text; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The keys of the whole text.
const KEYS: &[&str] = &["version", "seed", "rules", "throttle", "capacity", "fake", "profile"];

/// Reads the YAML of docs/RULES.md, or the JSON of the older driver.
///
/// # Errors
/// Something is wrong; nothing is taken of a text in which anything is.
pub fn parse(text: &str) -> Result<RuleSet, Problems> {
    let root = tree::parse(text).map_err(|problem| Problems(vec![problem]))?;
    let mut reader = Reader::default();
    let set = match &root {
        None => {
            let sentence = "the text is empty; write at least `version: 1`".to_owned();
            reader.problems.push(Problem { at: Position::START, sentence });
            None
        }
        Some(node) if legacy::is(node) => legacy::read(&mut reader, node),
        Some(node) => whole(&mut reader, node),
    };
    let mut problems = reader.problems;
    match set {
        Some(set) if problems.is_empty() => Ok(set),
        Some(_) | None => {
            problems.sort_by_key(|problem| problem.at);
            Err(Problems(problems))
        }
    }
}

fn whole(reader: &mut Reader, node: &tree::Node) -> Option<RuleSet> {
    let fields = Fields::of(reader, node, "a set of rules", KEYS)?;
    let version = version(reader, &fields)?;
    let mut set = RuleSet { version, ..RuleSet::default() };
    if let Some(node) = fields.get("seed") {
        set.seed = reader.number(node, "seed", 0..=u64::MAX).unwrap_or_default();
    }
    if let Some(node) = fields.get("rules") {
        set.rules = rules(reader, node);
    }
    if let Some(node) = fields.get("throttle") {
        set.throttle =
            reader.items(node, "throttle").iter().filter_map(|item| volume::throttle(reader, item)).collect();
    }
    set.capacity = fields.get("capacity").and_then(|node| volume::capacity(reader, node));
    set.fake = fields.get("fake").and_then(|node| volume::fake(reader, node)).unwrap_or_default();
    set.profile = fields.get("profile").and_then(|node| volume::profile(reader, node));
    if let Some(node) = fields.get("fake").filter(|_| set.fake != Fake::None && set.loses_unsynced()) {
        let sentence = "a fake has nothing to make durable, so `lose_until_fsync`, `fail_fsync` and `lie_fsync` mean nothing \
                        beside it; take the rules or the fake out";
        reader.wrong(node.at, sentence.to_owned());
    }
    Some(set)
}

fn version(reader: &mut Reader, fields: &Fields<'_>) -> Option<u64> {
    let Some(node) = fields.get("version") else {
        if !fields.is_misspelt("version") {
            reader.wrong(fields.at, "`version` is missing; write `version: 1`".to_owned());
        }
        return None;
    };
    match &node.value {
        Value::Scalar(text) if text == "1" => Some(1),
        other => {
            let sentence = format!("version {} is not known; write `version: 1`", other.kind());
            reader.wrong(node.at, sentence);
            None
        }
    }
}

fn rules(reader: &mut Reader, node: &tree::Node) -> Vec<super::model::Rule> {
    let items = reader.items(node, "rules");
    if let Some(first_too_many) = items.get(MAX_RULES) {
        let sentence = format!("there are {} rules; write at most {MAX_RULES}", items.len());
        reader.wrong(first_too_many.at, sentence);
    }
    let mut rules: Vec<super::model::Rule> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some((rule, name_at)) = rule::read(reader, item, index) else { continue };
        if rules.iter().any(|other| other.name == rule.name) {
            let sentence = format!(
                "a rule before this one is named `{}` too; names are what draws, counts and the fault log tell \
                                    rules apart by, so write another",
                rule.name
            );
            reader.wrong(name_at, sentence);
        }
        rules.push(rule);
    }
    rules
}

#[cfg(test)]
mod tests;
