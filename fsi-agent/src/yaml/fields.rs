//! Nodes of the tree to values: every way in which one can be wrong becomes a problem that says what would be right.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::tree::{Key, Node, Value, listed, nearest};
use super::{Position, Problem};
use crate::rules::errno;
use crate::selection::quantity::{self, QuantityError};

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub problems: Vec<Problem>,
}

impl Reader {
    pub(crate) fn wrong(&mut self, at: Position, sentence: String) {
        self.problems.push(Problem { at, sentence });
    }

    /// The text of a scalar.
    pub(crate) fn text<'a>(&mut self, node: &'a Node, what: &str, right: &str) -> Option<&'a str> {
        if let Value::Scalar(text) = &node.value {
            return Some(text);
        }
        self.wrong(node.at, format!("{what} is {}; write {right}", node.value.kind()));
        None
    }

    /// The items of a list.
    pub(crate) fn items<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            Value::Scalar(_) | Value::Map(_) => {
                let kind = node.value.kind();
                self.wrong(node.at, format!("{what} is {kind}; write a list, each item after a `-`"));
                &[]
            }
        }
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(crate) fn one_or_more<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Node] {
        match &node.value {
            Value::List(items) if !items.is_empty() => items,
            Value::Scalar(_) => std::slice::from_ref(node),
            Value::List(_) | Value::Null | Value::Map(_) => {
                let kind =
                    if matches!(node.value, Value::List(_)) { "an empty list".to_owned() } else { node.value.kind() };
                self.wrong(node.at, format!("{what} is {kind}; write one value, or a list of some"));
                &[]
            }
        }
    }

    pub(crate) fn number(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let right = match (*range.start(), *range.end()) {
            (start, u64::MAX) => format!("a whole number from {start}"),
            (start, end) => format!("a whole number from {start} to {end}"),
        };
        let text = self.text(node, what, &right)?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && range.contains(&number) => Some(number),
            Ok(_) | Err(_) => {
                self.wrong(node.at, format!("{what} is `{text}`; write {right}"));
                None
            }
        }
    }

    /// A number with a fraction, of which `holds` says whether it can be.
    pub(crate) fn real(&mut self, node: &Node, what: &str, right: &str, holds: fn(f64) -> bool) -> Option<f64> {
        let text = self.text(node, what, right)?;
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && holds(number) => Some(number),
            Ok(_) | Err(_) => {
                self.wrong(node.at, format!("{what} is `{text}`; write {right}"));
                None
            }
        }
    }

    pub(crate) fn size(&mut self, node: &Node, what: &str) -> Option<u64> {
        let text = self.text(node, what, "a size, for example `64KiB`")?;
        self.quantity(node.at, what, quantity::size(text))
    }

    pub(crate) fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let text = self.text(node, what, "a duration, for example `5ms`")?;
        let bare_zero = (text == "0").then_some(Duration::ZERO);
        bare_zero.or_else(|| self.quantity(node.at, what, quantity::duration(text)))
    }

    pub(crate) fn quantity<T>(&mut self, at: Position, what: &str, result: Result<T, QuantityError>) -> Option<T> {
        result.map_err(|error| self.wrong(at, format!("{what}: {error}"))).ok()
    }

    pub(crate) fn errno(&mut self, node: &Node, what: &str) -> Option<i32> {
        let text = self.text(node, what, "the name of an errno, for example `EIO`")?;
        let number = errno::number(text);
        if number.is_none() {
            let common = errno::common();
            let meant = meant(text, common);
            let sentence = format!(
                "{what}: `{text}` is no errno{meant}; write one of {}, or another of errno(3)",
                common.join(", ")
            );
            self.wrong(node.at, sentence);
        }
        number
    }

    /// One of these words.
    pub(crate) fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let right = listed(&names);
        let text = if matches!(node.value, Value::Null) { "none" } else { self.text(node, what, &right)? };
        let found = words.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let meant = meant(text, &names);
            self.wrong(node.at, format!("{what} is `{text}`{meant}; write {right}"));
        }
        found.map(|(_, value)| *value)
    }

    /// `true`, or nothing behind the colon.
    pub(crate) fn flag(&mut self, node: &Node, what: &str) -> Option<()> {
        let holds = match &node.value {
            Value::Null => true,
            Value::Scalar(text) => text == "true",
            Value::List(_) | Value::Map(_) => false,
        };
        if !holds {
            self.wrong(node.at, format!("{what} is {}; write `{what}: true`, or leave it out", node.value.kind()));
        }
        holds.then_some(())
    }
}

/// `, did you mean ..?` when a word is near.
pub(crate) fn meant(wrong: &str, allowed: &[&str]) -> String {
    nearest(wrong, allowed).map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default()
}

/// A map whose keys are all known.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub at: Position,
    entries: Vec<(&'a Key, &'a Node)>,
    /// What unknown keys were probably meant to be.
    meant: Vec<String>,
}

impl<'a> Fields<'a> {
    /// A key that is not in `allowed`, or comes twice, is a problem; the others are still read, for more problems.
    pub(crate) fn of(reader: &mut Reader, node: &'a Node, what: &str, allowed: &[&str]) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            let sentence = format!("{what} is {}; write a map with {}", node.value.kind(), listed(allowed));
            reader.wrong(node.at, sentence);
            return None;
        };
        let mut fields = Self { at: node.at, entries: Vec::new(), meant: Vec::new() };
        for (key, value) in map {
            if !allowed.contains(&key.text.as_str()) {
                let meant = meant(&key.text, allowed);
                let sentence = format!("`{}` is no key of {what}{meant}; write {}", key.text, listed(allowed));
                reader.wrong(key.at, sentence);
                fields.meant.extend(nearest(&key.text, allowed).map(str::to_owned));
            } else if fields.get(&key.text).is_some() {
                reader.wrong(key.at, format!("`{}` comes twice in {what}; write it once", key.text));
            } else {
                fields.entries.push((key, value));
            }
        }
        Some(fields)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| *node)
    }

    /// Whether a key is missing because it was complained of already, as one that is unknown.
    pub(crate) fn is_misspelt(&self, name: &str) -> bool {
        self.meant.iter().any(|meant| meant == name)
    }

    /// A key without which the rest means nothing.
    pub(crate) fn need(&self, reader: &mut Reader, what: &str, name: &str, example: &str) -> Option<&'a Node> {
        let found = self.get(name);
        if found.is_none() && !self.is_misspelt(name) {
            reader.wrong(self.at, format!("{what} has no `{name}`; write `{name}: {example}`"));
        }
        found
    }

    /// The keys in the order they were written.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a Key, &'a Node)> {
        self.entries.iter().copied()
    }

    /// `version: 1`, which every text must have.
    pub(crate) fn version(&self, reader: &mut Reader) -> Option<u64> {
        let Some(node) = self.get("version") else {
            if !self.is_misspelt("version") {
                reader.wrong(self.at, "`version` is missing; write `version: 1`".to_owned());
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
}
