//! `do:` of a rule: a delay, an effect, or both.

use std::time::Duration;

use crate::rules::decision::Corrupt;
use crate::rules::model::{Action, Delay, Injection, Portion};
use crate::selection::quantity;
use crate::yaml::{Fields, Key, Node, Reader, Value, listed, meant};

const KEYS: &[&str] =
    &["errno", "delay", "short", "corrupt", "torn", "lose_until_fsync", "fail_fsync", "lie_fsync", "abort"];
const DELAYS: &[&str] = &["uniform", "normal", "pareto", "ramp"];
const CORRUPTIONS: &[&str] = &["bitflip", "zero", "random", "pattern"];
/// The draws of a bit flip are made one by one.
/// A longer delay is a hang, which `abort` says better.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(3600);
const MOST_BITS: u64 = 4096;
const MOST_PATTERN_BYTES: usize = 4096;

/// What `do` says, and the key that names the effect.
pub(super) fn read<'a>(reader: &mut Reader, node: &'a Node) -> Option<(Action, Option<&'a Key>)> {
    let fields = Fields::of(reader, node, "do", KEYS)?;
    let mut action = Action::default();
    let mut effect_key: Option<&Key> = None;
    let mut complete = true;
    for (key, node) in fields.keys() {
        if key.text == "delay" {
            action.delay = delay(reader, node);
            complete &= action.delay.is_some();
            continue;
        }
        if let Some(first) = effect_key {
            let sentence =
                format!("`{}` and `{}` cannot both be done to one operation; make another rule", first.text, key.text);
            reader.wrong(key.at, sentence);
            complete = false;
            continue;
        }
        effect_key = Some(key);
        action.effect = effect(reader, &key.text, node);
        complete &= action.effect.is_some();
    }
    if fields.keys().next().is_none() {
        // A key that is none was complained of already.
        if matches!(&node.value, Value::Map(map) if map.is_empty()) {
            reader.wrong(node.at, format!("do says nothing to do; write one or more of {}", listed(KEYS)));
        }
        return None;
    }
    complete.then_some((action, effect_key))
}

fn effect(reader: &mut Reader, name: &str, node: &Node) -> Option<Injection> {
    match name {
        "errno" => reader.errno(node, "errno").map(Injection::Errno),
        "short" => portion(reader, node, "short", |fraction| 0.0 < fraction && fraction < 1.0).map(Injection::Short),
        "torn" => portion(reader, node, "torn", |fraction| (0.0..1.0).contains(&fraction)).map(Injection::Torn),
        "corrupt" => corrupt(reader, node).map(Injection::Corrupt),
        "lose_until_fsync" => reader.flag(node, name).map(|()| Injection::LoseUntilFsync),
        "fail_fsync" => fail_fsync(reader, node),
        "lie_fsync" => reader.flag(node, name).map(|()| Injection::LieFsync),
        "abort" => reader.flag(node, name).map(|()| Injection::Abort),
        _ => None,
    }
}

fn fail_fsync(reader: &mut Reader, node: &Node) -> Option<Injection> {
    let is_plain = match &node.value {
        Value::Null => true,
        Value::Scalar(text) => text == "true",
        Value::List(_) | Value::Map(_) => false,
    };
    if is_plain {
        Some(Injection::FailFsync(libc::EIO))
    } else {
        reader.errno(node, "fail_fsync").map(Injection::FailFsync)
    }
}

fn portion(reader: &mut Reader, node: &Node, what: &str, holds: fn(f64) -> bool) -> Option<Portion> {
    const RIGHT: &str = "a fraction below 1, for example `0.5`, a size with its unit, for example `512B`, or `random`";
    let text = reader.text(node, what, RIGHT)?;
    if text == "random" {
        return Some(Portion::Random);
    }
    if text.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return reader.quantity(node.at, what, quantity::size(text)).map(Portion::Bytes);
    }
    reader.real(node, what, RIGHT, holds).map(Portion::Fraction)
}

/// The one key of a map that stands for a choice.
fn choice<'a>(reader: &mut Reader, node: &'a Node, what: &str, allowed: &[&str]) -> Option<(&'a str, &'a Node)> {
    let before = reader.problems.len();
    let fields = Fields::of(reader, node, what, allowed)?;
    let mut keys = fields.keys();
    match (keys.next(), keys.next()) {
        (Some((key, value)), None) => Some((&key.text, value)),
        (None, _) if reader.problems.len() > before => None,
        (None, _) | (Some(_), Some(_)) => {
            reader.wrong(node.at, format!("{what} takes one of {}; write exactly one", listed(allowed)));
            None
        }
    }
}

fn delay(reader: &mut Reader, node: &Node) -> Option<Delay> {
    if !matches!(node.value, Value::Map(_)) {
        return delay_of(reader, node, "delay").map(Delay::Fixed);
    }
    let (name, parameters) = choice(reader, node, "delay", DELAYS)?;
    match name {
        "uniform" => uniform(reader, parameters),
        "normal" => normal(reader, parameters),
        "pareto" => pareto(reader, parameters),
        "ramp" => ramp(reader, parameters),
        _ => None,
    }
}

fn uniform(reader: &mut Reader, node: &Node) -> Option<Delay> {
    let fields = Fields::of(reader, node, "uniform", &["min", "max"])?;
    let min = fields.get("min").map_or(Some(Duration::ZERO), |node| delay_of(reader, node, "min"));
    let max_node = fields.need(reader, "uniform", "max", "10ms");
    let max = max_node.and_then(|node| delay_of(reader, node, "max"));
    let (min, max) = (min?, max?);
    ordered(reader, max_node?, "max", "min", max >= min)?;
    Some(Delay::Uniform { min, max })
}

fn normal(reader: &mut Reader, node: &Node) -> Option<Delay> {
    let fields = Fields::of(reader, node, "normal", &["mean", "stddev", "min", "max"])?;
    let mean = fields.need(reader, "normal", "mean", "5ms").and_then(|node| delay_of(reader, node, "mean"));
    let stddev = fields.need(reader, "normal", "stddev", "1ms").and_then(|node| delay_of(reader, node, "stddev"));
    let min = fields.get("min").map_or(Some(Duration::ZERO), |node| delay_of(reader, node, "min"));
    let max_node = fields.get("max");
    let max = max_node.map_or(Some(LONGEST_DELAY), |node| delay_of(reader, node, "max"));
    let (mean, stddev, min, max) = (mean?, stddev?, min?, max?);
    ordered(reader, max_node.unwrap_or(node), "max", "min", max >= min)?;
    Some(Delay::Normal { mean, stddev, min, max })
}

fn pareto(reader: &mut Reader, node: &Node) -> Option<Delay> {
    let fields = Fields::of(reader, node, "pareto", &["min", "shape", "max"])?;
    let min = fields.need(reader, "pareto", "min", "1ms").and_then(|node| delay_of(reader, node, "min"));
    let right = "a number above 0 and up to 100, for example `1.5` (the smaller, the longer the tail)";
    let shape = fields
        .need(reader, "pareto", "shape", "1.5")
        .and_then(|node| reader.real(node, "shape", right, |shape| 0.0 < shape && shape <= 100.0));
    let max_node = fields.need(reader, "pareto", "max", "1s");
    let max = max_node.and_then(|node| delay_of(reader, node, "max"));
    let (min, shape, max) = (min?, shape?, max?);
    ordered(reader, max_node?, "max", "min", max >= min)?;
    Some(Delay::Pareto { min, shape, max })
}

fn ramp(reader: &mut Reader, node: &Node) -> Option<Delay> {
    let fields = Fields::of(reader, node, "ramp", &["from", "to", "over"])?;
    let from = fields.get("from").map_or(Some(Duration::ZERO), |node| delay_of(reader, node, "from"));
    let to = fields.need(reader, "ramp", "to", "10ms").and_then(|node| delay_of(reader, node, "to"));
    let over = fields
        .need(reader, "ramp", "over", "1000")
        .and_then(|node| reader.number(node, "over (how many operations of a file it takes)", 1..=u64::MAX));
    Some(Delay::Ramp { from: from?, to: to?, over: over? })
}

fn ordered(reader: &mut Reader, node: &Node, larger: &str, smaller: &str, holds: bool) -> Option<()> {
    if !holds {
        reader.wrong(node.at, format!("{larger} is less than {smaller}; write a {larger} that is at least {smaller}"));
    }
    holds.then_some(())
}

fn corrupt(reader: &mut Reader, node: &Node) -> Option<Corrupt> {
    let Value::Scalar(word) = &node.value else {
        let (name, value) = choice(reader, node, "corrupt", CORRUPTIONS)?;
        return match name {
            "bitflip" => {
                let bits = reader.number(value, "bitflip (how many bits)", 1..=MOST_BITS)?;
                u32::try_from(bits).ok().map(|bits| Corrupt::BitFlip { bits })
            }
            "zero" => run(reader, value, "zero").map(|bytes| Corrupt::Zero { bytes }),
            "random" => run(reader, value, "random").map(|bytes| Corrupt::Random { bytes }),
            "pattern" => pattern(reader, value),
            _ => None,
        };
    };
    match word.as_str() {
        "bitflip" => Some(Corrupt::BitFlip { bits: 1 }),
        "zero" => Some(Corrupt::Zero { bytes: u64::MAX }),
        "random" => Some(Corrupt::Random { bytes: u64::MAX }),
        "pattern" => {
            reader.wrong(
                node.at,
                "corrupt: a pattern needs bytes; write `corrupt: { pattern: { hex: deadbeef } }`".to_owned(),
            );
            None
        }
        other => {
            let meant = meant(other, CORRUPTIONS);
            reader.wrong(node.at, format!("corrupt is `{other}`{meant}; write {}", listed(CORRUPTIONS)));
            None
        }
    }
}

fn run(reader: &mut Reader, node: &Node, what: &str) -> Option<u64> {
    let bytes = reader.size(node, what)?;
    if bytes == 0 {
        reader.wrong(
            node.at,
            format!("{what} of no bytes changes nothing; write at least `1B`, or `corrupt: {what}` for all"),
        );
        return None;
    }
    Some(bytes)
}

fn pattern(reader: &mut Reader, node: &Node) -> Option<Corrupt> {
    let fields = Fields::of(reader, node, "pattern", &["text", "hex", "bytes"])?;
    let bytes = fields.get("bytes").map_or(Some(u64::MAX), |node| run(reader, node, "bytes"));
    let (source, pattern) = match (fields.get("text"), fields.get("hex")) {
        (Some(node), None) => (node, reader.text(node, "text", "some text")?.as_bytes().to_vec()),
        (None, Some(node)) => (node, hex(reader, node)?),
        (Some(_), Some(_)) | (None, None) => {
            reader.wrong(node.at, "pattern takes one of `text` and `hex`; write exactly one".to_owned());
            return None;
        }
    };
    if pattern.is_empty() || pattern.len() > MOST_PATTERN_BYTES {
        reader.wrong(source.at, format!("the pattern has {} bytes; write 1 to {MOST_PATTERN_BYTES}", pattern.len()));
        return None;
    }
    Some(Corrupt::Pattern { bytes: bytes?, pattern })
}

fn hex(reader: &mut Reader, node: &Node) -> Option<Vec<u8>> {
    const RIGHT: &str = "two hexadecimal digits for each byte, for example `deadbeef`";
    let text = reader.text(node, "hex", RIGHT)?;
    let bytes = crate::rules::replay::line::from_hex(text);
    if bytes.is_none() {
        reader.wrong(node.at, format!("hex is `{text}`; write {RIGHT}"));
    }
    bytes
}

fn delay_of(reader: &mut Reader, node: &Node, what: &str) -> Option<Duration> {
    let duration = reader.duration(node, what)?;
    if duration > LONGEST_DELAY {
        reader.wrong(
            node.at,
            format!("{what} is longer than an hour; write at most `1h`, or `abort` to end the connection"),
        );
        return None;
    }
    Some(duration)
}
