//! Decides for each operation what is done to it.
//!
//! A decision depends on the seed, the rule's name, the path, the operation and its ordinal on that path, and on nothing else: not
//! on threads, not on other files, and on time only where a rule says `after` or `until`. The counts live outside
//! ([`Counters`]), so that a successor goes on counting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::decision::{Corruption, Counters, Decision, Effect, Facts, Fault, FaultKind, Request};
use super::hash::{Draws, Hash};
use super::model::{Injection, Portion, Rule, RuleSet};
use super::op::{Op, OpSet};
use crate::throttle::profile::DeviceOp;

mod matching;

pub(super) use matching::overlaps;

/// What decides: rules, or a log that is replayed.
pub trait Decider: Send + Sync {
    /// Which operations on that path could be touched; those that are not in it need not be asked about, and are not counted.
    fn concern(&self, path: &[u8]) -> OpSet;
    /// Which operations on any path could be touched.
    fn concern_any(&self) -> OpSet;
    /// What is done to an operation; counts it.
    fn decide(&self, request: &Request<'_>, facts: &dyn Facts, since_armed: Duration) -> Decision;
    /// The decision that was made for this ordinal, for a request that comes a second time; counts nothing.
    fn again(&self, request: &Request<'_>, facts: &dyn Facts, ordinal: u64, fired: u64) -> Decision;
}

/// Rules in force.
pub struct Engine {
    set: RuleSet,
    counters: Arc<dyn Counters>,
}

impl Engine {
    #[must_use]
    pub fn arm(set: RuleSet, counters: Arc<dyn Counters>) -> Self {
        Self { set, counters }
    }

    #[must_use]
    pub fn set(&self) -> &RuleSet {
        &self.set
    }

    /// Whether the `when` of a rule that matches lets it strike; counts.
    fn strikes(&self, rule: &Rule, request: &Request<'_>, ordinal: u64, since_armed: Duration) -> bool {
        let when = &rule.when;
        // Counted before anything that depends on time is asked, so that counts never do.
        if when.skip > 0 || when.every > 1 {
            let before = self.counters.next(key("match", Some(rule), request));
            let Some(counted) = before.checked_sub(when.skip) else { return false };
            if (counted + 1) % when.every != 0 {
                return false;
            }
        }
        if since_armed < when.after || when.until.is_some_and(|until| since_armed >= until) {
            return false;
        }
        if !self.is_drawn(rule, request, ordinal) {
            return false;
        }
        when.limit.is_none_or(|limit| self.counters.below(key("limit", Some(rule), request), limit))
    }

    fn is_drawn(&self, rule: &Rule, request: &Request<'_>, ordinal: u64) -> bool {
        let probability = &rule.when.probability;
        if probability.chance() >= 1.0 {
            return true;
        }
        let name = probability.shared.as_ref().unwrap_or(&rule.name);
        let drawn = Draws::new(self.draw("strike", name, request, ordinal)).unit();
        (probability.from..probability.to).contains(&drawn)
    }

    fn draw(&self, purpose: &str, name: &str, request: &Request<'_>, ordinal: u64) -> u64 {
        let hash = Hash::new(purpose).number(self.set.seed).bytes(name.as_bytes()).bytes(request.path);
        hash.bytes(request.op.name().as_bytes()).number(ordinal).finish()
    }

    /// What the rules of these bits do.
    fn apply(&self, request: &Request<'_>, ordinal: u64, fired: u64) -> Decision {
        let mut decision = Decision { ordinal, fired, volatile: self.keeps_undo(request), ..Decision::default() };
        for (index, rule) in self.set.rules.iter().enumerate() {
            if fired >> index & 1 == 1 {
                self.apply_rule(rule, request, &mut decision);
            }
        }
        if let Some((profile, op)) = self.set.profile.as_ref().zip(device_op(request.op)) {
            let draw = self.draw("latency", profile.name, request, ordinal);
            let latency = Duration::from_nanos(profile.latency_ns(op, draw));
            decision.delay = decision.delay.saturating_add(latency);
        }
        decision
    }

    fn apply_rule(&self, rule: &Rule, request: &Request<'_>, decision: &mut Decision) {
        let seed = self.draw("amount", &rule.name, request, decision.ordinal);
        let mut draws = Draws::new(seed);
        let fault = |kind, errno, delay| Fault { rule: Arc::clone(&rule.name), kind, errno, delay };
        if let Some(delay) = &rule.action.delay {
            let delay = delay.draw(&mut draws, decision.ordinal);
            decision.delay = decision.delay.saturating_add(delay);
            decision.faults.push(fault(FaultKind::Delay, None, delay));
        }
        let Some(injection) = &rule.action.effect else { return };
        if *injection == Injection::LoseUntilFsync {
            decision.volatile = true;
            decision.faults.push(fault(FaultKind::LoseUntilFsync, None, Duration::ZERO));
            return;
        }
        if decision.effect != Effect::Done {
            return;
        }
        let (effect, kind, errno) = effect(injection, request.len, &mut draws);
        if effect != Effect::Done {
            decision.effect = effect;
            decision.faults.push(fault(kind, errno, Duration::ZERO));
        }
    }

    /// What the profile delays, on any path.
    fn device_ops(&self) -> OpSet {
        if self.set.profile.is_some() { DEVICE_OPS } else { OpSet::EMPTY }
    }

    /// A failed or untrue fsync loses what came before it, so that has to be kept until then.
    fn keeps_undo(&self, request: &Request<'_>) -> bool {
        OpSet::CHANGES_DATA.contains(request.op)
            && self.set.rules.iter().any(|rule| needs_undo(rule) && rule.is_on(request))
    }
}

fn needs_undo(rule: &Rule) -> bool {
    matches!(rule.action.effect, Some(Injection::FailFsync(_) | Injection::LieFsync))
}

/// The operations that [`device_op`] knows.
const DEVICE_OPS: OpSet = OpSet::EMPTY.with(Op::Read).with(Op::Write).with(Op::Fsync).with(Op::Fdatasync);

/// What takes time on a device.
const fn device_op(op: Op) -> Option<DeviceOp> {
    match op {
        Op::Read => Some(DeviceOp::Read),
        Op::Write => Some(DeviceOp::Write),
        Op::Fsync | Op::Fdatasync => Some(DeviceOp::Fsync),
        _ => None,
    }
}

/// The operations a rule has to see.
fn sees(rule: &Rule) -> OpSet {
    match rule.action.effect {
        // What makes a file durable has to be seen too.
        Some(Injection::LoseUntilFsync) => {
            rule.matching.ops.union(OpSet::CHANGES_DATA).with(Op::Fsync).with(Op::Fdatasync)
        }
        Some(Injection::FailFsync(_) | Injection::LieFsync) => rule.matching.ops.union(OpSet::CHANGES_DATA),
        Some(
            Injection::Errno(_) | Injection::Short(_) | Injection::Corrupt(_) | Injection::Torn(_) | Injection::Abort,
        )
        | None => rule.matching.ops,
    }
}

/// The key of a count.
pub(super) fn key(purpose: &str, rule: Option<&Rule>, request: &Request<'_>) -> u128 {
    let name = rule.map(|rule| rule.name.as_bytes()).unwrap_or_default();
    Hash::new(purpose).bytes(name).bytes(request.path).bytes(request.op.name().as_bytes()).finish_wide()
}

/// What becomes of the operation; `Done` where it is too small for it.
fn effect(injection: &Injection, len: u64, draws: &mut Draws) -> (Effect, FaultKind, Option<i32>) {
    match injection {
        Injection::Errno(errno) => (Effect::Fail(*errno), FaultKind::Errno, Some(*errno)),
        Injection::Short(portion) => {
            // None at all would say end of file, and all is not short.
            let effect =
                if len < 2 { Effect::Done } else { Effect::Short(part(*portion, len, draws).clamp(1, len - 1)) };
            (effect, FaultKind::Short, None)
        }
        Injection::Torn(portion) => {
            let effect = if len == 0 { Effect::Done } else { Effect::Torn(part(*portion, len, draws).min(len - 1)) };
            (effect, FaultKind::Torn, None)
        }
        Injection::Corrupt(how) => {
            let corruption = Corruption { how: how.clone(), seed: draws.number() };
            let effect = if len == 0 { Effect::Done } else { Effect::Corrupt(corruption) };
            (effect, FaultKind::Corrupt, None)
        }
        // It changes no answer.
        Injection::LoseUntilFsync => (Effect::Done, FaultKind::LoseUntilFsync, None),
        Injection::FailFsync(errno) => (Effect::FailFsync(*errno), FaultKind::FailFsync, Some(*errno)),
        Injection::LieFsync => (Effect::LieFsync, FaultKind::LieFsync, None),
        Injection::Abort => (Effect::Abort, FaultKind::Abort, None),
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a fraction of a request, which is far below 2^53 bytes and not negative"
)]
fn part(portion: Portion, len: u64, draws: &mut Draws) -> u64 {
    match portion {
        Portion::Fraction(fraction) => (len as f64 * fraction) as u64,
        Portion::Bytes(bytes) => bytes,
        Portion::Random => draws.below(len),
    }
}

impl Decider for Engine {
    fn concern(&self, path: &[u8]) -> OpSet {
        let on_path =
            self.set.rules.iter().filter(|rule| rule.matching.path.as_ref().is_none_or(|globs| globs.matches(path)));
        on_path.fold(self.device_ops(), |ops, rule| ops.union(sees(rule)))
    }

    fn concern_any(&self) -> OpSet {
        self.set.rules.iter().fold(self.device_ops(), |ops, rule| ops.union(sees(rule)))
    }

    fn decide(&self, request: &Request<'_>, facts: &dyn Facts, since_armed: Duration) -> Decision {
        let ordinal = self.counters.next(key("operation", None, request));
        let mut fired = 0;
        for (index, rule) in self.set.rules.iter().enumerate() {
            if rule.matches(request, facts) && self.strikes(rule, request, ordinal, since_armed) {
                fired |= 1 << index;
            }
        }
        self.apply(request, ordinal, fired)
    }

    fn again(&self, request: &Request<'_>, _facts: &dyn Facts, ordinal: u64, fired: u64) -> Decision {
        self.apply(request, ordinal, fired)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("set", &self.set).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
