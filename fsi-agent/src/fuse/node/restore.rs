//! The nodes of a state, as a server finds them that takes over from one that was killed between any two steps.

use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::file::Budget;
use super::{IoMode, Node, Nodes, ROOT, STATX, opens_handles};
use crate::fuse::sharded::Sharded;
use crate::fuse::state::{FreeSlots, NodeRecord, Slot, State, Word};

impl Nodes {
    /// The nodes of a state.
    pub(in crate::fuse) fn restore(state: Arc<State>, source: OwnedFd) -> Result<Self, Errno> {
        let anywhere = opens_handles(&source);
        let mut free = FreeSlots::new(state.nodes().len());
        let map = Sharded::new();
        let mut useless = Vec::new();
        state.finish_move();
        let end = state.word(Word::NodesEnd).load(Ordering::Acquire);
        for (slot, words) in state.nodes().below(end) {
            let record = NodeRecord(words);
            let is_used = record.number() != 0;
            free.next_is(is_used);
            if is_used {
                useless.extend(take_over(&map, slot, record, &state));
            }
        }
        let nodes = Self { state, source, anywhere, budget: Budget::of_process(), free, moving: Mutex::default(), map };
        useless.into_iter().for_each(|slot| nodes.release(slot));
        if nodes.map.get(ROOT).is_none() {
            let file = rustix::io::fcntl_dupfd_cloexec(&nodes.source, 0)?;
            let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, STATX)?;
            nodes.insert(ROOT, file, ROOT, b"", &stat)?;
        }
        Ok(nodes)
    }

    /// Takes a descriptor over that the keeper held; whether its node is open and has no name, so that the keeper must go on.
    pub(in crate::fuse) fn take_held(&self, number: u64, file: OwnedFd) -> bool {
        let Some(node) = self.map.get(number) else { return false };
        // A second descriptor for the same object is no better than the first.
        node.file.get_or_init(|| self.budget.always(file));
        node.io().is_open() && self.record(&node).is_nameless()
    }

    /// Has every number of a backing file unregistered that nobody has open.
    pub(in crate::fuse) fn drop_idle_backings(&self, unregister: impl Fn(u32)) {
        for node in self.map.values() {
            let mut io = node.io();
            if io.passthrough == 0 {
                self.drop_backing(&node, &mut io, &unregister);
            }
        }
    }
}

/// Adds a node; a slot that turns out to be of no use. Of two with one number, the one that was to replace the other has the lookups
/// of both.
fn take_over(map: &Sharded<Arc<Node>>, slot: Slot, record: NodeRecord<'_>, state: &State) -> Option<Slot> {
    let number = record.number();
    let lookups = record.lookups().load(Ordering::Acquire);
    if lookups == 0 {
        return Some(slot);
    }
    let io = IoMode { backing: record.backing(), ..IoMode::default() };
    let node = Arc::new(Node { number, slot, file: OnceLock::new(), io: Mutex::new(io) });
    match map.lock(number).entry(number) {
        Entry::Vacant(vacant) => {
            vacant.insert(node);
            None
        }
        Entry::Occupied(mut other) => {
            let theirs = NodeRecord(state.nodes().slot(other.get().slot)).lookups().load(Ordering::Acquire);
            if theirs > lookups { Some(slot) } else { Some(other.insert(node).slot) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    pub(super) fn source(directory: &std::path::Path) -> OwnedFd {
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn write(state: &State, slot: u32, number: u64, lookups: u64) {
        let record = NodeRecord(state.nodes().slot(Slot(slot)));
        record.lookups().store(lookups, Ordering::Release);
        state.word(Word::NodesEnd).fetch_max(u64::from(slot) + 1, Ordering::AcqRel);
        state.nodes().publish(Slot(slot), number);
    }

    #[test]
    fn what_was_half_done_is_done_or_was_not_begun() {
        let directory = tempfile::tempdir().unwrap();
        let file = State::create().unwrap();
        let state = State::open(file.as_fd()).unwrap();
        // Not published, forgotten, and replaced by another with all lookups; the last number is one of a real file.
        for (slot, number, lookups) in
            [(0, 0, 3), (1, 50, 0), (2, 60, 2), (3, 60, 3), (4, 70, 6), (5, 70, 5), (6, u64::MAX, 1)]
        {
            write(&state, slot, number, lookups);
        }
        let nodes = Nodes::restore(Arc::clone(&state), source(directory.path())).unwrap();
        let lookups = |number| nodes.record(&nodes.get(number).unwrap()).lookups().load(Ordering::Acquire);
        assert_eq!((lookups(60), lookups(70), lookups(u64::MAX)), (3, 6, 1));
        assert!(nodes.get(50).is_err());
        let mut used: Vec<_> = state.nodes().used(16).map(|(slot, _)| slot.0).collect();
        used.sort_unstable();
        // The root took the first that was free.
        assert_eq!(used, [0, 3, 4, 6]);
        assert_eq!(nodes.len(), 4);
    }
}
