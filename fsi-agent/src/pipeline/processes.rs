//! The processes under observation.
//!
//! ```text
//! fork, exec, first sight --> live --exit--> (its files are ended) --> span
//!                                   `------> leaving: until its last file has ended, or PATIENCE is over --> span
//! ```
//! A mapped file outlives its descriptor and is found ended only after the exit: its process waits for it, to be told after it and
//! to enclose it.

use fsi_common::record::ProcessRecord;

use super::ids::Ids;
use super::open_files::Place;
use super::table::{Displaced, Table};
use crate::clock::Clock;
use crate::span::{Above, Actor, ProcessSpan, Span, SpanBody, SpanId, TraceId};

/// How long after its exit a process waits for files that others may go on using: several sweeps.
const PATIENCE_NS: u64 = 1_000_000_000;

/// A process that lives, or did a moment ago.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) place: Place,
    parent: Option<SpanId>,
    /// Start of the parent's span, when the parent is observed.
    parent_start_ns: Option<u64>,
    parent_tgid: u32,
    pub(super) actor: Actor,
    /// Its start was told; else it began before our first sight.
    started: Started,
    /// Files that it opened and that have not ended.
    open_files: u64,
    exit: Option<Exit>,
}

/// How a process ended, and when the last of it did.
#[derive(Clone, Copy, Debug)]
struct Exit {
    code: u32,
    exited_ns: u64,
    /// The exit, or the end of the last of its files that ended since.
    end_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    Told,
    Before,
}

impl Process {
    /// Its span; it ends now unless the exit was told.
    pub(super) fn span(&self, now_ns: u64, clock: &Clock) -> Span {
        let end_ns = self.exit.map_or(now_ns, |exit| exit.end_ns);
        let exit_code = self.exit.map(|exit| exit.code);
        Span {
            trace: self.place.trace,
            id: self.place.span,
            parent: self.parent,
            above: match self.parent_start_ns {
                Some(start_ns) => Above::Process { start_unix_ns: clock.unix_ns(start_ns) },
                None => Above::Nothing,
            },
            start_unix_ns: clock.unix_ns(self.place.start_ns.min(end_ns)),
            end_unix_ns: clock.unix_ns(end_ns),
            actor: self.actor.clone(),
            body: SpanBody::Process(ProcessSpan { parent_tgid: self.parent_tgid, exit_code }),
        }
    }
}

/// All of them, by process id, bounded.
#[derive(Debug)]
pub(super) struct Processes {
    live: Table<Process>,
    /// Those that ended before their files.
    leaving: Table<Process>,
    /// What a process without an observed parent becomes part of.
    root: Option<(TraceId, Option<SpanId>)>,
}

impl Processes {
    pub(super) fn new(capacity: usize, root: Option<(TraceId, Option<SpanId>)>) -> Self {
        Self { live: Table::new(capacity), leaving: Table::new(capacity), root }
    }

    /// A process that does something: known, or seen for the first time.
    pub(super) fn seen(&mut self, actor: &Actor, start_ns: u64, ids: &mut Ids) -> (Place, Displaced<Process>) {
        if let Some(process) = self.live.get_mut(actor.tgid.into()) {
            if process.started == Started::Before {
                process.place.start_ns = process.place.start_ns.min(start_ns);
            }
            if process.actor.uid == u32::MAX {
                process.actor.uid = actor.uid;
            }
            return (process.place, Displaced::Nothing);
        }
        // Told after its exit.
        if let Some(process) = self.leaving.get(actor.tgid.into()) {
            return (process.place, Displaced::Nothing);
        }
        let first_sight = Actor { tid: actor.tgid, ..actor.clone() };
        self.add(first_sight, 0, start_ns, Started::Before, ids)
    }

    /// A new process. One that lives under its number has ended unseen.
    pub(super) fn fork(&mut self, raw: &ProcessRecord, ids: &mut Ids) -> Displaced<Process> {
        self.add(actor_of(raw), raw.parent_tgid, raw.time_ns, Started::Told, ids).1
    }

    pub(super) fn exec(&mut self, raw: &ProcessRecord, ids: &mut Ids) -> Displaced<Process> {
        if let Some(process) = self.live.get_mut(raw.tgid.into()) {
            process.actor.comm = raw.comm;
            process.actor.uid = raw.uid;
            process.actor.cgroup = raw.cgroup;
            return Displaced::Nothing;
        }
        self.add(actor_of(raw), raw.parent_tgid, raw.time_ns, Started::Before, ids).1
    }

    /// A process ends; what can be told of it now, be it another that left under the same number or for want of room.
    pub(super) fn exit(&mut self, raw: &ProcessRecord) -> Option<Process> {
        let mut process = self.live.remove(raw.tgid.into())?;
        process.exit = Some(Exit { code: raw.exit_code, exited_ns: raw.time_ns, end_ns: raw.time_ns });
        if process.open_files == 0 {
            return Some(process);
        }
        match self.leaving.insert(raw.tgid.into(), process) {
            Displaced::Nothing => None,
            Displaced::Same(other) | Displaced::Oldest(other) => Some(other),
        }
    }

    /// A process, known by its number and its span, opened a file.
    pub(super) fn file_opened(&mut self, tgid: u32, span: SpanId) {
        if let Some(process) = self.owner(tgid, span) {
            process.open_files += 1;
        }
    }

    /// A file of a process has ended; the process itself when it was only waiting for this.
    pub(super) fn file_ended(&mut self, tgid: u32, span: SpanId, end_ns: u64) -> Option<Process> {
        let process = self.owner(tgid, span)?;
        process.open_files = process.open_files.saturating_sub(1);
        let exit = process.exit.as_mut()?;
        exit.end_ns = exit.end_ns.max(end_ns);
        if process.open_files == 0 { self.leaving.remove(tgid.into()) } else { None }
    }

    fn owner(&mut self, tgid: u32, span: SpanId) -> Option<&mut Process> {
        let tables = [&mut self.live, &mut self.leaving];
        tables.into_iter().filter_map(|table| table.get_mut(tgid.into())).find(|process| process.place.span == span)
    }

    /// A process that has waited long enough for its files.
    pub(super) fn pop_overdue(&mut self, now_ns: u64) -> Option<Process> {
        let oldest = self.leaving.oldest()?.exit?;
        if now_ns.saturating_sub(oldest.exited_ns) < PATIENCE_NS { None } else { self.leaving.pop_oldest() }
    }

    /// Whoever is left.
    pub(super) fn pop_oldest(&mut self) -> Option<Process> {
        self.leaving.pop_oldest().or_else(|| self.live.pop_oldest())
    }

    fn add(
        &mut self,
        actor: Actor,
        parent_tgid: u32,
        start_ns: u64,
        started: Started,
        ids: &mut Ids,
    ) -> (Place, Displaced<Process>) {
        let observed = self.live.get(parent_tgid.into()).filter(|_| parent_tgid != actor.tgid);
        let parent_start_ns = observed.map(|parent| parent.place.start_ns);
        let (trace, parent) = match observed {
            Some(parent) => (parent.place.trace, Some(parent.place.span)),
            None => self.root.unwrap_or_else(|| (ids.trace(), None)),
        };
        let place = Place { trace, span: ids.span(), start_ns };
        let key = actor.tgid.into();
        let process =
            Process { place, parent, parent_start_ns, parent_tgid, actor, started, open_files: 0, exit: None };
        (place, self.live.insert(key, process))
    }
}

fn actor_of(raw: &ProcessRecord) -> Actor {
    Actor { tgid: raw.tgid, tid: raw.tgid, uid: raw.uid, comm: raw.comm, cgroup: raw.cgroup }
}
