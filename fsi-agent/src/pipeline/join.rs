//! Operations and what mounts of ours did for them, put together: by the connection's device and the request's number, exactly.
//!
//! ```text
//! request record (kernel) --> in flight, with the thread's operation --.
//! operation record (kernel) ------------------------------------------+--> held until every report is here, or for a while
//! report (mount) ------------------------------------------------------'
//! ```
//! They come in any order: the ring is read every few milliseconds, reports come in batches. Everything waits in a table with a bound, and
//! what never finds its other half is counted.

use std::collections::HashMap;
use std::sync::Arc;

use fsi_common::record::{OpRecord, RequestRecord, UNWANTED_REQUEST};

use super::loss::{PipelineLoss, PipelineLosses};
use super::table::{Displaced, Table};
use crate::fuse::report::{OpReport, Throttled};
use crate::span::{Interposed, MountedVolume, Span, SpanBody};
use crate::telemetry::metrics::mount::overhead_ns;

/// How long one half waits for the other once nothing holds it up any more.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Requests that wait for their report or their operation.
const MAX_REQUESTS: usize = 65_536;
/// Operations that wait for reports.
const MAX_HELD: usize = 32_768;
/// Marks a request that the kernel sends again (`FUSE_UNIQUE_RESEND`).
const RESENT: u64 = 1 << 63;

/// A request, among all mounts.
type RequestId = (u32, u64);

/// What comes out.
#[derive(Debug)]
pub(super) enum Joined {
    /// An operation with everything that is known of it.
    Operation {
        span: Arc<Span>,
        /// Its policy asks for it, or something was done to it on purpose.
        is_told: bool,
    },
    /// What a mount did for nobody that is looked at.
    Alone(Box<OpReport>),
    /// What it did for one whose policy wants nothing told.
    Unwanted,
}

/// Whom a request belongs to.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// An operation that has not ended yet.
    InFlight,
    /// One that is held under this number.
    Held(u64),
    Nobody,
    /// One whose policy wants nothing told.
    Unwanted,
}

#[derive(Debug)]
struct Sent {
    whose: Whose,
    report: Option<Box<OpReport>>,
}

/// The requests of a thread's operation so far.
#[derive(Debug)]
struct Flight {
    start_ns: u64,
    requests: Vec<RequestId>,
}

#[derive(Debug)]
struct Held {
    number: u64,
    span: Arc<Span>,
    /// `CLOCK_MONOTONIC` when it began.
    start_ns: u64,
    is_wanted: bool,
    missing: Vec<RequestId>,
    reports: Vec<OpReport>,
    until_ns: u64,
}

#[derive(Debug)]
struct Early {
    report: Box<OpReport>,
    until_ns: u64,
}

/// Both halves, and what waits.
#[derive(Debug)]
pub(super) struct Join {
    volumes: HashMap<u32, MountedVolume>,
    flights: Table<Flight>,
    sent: Table<Sent, RequestId>,
    early: Table<Early, RequestId>,
    held: Table<Held>,
    next_number: u64,
    joined: u64,
}

impl Join {
    pub(super) fn new() -> Self {
        Self {
            volumes: HashMap::new(),
            flights: Table::new(MAX_REQUESTS),
            sent: Table::new(MAX_REQUESTS),
            early: Table::new(MAX_REQUESTS),
            held: Table::new(MAX_HELD),
            next_number: 0,
            joined: 0,
        }
    }

    /// What the volume of a mount is called.
    pub(super) fn set_volume(&mut self, dev: u32, volume: Option<MountedVolume>) {
        match volume {
            Some(volume) => drop(self.volumes.insert(dev, volume)),
            None => drop(self.volumes.remove(&dev)),
        }
    }

    /// Reports that found their operation.
    pub(super) fn joined(&self) -> u64 {
        self.joined
    }

    /// A request goes to a mount.
    pub(super) fn request(&mut self, raw: &RequestRecord, losses: &mut PipelineLosses, out: &mut Vec<Joined>) {
        let id = (raw.dev, raw.unique & !RESENT);
        let early = self.early.remove(id).map(|early| early.report);
        if raw.start_ns == 0 {
            let is_unwanted = raw.header.detail == UNWANTED_REQUEST;
            match early {
                Some(_report) if is_unwanted => out.push(Joined::Unwanted),
                Some(report) => out.push(Joined::Alone(report)),
                None => {
                    let whose = if is_unwanted { Whose::Unwanted } else { Whose::Nobody };
                    self.put(id, Sent { whose, report: None }, losses, out);
                }
            }
            return;
        }
        let thread = u64::from(raw.tid);
        if self.flights.get(thread).is_none_or(|flight| flight.start_ns != raw.start_ns) {
            // A thread has one call in flight: the one before was told of by nobody.
            if let Some(before) = self.flights.remove(thread) {
                self.abandon(&before, out);
            }
            let flight = Flight { start_ns: raw.start_ns, requests: Vec::with_capacity(2) };
            if let Displaced::Oldest(oldest) = self.flights.insert(thread, flight) {
                losses.count(PipelineLoss::EvictedRequest);
                self.abandon(&oldest, out);
            }
        }
        if let Some(flight) = self.flights.get_mut(thread) {
            flight.requests.push(id);
        }
        self.put(id, Sent { whose: Whose::InFlight, report: early }, losses, out);
    }

    fn put(&mut self, id: RequestId, sent: Sent, losses: &mut PipelineLosses, out: &mut Vec<Joined>) {
        match self.sent.insert(id, sent) {
            Displaced::Nothing => {}
            Displaced::Same(before) => out.extend(before.report.map(Joined::Alone)),
            Displaced::Oldest(oldest) => {
                if !matches!(oldest.whose, Whose::Nobody | Whose::Unwanted) {
                    losses.count(PipelineLoss::EvictedRequest);
                }
                out.extend(oldest.report.map(Joined::Alone));
            }
        }
    }

    /// Requests whose operation is not told of.
    fn abandon(&mut self, flight: &Flight, out: &mut Vec<Joined>) {
        for id in &flight.requests {
            let Some(sent) = self.sent.get_mut(*id) else { continue };
            match sent.report.take() {
                Some(report) => {
                    out.push(Joined::Alone(report));
                    drop(self.sent.remove(*id));
                }
                None => sent.whose = Whose::Nobody,
            }
        }
    }

    /// An operation that sent requests has ended.
    pub(super) fn operation(
        &mut self,
        span: Span,
        raw: &OpRecord,
        is_wanted: bool,
        losses: &mut PipelineLosses,
        out: &mut Vec<Joined>,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let until_ns = raw.start_ns.saturating_add(raw.duration_ns).saturating_add(PATIENCE_NS);
        let (span, start_ns) = (Arc::new(span), raw.start_ns);
        let mut held = Held { number, span, start_ns, is_wanted, missing: Vec::new(), reports: Vec::new(), until_ns };
        let flight = self.flights.remove(u64::from(raw.tid)).filter(|flight| flight.start_ns == raw.start_ns);
        let requests = flight.map(|flight| flight.requests).unwrap_or_default();
        let untold = usize::try_from(raw.requests).unwrap_or(usize::MAX).saturating_sub(requests.len());
        losses.add(PipelineLoss::UnknownRequest, untold as u64);
        for id in requests {
            match self.sent.get_mut(id) {
                Some(Sent { report, .. }) if report.is_some() => {
                    held.reports.extend(report.take().map(|report| *report));
                    drop(self.sent.remove(id));
                }
                Some(sent) => {
                    sent.whose = Whose::Held(number);
                    held.missing.push(id);
                }
                // Pushed out meanwhile, and counted then.
                None => {}
            }
        }
        if held.missing.is_empty() {
            self.finish(held, out);
            return;
        }
        if let Displaced::Oldest(oldest) = self.held.insert(number, held) {
            losses.count(PipelineLoss::EvictedOperation);
            self.give_up(oldest, losses, out);
        }
    }

    /// What a mount did.
    pub(super) fn report(
        &mut self,
        report: Box<OpReport>,
        now_ns: u64,
        losses: &mut PipelineLosses,
        out: &mut Vec<Joined>,
    ) {
        let id = (report.dev, report.unique & !RESENT);
        let Some(sent) = self.sent.get_mut(id) else {
            let early = Early { report, until_ns: now_ns.saturating_add(PATIENCE_NS) };
            match self.early.insert(id, early) {
                Displaced::Nothing => {}
                Displaced::Same(gone) => out.push(Joined::Alone(gone.report)),
                Displaced::Oldest(gone) => {
                    losses.count(PipelineLoss::UnknownReport);
                    out.push(Joined::Alone(gone.report));
                }
            }
            return;
        };
        match sent.whose {
            // Of a request that was sent again the last report counts: it was answered.
            Whose::InFlight => sent.report = Some(report),
            Whose::Nobody => {
                drop(self.sent.remove(id));
                out.push(Joined::Alone(report));
            }
            Whose::Unwanted => {
                drop(self.sent.remove(id));
                out.push(Joined::Unwanted);
            }
            Whose::Held(number) => {
                drop(self.sent.remove(id));
                let Some(held) = self.held.get_mut(number) else { return };
                held.reports.push(*report);
                held.missing.retain(|missing| *missing != id);
                if held.missing.is_empty()
                    && let Some(held) = self.held.remove(number)
                {
                    self.finish(held, out);
                }
            }
        }
    }

    /// Lets go of what waited long enough.
    pub(super) fn tick(&mut self, now_ns: u64, losses: &mut PipelineLosses, out: &mut Vec<Joined>) {
        while let Some(number) = self.held.oldest().filter(|held| held.until_ns <= now_ns).map(|held| held.number)
            && let Some(held) = self.held.remove(number)
        {
            self.give_up(held, losses, out);
        }
        while self.early.oldest().is_some_and(|early| early.until_ns <= now_ns)
            && let Some(early) = self.early.pop_oldest()
        {
            losses.count(PipelineLoss::UnknownReport);
            out.push(Joined::Alone(early.report));
        }
    }

    /// Lets go of everything.
    pub(super) fn end(&mut self, losses: &mut PipelineLosses, out: &mut Vec<Joined>) {
        self.tick(u64::MAX, losses, out);
        while let Some(sent) = self.sent.pop_oldest() {
            out.extend(sent.report.map(Joined::Alone));
        }
    }

    fn give_up(&mut self, held: Held, losses: &mut PipelineLosses, out: &mut Vec<Joined>) {
        losses.add(PipelineLoss::MissingReport, held.missing.len() as u64);
        for id in &held.missing {
            if let Some(sent) = self.sent.get_mut(*id) {
                sent.whose = Whose::Nobody;
            }
        }
        self.finish(held, out);
    }

    fn finish(&mut self, held: Held, out: &mut Vec<Joined>) {
        let Held { mut span, start_ns, is_wanted, mut reports, .. } = held;
        self.joined += reports.len() as u64;
        let mut is_told = is_wanted;
        // Nobody else has it yet: nothing is copied.
        let joined = Arc::make_mut(&mut span);
        if let SpanBody::Operation(op) = &mut joined.body
            && let Some(first) = reports.first()
        {
            if op.dev == 0 {
                op.dev = first.dev;
            }
            let volume = self.volumes.get(&first.dev).cloned().unwrap_or_default();
            is_told |= reports.iter().any(is_on_purpose);
            // By one clock for all of a span: the mount's may have been set at another time.
            for report in &mut reports {
                let unix_ns = joined.start_unix_ns.saturating_add(report.started_ns.saturating_sub(start_ns));
                report.faults.iter_mut().for_each(|fault| fault.unix_ns = unix_ns);
            }
            let interposed = merged(op.duration_ns, reports, volume);
            op.interposed = Some(Box::new(interposed));
        }
        out.push(Joined::Operation { span, is_told });
    }
}

/// Whether a mount did more than pass it on.
pub(super) fn is_on_purpose(report: &OpReport) -> bool {
    !report.faults.is_empty() || report.delay_ns != 0 || report.throttle != Throttled::No
}

/// What all requests of an operation took.
fn merged(duration_ns: u64, mut reports: Vec<OpReport>, volume: MountedVolume) -> Interposed {
    reports.sort_by_key(|report| report.started_ns);
    let sum = |what: fn(&OpReport) -> u64| reports.iter().map(what).sum::<u64>();
    let at_mount_ns = sum(|report| report.answered_ns.saturating_sub(report.started_ns));
    let mut all = Interposed {
        op: None,
        requests: u32::try_from(reports.len()).unwrap_or(u32::MAX),
        kernel_ns: Some(duration_ns.saturating_sub(at_mount_ns)),
        overhead_ns: sum(overhead_ns),
        injected_ns: sum(|report| report.delay_ns),
        throttle_ns: sum(|report| report.throttle_ns),
        backing_ns: sum(|report| report.backing_ns),
        volume,
        faults: Vec::new(),
    };
    all.faults = reports.into_iter().flat_map(|report| report.faults).collect();
    all
}

#[cfg(test)]
mod tests;
