//! The way of every operation: decided on, done, made to wait, answered, told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;

use super::ask::{Ask, CallFacts, On, Way};
use super::told::{Paths, Told};
use super::{Call, Interposer, Outcome};
use crate::clock::{self, Clock};
use crate::fuse::gate::{Gate, Passed, Passing};
use crate::fuse::hold::Waited;
use crate::fuse::pods;
use crate::fuse::report::Throttled;
use crate::fuse::state::Word;
use crate::fuse::under_way::{Guard, Logged};
use crate::rules::decision::{Decision, Effect, Fault, FaultEntry, FaultKind, Request};
use crate::rules::engine::Decider;

/// The name under which the fault log has what a capacity refused.
const CAPACITY_RULE: &str = "capacity";

/// What is known once the work is done.
struct Done<T> {
    call: Call,
    result: Result<T, Errno>,
    started_ns: u64,
    delay: Duration,
    report: Option<Told>,
    /// Kept until the answer is given.
    under: Guard,
}

impl Interposer {
    /// Does one operation: decides, works, waits, answers. The answer is given exactly once.
    pub(super) fn run<T, W, A>(self: &Arc<Self>, call: Call, ask: &Ask<'_>, work: W, answer: A)
    where
        T: Outcome + Send + 'static,
        W: FnOnce(&Way<'_>) -> Result<T, Errno>,
        A: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        let under = self.under_way.begin(call.unique, call.tid);
        if self.under_way.is_first_new(call.unique) {
            self.forget_left_later();
        }
        let armed = self.armed();
        let paused = self.state.word(Word::Paused).load(Ordering::Relaxed) != 0;
        let decider = armed.decider.as_deref().filter(|_| !paused && armed.any.contains(ask.op));
        let gate = armed.volume.gate(ask.direction()).filter(|_| !paused);
        let told = self.reports.wants_operations();
        if decider.is_none() && gate.is_none() && armed.volume.capacity.is_none() && !told {
            let decision = Decision::default();
            let result = work(&Way::new(&decision, &under, &armed));
            under.answers();
            answer(result);
            return;
        }
        let started_ns = clock::monotonic_ns();
        let paths = self.paths_of(ask);
        let decision =
            decider.map_or_else(Decision::default, |decider| self.decide(decider, call, ask, &paths, &under));
        under.decided(decision.ordinal, decision.fired);
        let is_done = !matches!(decision.effect, Effect::Fail(_) | Effect::Abort);
        let gate = gate.filter(|_| is_done);
        let pod = gate.filter(|gate| gate.asks_for_pods()).map_or(0, |_| self.pod_of(call, ask));
        let passing = |bytes| {
            let (file, tid) = (ask.node(), call.tid);
            ask.direction().map(|direction| Passing { direction, file, pod, tid, bytes })
        };
        let paid = gate.zip(passing(ask.len)).filter(|_| ask.nonblocking);
        let paid = paid.and_then(|(gate, passing)| gate.try_pass(passing));
        let work_ns = clock::monotonic_ns();
        let way = Way::new(&decision, &under, &armed);
        let result = match decision.effect {
            Effect::Fail(errno) => Err(Errno::from_raw_os_error(errno)),
            Effect::Abort => Err(Errno::NOTCONN),
            _ if paid == Some(false) => Err(Errno::AGAIN),
            _ => work(&way),
        };
        let backing_ns = clock::monotonic_ns().saturating_sub(work_ns);
        let bytes = result.as_ref().map_or(0, Outcome::bytes);
        let faults = self.record(call, ask, &way, &paths, bytes);
        if decision.effect == Effect::Abort {
            self.device.abort();
        }
        let report = told.then(|| Told { call, about: ask.owned(), paths, faults, started_ns, backing_ns });
        let done = Done { call, result, started_ns, delay: decision.delay, report, under };
        match (gate.and_then(|gate| Some((gate, passing(bytes)?))), paid) {
            // They were asked for before; what was paid for too much goes back.
            (Some((gate, passing)), Some(passed)) => {
                if passed {
                    gate.give_back(Passing { bytes: ask.len.saturating_sub(bytes), ..passing });
                }
                self.after_tokens(done, if passed { Throttled::No } else { Throttled::Again }, 0, answer);
            }
            (Some((gate, passing)), None) => self.wait_for_tokens(gate, passing, done, answer),
            (None, _) => self.after_tokens(done, Throttled::No, 0, answer),
        }
    }

    fn wait_for_tokens<T, A>(self: &Arc<Self>, gate: &Gate, passing: Passing, done: Done<T>, answer: A)
    where
        T: Outcome + Send + 'static,
        A: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        let fs = Arc::clone(self);
        let asked_ns = clock::monotonic_ns();
        gate.pass(
            passing,
            Box::new(move |passed| {
                let waited_ns = clock::monotonic_ns().saturating_sub(asked_ns);
                match passed {
                    Passed::AtOnce => fs.after_tokens(done, Throttled::No, 0, answer),
                    Passed::Waited => fs.after_tokens(done, Throttled::Waited, waited_ns, answer),
                    Passed::Killed => fs.finish(done, Throttled::Waited, waited_ns, answer),
                }
            }),
        );
    }

    /// The tokens are there: now the delay.
    fn after_tokens<T, A>(self: &Arc<Self>, done: Done<T>, throttled: Throttled, throttle_ns: u64, answer: A)
    where
        T: Outcome + Send + 'static,
        A: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        if done.delay.is_zero() {
            self.finish(done, throttled, throttle_ns, answer);
            return;
        }
        // What the work took counts towards the delay: the delay is what the application sees.
        let delay_ns = u64::try_from(done.delay.as_nanos()).unwrap_or(u64::MAX);
        let due = done.started_ns.saturating_add(throttle_ns).saturating_add(delay_ns);
        let (fs, tid) = (Arc::clone(self), done.call.tid);
        let then = Box::new(move |_waited| fs.finish(done, throttled, throttle_ns, answer));
        if let Err(then) = self.hold.until(due, tid, then) {
            self.hold_full.fetch_add(1, Ordering::Relaxed);
            then(Waited::Through);
        }
    }

    /// Answers what was done, also where the caller was killed meanwhile: what the kernel is told of, it closes and forgets, and nobody
    /// else would.
    fn finish<T, A>(&self, done: Done<T>, throttled: Throttled, throttle_ns: u64, answer: A)
    where
        T: Outcome,
        A: FnOnce(Result<T, Errno>),
    {
        let Done { result, delay, report, under, .. } = done;
        let outcome = result.as_ref().map(Outcome::bytes).map_err(|errno| *errno);
        // Before the answer: once it is given, the application goes on and we may not.
        let answered_ns = if report.is_some() { clock::monotonic_ns() } else { 0 };
        under.answers();
        answer(result);
        if let Some(report) = report {
            let report = report.into_report(self.device.number(), outcome, delay, throttled, throttle_ns, answered_ns);
            self.reports.operation(report);
        }
        drop(under);
    }

    fn decide(&self, decider: &dyn Decider, call: Call, ask: &Ask<'_>, paths: &Paths, under: &Guard) -> Decision {
        // What no rule concerns is not counted, so that a replay counts alike.
        let either = [Some(&paths.path), paths.target.as_ref()].into_iter().flatten();
        if !either.into_iter().any(|path| decider.concern(path).contains(ask.op)) {
            return Decision::default();
        }
        let request = Request {
            op: ask.op,
            path: &paths.path,
            target: paths.target.as_deref(),
            offset: ask.offset,
            len: ask.len,
            uid: call.uid,
            gid: call.gid,
            pid: call.tid,
        };
        let facts = CallFacts { fs: self, on: ask.on, tid: call.tid };
        match under.past().and_then(|past| past.decision) {
            Some((ordinal, fired)) => decider.again(&request, &facts, ordinal, fired),
            None => {
                let armed_at = self.state.word(Word::ArmedAt).load(Ordering::Acquire);
                decider.decide(&request, &facts, Clock::since(armed_at))
            }
        }
    }

    /// Whose an operation is; of those who are in no pod, the mount's.
    fn pod_of(&self, call: Call, ask: &Ask<'_>) -> u64 {
        let pod = match ask.handle {
            Some(handle) => self.open_files.pod(handle, call.tid),
            None => pods::of_thread(call.tid),
        };
        match pod {
            pods::UNKNOWN | pods::IN_NONE => pods::of_mount(&self.state, self.device.number()),
            pod => pod,
        }
    }

    fn paths_of(&self, ask: &Ask<'_>) -> Paths {
        let path = match ask.on {
            On::Node(number) => self.nodes.path(number),
            On::Name(parent, name) => self.nodes.child_path(parent, name),
        };
        let target = ask.target.map(|(parent, name)| self.nodes.child_path(parent, name).into());
        Paths { path: path.into(), target }
    }

    /// Writes down what was injected: once, also where an earlier server did so and was killed before the answer.
    fn record(&self, call: Call, ask: &Ask<'_>, way: &Way<'_>, paths: &Paths, done: u64) -> Vec<FaultEntry> {
        let Way { decision, under, armed: _, refused } = way;
        let full = refused.get().map(|errno| Fault {
            rule: CAPACITY_RULE.into(),
            kind: FaultKind::Capacity,
            errno: Some(errno),
            delay: Duration::ZERO,
        });
        let faults: Vec<_> = decision.faults.iter().chain(&full).collect();
        if faults.is_empty() {
            return Vec::new();
        }
        let before = way.past().and_then(|past| past.logged);
        let known = before.map_or(0, |before| before.count.min(faults.len() as u64));
        let count = faults.len() as u64 - known;
        let new = self.state.word(Word::Faults).fetch_add(count, Ordering::AcqRel) + 1;
        let first = before.map_or(new, |before| before.first);
        if before.is_none() {
            under.logs(Logged { first, count });
        }
        let entry = |(index, fault): (u64, &Fault)| FaultEntry {
            sequence: if index < known { first + index } else { new + (index - known) },
            unix_ns: self.clock.unix_ns(clock::monotonic_ns()),
            fault: fault.clone(),
            op: ask.op,
            path: Arc::clone(&paths.path),
            ordinal: decision.ordinal,
            ino: ask.node(),
            pid: call.tid,
            uid: call.uid,
            offset: ask.offset,
            asked: ask.len,
            done,
            effect: decision.effect.clone(),
        };
        let entries: Vec<FaultEntry> = (0..).zip(faults).map(entry).collect();
        let mut log = self.log();
        for (index, entry) in (0..).zip(&entries) {
            if index >= known || !log.has(entry.sequence) {
                log.push(entry.clone());
            }
        }
        entries
    }
}
