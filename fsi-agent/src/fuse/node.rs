//! What the kernel knows by number: the objects it looked up and has not forgotten.
//!
//! A node's number is the inode number of its object (1 for the root, as FUSE wants it). While a node lives, a descriptor or a
//! name-independent handle keeps leading to that object, whatever it is called by now.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::sharded::Sharded;
use super::state::{NodeRecord, Slot, State, Word};
use crate::sys::handle::{self, Handle};

/// The root's number.
pub(super) const ROOT: u64 = 1;

/// One object.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u64,
    slot: Slot,
    /// `O_PATH`; empty after a change of servers until it is needed.
    file: OnceLock<OwnedFd>,
    io: Mutex<IoMode>,
}

/// How the object is open: the kernel wants all descriptors of an inode to agree.
#[derive(Debug, Default)]
pub(super) struct IoMode {
    /// The number under which the kernel reads and writes it.
    pub(super) backing: Option<u32>,
    /// Descriptors that use that number.
    pub(super) passthrough: u32,
    /// Descriptors whose reads and writes come to us, without that number.
    pub(super) direct: u32,
}

impl Node {
    pub(super) fn io(&self) -> MutexGuard<'_, IoMode> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All nodes of a mount.
#[derive(Debug)]
pub(super) struct Nodes {
    state: Arc<State>,
    source: OwnedFd,
    map: Sharded<Arc<Node>>,
}

/// What statx must tell for an answer.
pub(super) const STATX: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl Nodes {
    /// The nodes of a state; `held` are descriptors of objects without a name.
    pub(super) fn new(state: Arc<State>, source: OwnedFd, held: Vec<(u64, OwnedFd)>) -> Result<Self, Errno> {
        let nodes = Self { state, source, map: Sharded::new() };
        let end = nodes.state.word(Word::NodesEnd).load(Ordering::Acquire);
        for (slot, words) in nodes.state.nodes().used(end) {
            let record = NodeRecord(words);
            let number = record.number();
            let (backing, open) = record.backing();
            let io = IoMode { backing: (backing != 0).then_some(backing), passthrough: open, direct: 0 };
            let node = Node { number, slot, file: OnceLock::new(), io: Mutex::new(io) };
            nodes.map.lock(number).insert(number, Arc::new(node));
        }
        for (number, file) in held {
            if let Some(node) = nodes.map.get(number) {
                // A second descriptor for the same object is no better than the first.
                drop(node.file.set(file));
            }
        }
        if nodes.map.get(ROOT).is_none() {
            let file = rustix::io::fcntl_dupfd_cloexec(&nodes.source, 0)?;
            let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, STATX)?;
            nodes.insert(ROOT, file, ROOT, b"", &stat)?;
        }
        Ok(nodes)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn record(&self, node: &Node) -> NodeRecord<'_> {
        NodeRecord(self.state.nodes().slot(node.slot))
    }

    /// The node of that number.
    pub(super) fn get(&self, number: u64) -> Result<Arc<Node>, Errno> {
        self.map.get(number).ok_or(Errno::STALE)
    }

    /// A descriptor for the object (`O_PATH`).
    pub(super) fn file<'n>(&self, node: &'n Node) -> Result<BorrowedFd<'n>, Errno> {
        if let Some(file) = node.file.get() {
            return Ok(file.as_fd());
        }
        let file = self.find(node)?;
        // Another thread may have been faster; then its descriptor stays.
        Ok(node.file.get_or_init(|| file).as_fd())
    }

    /// Finds the object again after a change of servers: by its handle, or by its name where the file system has no handles.
    fn find(&self, node: &Node) -> Result<OwnedFd, Errno> {
        let record = self.record(node);
        let (kind, bytes) = record.handle();
        if !bytes.is_empty() {
            let handle = Handle { kind: kind.cast_signed(), bytes };
            let anywhere = rustix::fs::openat(&self.source, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            return handle::open(anywhere.as_fd(), &handle).map_err(|error| errno_of(&error));
        }
        if node.number == ROOT {
            return rustix::io::fcntl_dupfd_cloexec(&self.source, 0);
        }
        let parent = self.get(record.parent())?;
        let file = open_child(self.file(&parent)?, &record.name())?;
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
        if stat.stx_ino == node.number { Ok(file) } else { Err(Errno::STALE) }
    }

    /// Looks a name up and counts the lookup. The count is there before the kernel can forget it.
    pub(super) fn look_up(&self, parent: &Node, name: &[u8]) -> Result<(Arc<Node>, Statx), Errno> {
        let directory = self.file(parent)?;
        let stat = rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, STATX)?;
        if let Some(node) = self.known(&stat) {
            self.record(&node).set_place(parent.number, name);
            return Ok((node, stat));
        }
        let file = open_child(directory, name)?;
        // Between the two calls the name may have come to mean something else.
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, STATX)?;
        if let Some(node) = self.known(&stat) {
            return Ok((node, stat));
        }
        let node = self.insert(number_of(&stat), file, parent.number, name, &stat)?;
        Ok((node, stat))
    }

    /// A node that is known already, counted once more. Its descriptor is open, so its number cannot have been given to another.
    fn known(&self, stat: &Statx) -> Option<Arc<Node>> {
        let number = number_of(stat);
        let part = self.map.lock(number);
        let node = part.get(&number)?;
        if node.file.get().is_none() && self.file(node).is_err() {
            return None;
        }
        self.record(node).lookups().fetch_add(1, Ordering::AcqRel);
        Some(Arc::clone(node))
    }

    /// Adds a node with one lookup.
    fn insert(&self, number: u64, file: OwnedFd, parent: u64, name: &[u8], stat: &Statx) -> Result<Arc<Node>, Errno> {
        let mut part = self.map.lock(number);
        let before = match part.get(&number) {
            // Another thread was faster.
            Some(node) if node.file.get().is_some() => {
                self.record(node).lookups().fetch_add(1, Ordering::AcqRel);
                return Ok(Arc::clone(node));
            }
            // A node of an earlier server whose object is gone: its number is used again, its lookups are still to be forgotten.
            Some(node) => {
                let count = self.record(node).lookups().load(Ordering::Acquire);
                self.state.nodes().release(node.slot);
                count
            }
            None => 0,
        };
        // A slot near where the number points: neighbours come and go together.
        let slot = self.state.nodes().claim(self.next_slot(), number).ok_or(Errno::NFILE)?;
        self.state.word(Word::NodesEnd).fetch_max(u64::from(slot.0) + 1, Ordering::AcqRel);
        let record = NodeRecord(self.state.nodes().slot(slot));
        record.lookups().store(before + 1, Ordering::Release);
        record.set_backing(0, 0);
        record.set_place(parent, name);
        match handle::of(file.as_fd()) {
            Ok(handle) => {
                record.set_handle(handle.kind.cast_unsigned(), &handle.bytes);
                record.set_generation_mode(generation(&handle.bytes), u32::from(stat.stx_mode));
            }
            Err(_no_handles) => {
                record.set_handle(0, &[]);
                record.set_generation_mode(0, u32::from(stat.stx_mode));
            }
        }
        let node = Arc::new(Node { number, slot, file: OnceLock::from(file), io: Mutex::default() });
        part.insert(number, Arc::clone(&node));
        Ok(node)
    }

    /// Where to look for a free slot.
    fn next_slot(&self) -> u32 {
        let words = self.state.word(Word::NextNode);
        u32::try_from(words.fetch_add(1, Ordering::Relaxed) % super::state::MAX_NODES as u64).unwrap_or(0)
    }

    /// The kernel forgets `count` lookups; a node without lookups goes.
    pub(super) fn forget(&self, number: u64, count: u64) {
        if number == ROOT {
            return;
        }
        let mut part = self.map.lock(number);
        let Some(node) = part.get(&number) else { return };
        let record = self.record(node);
        let lookups = record.lookups();
        let left = lookups.load(Ordering::Acquire).saturating_sub(count);
        lookups.store(left, Ordering::Release);
        if left == 0
            && let Some(node) = part.remove(&number)
        {
            self.state.nodes().release(node.slot);
        }
    }

    /// Path from the mount's root, as the node was last seen; empty for the root.
    pub(super) fn path(&self, number: u64) -> Vec<u8> {
        let mut names = Vec::new();
        let mut number = number;
        // Deeper than any path of the kernel; a torn record must not make us walk in circles.
        for _ in 0..MAX_DEPTH {
            if number == ROOT {
                break;
            }
            let Some(node) = self.map.get(number) else { break };
            let record = self.record(&node);
            names.push(record.name());
            number = record.parent();
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Path of a name in a directory.
    pub(super) fn child_path(&self, parent: u64, name: &[u8]) -> Vec<u8> {
        let mut path = self.path(parent);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// After a rename: where it is seen now.
    pub(super) fn moved(&self, number: u64, parent: u64, name: &[u8]) {
        if let Some(node) = self.map.get(number) {
            self.record(&node).set_place(parent, name);
        }
    }
}

const MAX_DEPTH: usize = 4096;

/// An object's number for the kernel. A file that has the root's number gets one that no file system gives.
pub(super) const fn number_of(stat: &Statx) -> u64 {
    if stat.stx_ino == ROOT { u64::MAX } else { stat.stx_ino }
}

/// Tells objects apart that had the same number one after the other. FNV-1a, 32 bits.
fn generation(handle: &[u8]) -> u32 {
    handle.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Opens a name without following it and without leaving the directory.
fn open_child(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_XDEV)
}

/// The errno of an error of the standard library.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
