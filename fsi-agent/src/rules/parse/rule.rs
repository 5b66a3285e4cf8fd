//! One rule: its name, `match`, `when` and `do`, and whether they fit together.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::Position;
use super::effect;
use crate::rules::model::{Globs, Injection, Match, Probability, Rule, When};
use crate::rules::op::{Op, OpSet};
use crate::selection::glob::GlobError;
use crate::selection::quantity;
use crate::yaml::{Fields, Node, Reader, Value, meant};

const MATCH_KEYS: &[&str] = &["ops", "path", "min_size", "max_size", "uid", "gid", "process", "offset"];
const WHEN_KEYS: &[&str] = &["probability", "skip", "every", "limit", "after", "until"];
const MOST_NAME_BYTES: usize = 64;

/// The rule, and where its name stands.
pub(super) fn read(reader: &mut Reader, node: &Node, index: usize) -> Option<(Rule, Position)> {
    let before = reader.problems.len();
    let fields = Fields::of(reader, node, "a rule", &["name", "match", "when", "do"])?;
    let (name, name_at) = match fields.get("name") {
        Some(node) => (name(reader, node), node.at),
        None => (Some(format!("rule-{}", index + 1)), node.at),
    };
    let mut matching = Match::default();
    let mut ops = None;
    let mut offset_at = None;
    if let Some(node) = fields.get("match").filter(|node| !matches!(node.value, Value::Null)) {
        (matching, ops, offset_at) = read_match(reader, node)?;
    }
    let when = fields.get("when").filter(|node| !matches!(node.value, Value::Null));
    let when = when.map_or_else(|| Some(When::default()), |node| read_when(reader, node));
    let action = fields.need(reader, "this rule", "do", "{ errno: EIO }").and_then(|node| effect::read(reader, node));
    let (action, key) = action?;
    let mut possible = OpSet::all();
    if let (Some(effect), Some(key)) = (&action.effect, key) {
        restrict(reader, &mut possible, strikes(effect), ops.as_deref(), &format!("`{}`", key.text));
    }
    if offset_at.is_some() {
        restrict(reader, &mut possible, OpSet::WITH_DATA, ops.as_deref(), "`offset`");
    }
    let named = ops.map_or(possible, |ops| covered(&ops));
    matching.ops = Op::ALL.iter().copied().filter(|op| named.contains(*op) && possible.contains(*op)).collect();
    let rule = Rule { name: Arc::from(name?), matching, when: when?, action };
    (reader.problems.len() == before).then_some((rule, name_at))
}

fn name(reader: &mut Reader, node: &Node) -> Option<String> {
    const RIGHT: &str = "1 to 64 letters, digits, `-`, `_` or `.`, for example `flaky-wal`";
    let text = reader.text(node, "name", RIGHT)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if text.is_empty() || text.len() > MOST_NAME_BYTES || !plain {
        reader.wrong(node.at, format!("name is `{text}`; write {RIGHT}"));
        return None;
    }
    Some(text.to_owned())
}

/// An operation as it was named, and where.
type NamedOp = (Op, Position);

fn read_match(reader: &mut Reader, node: &Node) -> Option<(Match, Option<Vec<NamedOp>>, Option<Position>)> {
    let fields = Fields::of(reader, node, "match", MATCH_KEYS)?;
    let mut matching = Match::default();
    let ops = fields.get("ops").map(|node| operations(reader, node));
    matching.path = fields.get("path").and_then(|node| globs(reader, node, "path", Globs::paths));
    matching.process = fields.get("process").and_then(|node| globs(reader, node, "process", Globs::names));
    matching.min_size = fields.get("min_size").and_then(|node| reader.size(node, "min_size"));
    matching.max_size = fields.get("max_size").and_then(|node| reader.size(node, "max_size"));
    if let (Some(min), Some(max), Some(node)) = (matching.min_size, matching.max_size, fields.get("max_size"))
        && max < min
    {
        let sentence = "max_size is less than min_size, so no file has such a size; write at least min_size";
        reader.wrong(node.at, sentence.into());
    }
    matching.uid = fields.get("uid").map(|node| ids(reader, node, "uid"));
    matching.gid = fields.get("gid").map(|node| ids(reader, node, "gid"));
    let offset = fields.get("offset");
    matching.offset = offset.and_then(|node| range(reader, node));
    Some((matching, ops, offset.map(|node| node.at)))
}

fn operations(reader: &mut Reader, node: &Node) -> Vec<NamedOp> {
    let names: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
    let mut ops = Vec::new();
    for item in reader.one_or_more(node, "ops") {
        let Some(name) = reader.text(item, "an operation", "its name, for example `write`") else { continue };
        match Op::from_name(name) {
            Some(op) => ops.push((op, item.at)),
            None => {
                let meant = meant(name, &names);
                reader.wrong(item.at, format!("`{name}` is no operation{meant}; write one of {}", names.join(", ")));
            }
        }
    }
    ops
}

fn globs(
    reader: &mut Reader,
    node: &Node,
    what: &str,
    compile: fn(Vec<String>) -> Result<Globs, GlobError>,
) -> Option<Globs> {
    let mut texts = Vec::new();
    for item in reader.one_or_more(node, what) {
        let text = reader.text(item, what, "a glob, for example `pg_wal/**`")?;
        if let Err(error) = compile(vec![text.to_owned()]) {
            reader.wrong(item.at, format!("{what}: {}", glob_sentence(text, &error)));
            return None;
        }
        texts.push(text.to_owned());
    }
    if texts.is_empty() {
        return None;
    }
    compile(texts).map_err(|error| reader.wrong(node.at, format!("{what}: {error}"))).ok()
}

/// A path glob is compiled with a `/` before it, which nobody wrote.
fn glob_sentence(text: &str, error: &GlobError) -> String {
    match error {
        GlobError::Syntax { glob, column, problem } if glob != text => {
            GlobError::Syntax { glob: text.to_owned(), column: (*column).max(2) - 1, problem: *problem }.to_string()
        }
        GlobError::TooBig { .. } => GlobError::TooBig { glob: text.to_owned() }.to_string(),
        GlobError::Syntax { .. } | GlobError::NameTooLong { .. } => error.to_string(),
    }
}

fn ids(reader: &mut Reader, node: &Node, what: &str) -> Vec<u32> {
    let items = reader.one_or_more(node, what);
    let ids = items.iter().filter_map(|item| reader.number(item, what, 0..=u64::from(u32::MAX)));
    ids.filter_map(|id| u32::try_from(id).ok()).collect()
}

fn range(reader: &mut Reader, node: &Node) -> Option<Range<u64>> {
    const RIGHT: &str = "where it begins and ends, for example `0..1MiB`, `4KiB..` or `..1MiB`";
    let text = reader.text(node, "offset", RIGHT)?;
    let Some((start, end)) = text.split_once("..") else {
        reader.wrong(node.at, format!("offset is `{text}`; write {RIGHT}"));
        return None;
    };
    let mut bound = |text: &str, open| {
        let text = text.trim();
        if text.is_empty() { Some(open) } else { reader.quantity(node.at, "offset", quantity::size(text)) }
    };
    let (start, end) = (bound(start, 0)?, bound(end, u64::MAX)?);
    if start >= end {
        reader.wrong(node.at, format!("offset `{text}` holds no byte; write an end that is more than the beginning"));
        return None;
    }
    Some(start..end)
}

fn read_when(reader: &mut Reader, node: &Node) -> Option<When> {
    let fields = Fields::of(reader, node, "when", WHEN_KEYS)?;
    let mut when = When::default();
    if let Some(node) = fields.get("probability") {
        let right = "a number above 0 and up to 1, for example `0.001`";
        let holds = |chance| 0.0 < chance && chance <= 1.0;
        when.probability = Probability { to: reader.real(node, "probability", right, holds)?, ..Probability::ALWAYS };
    }
    if let Some(node) = fields.get("skip") {
        when.skip = reader.number(node, "skip", 0..=u64::MAX)?;
    }
    if let Some(node) = fields.get("every") {
        when.every = reader.number(node, "every", 1..=u64::MAX)?;
    }
    if let Some(node) = fields.get("limit") {
        when.limit = Some(reader.number(node, "limit", 1..=u64::MAX)?);
    }
    if let Some(node) = fields.get("after") {
        when.after = reader.duration(node, "after")?;
    }
    if let Some(node) = fields.get("until") {
        let until: Duration = reader.duration(node, "until")?;
        if until <= when.after {
            let sentence =
                "until is not later than after, so this never strikes; write a longer time since the rules were set";
            reader.wrong(node.at, sentence.to_owned());
        }
        when.until = Some(until);
    }
    Some(when)
}

/// The operations that an effect can be done to.
fn strikes(effect: &Injection) -> OpSet {
    let set = |ops: &[Op]| ops.iter().copied().collect();
    match effect {
        Injection::Errno(_) | Injection::Abort => OpSet::all(),
        Injection::Short(_) | Injection::Corrupt(_) => set(&[Op::Read, Op::Write]),
        Injection::Torn(_) => set(&[Op::Write]),
        Injection::LoseUntilFsync => OpSet::CHANGES_DATA,
        Injection::FailFsync(_) | Injection::LieFsync => set(&[Op::Fsync, Op::Fdatasync]),
    }
}

/// Narrows what is possible; an operation that was named and is not possible is a problem.
fn restrict(reader: &mut Reader, possible: &mut OpSet, to: OpSet, ops: Option<&[NamedOp]>, what: &str) {
    for (op, at) in ops.unwrap_or_default() {
        if !to.contains(*op) {
            let names: Vec<&str> = to.iter().map(Op::name).collect();
            let sentence =
                format!("{what} means nothing for `{}`; write one or more of {}", op.name(), names.join(", "));
            reader.wrong(*at, sentence);
        }
    }
    *possible = Op::ALL.iter().copied().filter(|op| possible.contains(*op) && to.contains(*op)).collect();
}

/// With what the named ones cover.
fn covered(ops: &[NamedOp]) -> OpSet {
    Op::ALL.iter().copied().filter(|op| ops.iter().any(|(named, _)| named.covers(*op))).collect()
}
