//! The processes under observation.

use fsi_common::record::ProcessRecord;

use super::ids::Ids;
use super::open_files::Place;
use super::table::{Displaced, Table};
use crate::clock::Clock;
use crate::span::{Actor, ProcessSpan, Span, SpanBody, SpanId, TraceId};

/// A process that lives.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) place: Place,
    parent: Option<SpanId>,
    parent_tgid: u32,
    pub(super) actor: Actor,
    start_ns: u64,
    /// Its start was told; else it began before our first sight.
    started: Started,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    Told,
    Before,
}

impl Process {
    pub(super) fn span(&self, end_ns: u64, exit_code: Option<u32>, clock: &Clock) -> Span {
        Span {
            trace: self.place.trace,
            id: self.place.span,
            parent: self.parent,
            start_unix_ns: clock.unix_ns(self.start_ns.min(end_ns)),
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
    /// What a process without an observed parent becomes part of.
    root: Option<(TraceId, Option<SpanId>)>,
}

impl Processes {
    pub(super) fn new(capacity: usize, root: Option<(TraceId, Option<SpanId>)>) -> Self {
        Self { live: Table::new(capacity), root }
    }

    /// A process that does something: known, or seen for the first time.
    pub(super) fn seen(&mut self, actor: &Actor, start_ns: u64, ids: &mut Ids) -> (Place, Displaced<Process>) {
        if let Some(process) = self.live.get_mut(actor.tgid.into()) {
            if process.started == Started::Before {
                process.start_ns = process.start_ns.min(start_ns);
            }
            if process.actor.uid == u32::MAX {
                process.actor.uid = actor.uid;
            }
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

    pub(super) fn exit(&mut self, raw: &ProcessRecord) -> Option<Process> {
        self.live.remove(raw.tgid.into())
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Process> {
        self.live.pop_oldest()
    }

    fn add(
        &mut self,
        actor: Actor,
        parent_tgid: u32,
        start_ns: u64,
        started: Started,
        ids: &mut Ids,
    ) -> (Place, Displaced<Process>) {
        let (trace, parent) = match self.live.get(parent_tgid.into()) {
            Some(parent) if parent_tgid != actor.tgid => (parent.place.trace, Some(parent.place.span)),
            Some(_) | None => self.root.unwrap_or_else(|| (ids.trace(), None)),
        };
        let place = Place { trace, span: ids.span() };
        let key = actor.tgid.into();
        let process = Process { place, parent, parent_tgid, actor, start_ns, started };
        (place, self.live.insert(key, process))
    }
}

fn actor_of(raw: &ProcessRecord) -> Actor {
    Actor { tgid: raw.tgid, tid: raw.tgid, uid: raw.uid, comm: raw.comm, cgroup: raw.cgroup }
}
