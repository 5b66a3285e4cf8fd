//! `when` and `do` of a rule in words.

use std::fmt::Display;
use std::ops::Range;

use super::{Held, duration};
use crate::rules::decision::Corrupt;
use crate::rules::errno;
use crate::rules::model::{Action, Delay, Injection, Portion, When};
use crate::rules::op::{Op, OpSet};

pub(super) fn ops(ops: OpSet) -> String {
    ops.iter().map(Op::name).collect::<Vec<_>>().join(", ")
}

pub(super) fn range(range: &Range<u64>) -> String {
    match (range.start, range.end) {
        (start, u64::MAX) => format!("the bytes from {start}"),
        (start, end) => format!("the bytes {start} to {}", end - 1),
    }
}

/// `uid is 5, not 999`.
pub(super) fn compared(what: &str, held: Held, known: Option<impl Display>, wanted: &str) -> String {
    let known = known.map(|known| known.to_string()).unwrap_or_default();
    match held {
        Held::Yes => format!("{what} {known} is {wanted}"),
        Held::No => format!("{what} {known} is not {wanted}"),
        Held::Open => format!("{what} is not given; it has to be {wanted}"),
    }
}

pub(super) fn when(when: &When) -> String {
    let When { probability, skip, every, limit, after, until } = when;
    let mut parts = Vec::new();
    if *skip > 0 {
        parts.push(format!("not the first {skip}"));
    }
    if *every > 1 {
        parts.push(format!("one in each {every} that match"));
    }
    if probability.chance() < 1.0 {
        parts.push(format!("with probability {}", probability.chance()));
    }
    if let Some(limit) = limit {
        parts.push(format!("at most {limit} times"));
    }
    if !after.is_zero() {
        parts.push(format!("from {} after the rules were set", duration(*after)));
    }
    if let Some(until) = until {
        parts.push(format!("until {} after the rules were set", duration(*until)));
    }
    if parts.is_empty() {
        return "each operation that matches".to_owned();
    }
    format!("{}; counted for each file and operation on its own", parts.join(", "))
}

pub(super) fn action(action: &Action) -> String {
    let Action { delay, effect } = action;
    let parts = [delay.as_ref().map(delay_words), effect.as_ref().map(effect_words)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", then ")
}

fn delay_words(delay: &Delay) -> String {
    match delay {
        Delay::Fixed(fixed) => format!("it waits {}", duration(*fixed)),
        Delay::Uniform { min, max } => format!("it waits {} to {}, evenly", duration(*min), duration(*max)),
        Delay::Normal { mean, stddev, min, max } => format!(
            "it waits {} on average, normally distributed with a deviation of {}, at least {} and at most {}",
            duration(*mean),
            duration(*stddev),
            duration(*min),
            duration(*max)
        ),
        Delay::Pareto { min, shape, max } => format!(
            "it waits at least {} with a Pareto tail of shape {shape}, at most {}",
            duration(*min),
            duration(*max)
        ),
        Delay::Ramp { from, to, over } => format!(
            "it waits {} at first, growing or falling to {} over {over} operations of the file",
            duration(*from),
            duration(*to)
        ),
    }
}

fn effect_words(effect: &Injection) -> String {
    match effect {
        Injection::Errno(number) => format!("it fails with {}", errno::name(*number)),
        Injection::Short(portion) => {
            format!("only {} of its bytes are done, and the answer says so", portion_words(*portion))
        }
        Injection::Torn(portion) => {
            format!("only {} of its bytes are written, and the answer says that all were", portion_words(*portion))
        }
        Injection::Corrupt(how) => corrupt_words(how),
        Injection::LoseUntilFsync => "what it changes is lost at a power cut unless an fsync comes first".to_owned(),
        Injection::FailFsync(number) => {
            format!("it fails with {}, and what was not synced before is lost", errno::name(*number))
        }
        Injection::LieFsync => "it answers that all is well, and nothing is made durable".to_owned(),
        Injection::Abort => {
            "the connection ends: every operation on the mount fails with ENOTCONN from then on".to_owned()
        }
    }
}

fn portion_words(portion: Portion) -> String {
    match portion {
        Portion::Fraction(fraction) => format!("a fraction of {fraction}"),
        Portion::Bytes(bytes) => format!("{bytes} bytes"),
        Portion::Random => "a random part".to_owned(),
    }
}

fn corrupt_words(how: &Corrupt) -> String {
    let run =
        |bytes: u64| if bytes == u64::MAX { "all its bytes".to_owned() } else { format!("a run of {bytes} bytes") };
    match how {
        Corrupt::BitFlip { bits: 1 } => "one bit of its data is flipped".to_owned(),
        Corrupt::BitFlip { bits } => format!("{bits} bits of its data are flipped"),
        Corrupt::Zero { bytes } => format!("{} become zero", run(*bytes)),
        Corrupt::Random { bytes } => format!("{} become random", run(*bytes)),
        Corrupt::Pattern { bytes, pattern } => format!("{} become a pattern of {} bytes", run(*bytes), pattern.len()),
    }
}
