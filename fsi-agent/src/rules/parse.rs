//! The text of a set of rules to a [`RuleSet`], or to everything that is wrong with it, each with line and column.
//!
//! Nothing unknown is passed over: a key, an operation, an errno or a unit that is not known is a problem, and a text with a
//! problem gives no rules at all.

mod effect;
mod legacy;
mod rule;
mod volume;

use super::model::{Fake, MAX_RULES, RuleSet};
use crate::yaml::{self, Fields, Node, Reader};

pub use crate::yaml::{Position, Problem, Problems};

/// The keys of the whole text.
const KEYS: &[&str] = &["version", "seed", "rules", "throttle", "capacity", "fake", "profile"];

/// Reads the YAML of docs/RULES.md, or the JSON of the older driver.
///
/// # Errors
/// Something is wrong; nothing is taken of a text in which anything is.
pub fn parse(text: &str) -> Result<RuleSet, Problems> {
    yaml::read(text, |reader, node| if legacy::is(node) { legacy::read(reader, node) } else { whole(reader, node) })
}

fn whole(reader: &mut Reader, node: &Node) -> Option<RuleSet> {
    let fields = Fields::of(reader, node, "a set of rules", KEYS)?;
    let version = fields.version(reader)?;
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

fn rules(reader: &mut Reader, node: &Node) -> Vec<super::model::Rule> {
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
