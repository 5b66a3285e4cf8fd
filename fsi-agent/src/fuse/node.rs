//! What the kernel knows by number: the objects it looked up and has not forgotten.
//!
//! A node's number is the inode number of its object (1 for the root, as FUSE wants it). While a node lives, a descriptor or a
//! name-independent handle keeps leading to that object, whatever it is called by now. A number means the same object as before only
//! while a descriptor holds that object, or its handle is the same: inode numbers are used again.

mod file;
mod restore;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

pub(super) use self::file::NodeFile;
use self::file::{Budget, Keep, Kept};
use super::sharded::Sharded;
use super::state::{FreeSlots, NodeRecord, Slot, State, Word};
use crate::sys::handle::{self, Handle};

/// The root's number.
pub(super) const ROOT: u64 = 1;

/// One object.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u64,
    slot: Slot,
    /// `O_PATH`; empty after a change of servers until it is needed, and where there is no room for it.
    file: OnceLock<Kept>,
    io: Mutex<IoMode>,
}

/// How the object is open: the kernel wants all descriptors of an inode to agree. Counted anew from the open files by each server.
#[derive(Debug, Default)]
pub(super) struct IoMode {
    /// The number under which the kernel reads and writes it.
    pub(super) backing: Option<u32>,
    /// Descriptors that use that number.
    pub(super) passthrough: u32,
    /// Descriptors whose reads and writes come to us, without that number; those of a directory.
    pub(super) direct: u32,
}

impl IoMode {
    pub(super) const fn is_open(&self) -> bool {
        self.passthrough + self.direct > 0
    }
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
    /// Where objects are opened by handle; none where that does not work.
    anywhere: Option<OwnedFd>,
    budget: Arc<Budget>,
    free: FreeSlots,
    /// One change of a place at a time.
    moving: Mutex<()>,
    map: Sharded<Arc<Node>>,
}

/// What statx must tell for an answer.
pub(super) const STATX: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl Nodes {
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
    pub(super) fn file<'n>(&self, node: &'n Node) -> Result<NodeFile<'n>, Errno> {
        if let Some(file) = node.file.get() {
            return Ok(NodeFile::Kept(file.as_fd()));
        }
        let (file, keep) = self.find(node)?;
        Ok(match self.budget.keep(file, keep) {
            // Another thread may have been faster; then its descriptor stays.
            Ok(file) => NodeFile::Kept(node.file.get_or_init(|| file).as_fd()),
            Err(file) => NodeFile::Own(file),
        })
    }

    /// A descriptor that stays until the node is forgotten: for an object that is losing its name.
    pub(super) fn kept<'n>(&self, node: &'n Node) -> Result<BorrowedFd<'n>, Errno> {
        if node.file.get().is_none() {
            let (file, _) = self.find(node)?;
            node.file.get_or_init(|| self.budget.always(file));
        }
        node.file.get().map(|file| file.as_fd()).ok_or(Errno::STALE)
    }

    /// Finds the object again: by its handle, or by its name where the file system has no handles.
    fn find(&self, node: &Node) -> Result<(OwnedFd, Keep), Errno> {
        if node.number == ROOT {
            return Ok((rustix::io::fcntl_dupfd_cloexec(&self.source, 0)?, Keep::Always));
        }
        let (handle, parent, name) =
            self.with_record(node, |record| (handle_of(record), record.parent(), record.name()))?;
        if let Some(anywhere) = &self.anywhere
            && !handle.bytes.is_empty()
        {
            let file = handle::open(anywhere.as_fd(), &handle).map_err(|error| errno_of(&error))?;
            return Ok((file, Keep::IfRoom));
        }
        let parent = self.get(parent)?;
        let file = open_child(self.file(&parent)?.as_fd(), &name)?;
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
        if number_of(&stat) == node.number { Ok((file, Keep::Always)) } else { Err(Errno::STALE) }
    }

    /// Reads the record of a node that is not forgotten: a forgotten one's slot may be another's by now.
    fn with_record<T>(&self, node: &Node, read: impl FnOnce(NodeRecord<'_>) -> T) -> Result<T, Errno> {
        let part = self.map.read(node.number);
        match part.get(&node.number) {
            Some(known) if std::ptr::eq(&raw const **known, node) => Ok(read(self.record(node))),
            Some(_) | None => Err(Errno::STALE),
        }
    }

    /// Looks a name up and counts the lookup. The count is there before the kernel can forget it.
    pub(super) fn look_up(&self, parent: &Node, name: &[u8]) -> Result<(Arc<Node>, Statx), Errno> {
        let directory = self.file(parent)?;
        let directory = directory.as_fd();
        let stat = rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, STATX)?;
        if let Some(node) = self.map.get(number_of(&stat))
            && (node.file.get().is_some() || self.has_handle(&node, || handle::of_name(directory, name)))
            && self.count(&node)
        {
            self.moved(node.number, parent.number, name);
            return Ok((node, stat));
        }
        let file = open_child(directory, name)?;
        // Between the two calls the name may have come to mean something else.
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, STATX)?;
        let node = self.insert(number_of(&stat), file, parent.number, name, &stat)?;
        self.moved(node.number, parent.number, name);
        Ok((node, stat))
    }

    /// Whether that is the node's handle. Where there are none, nothing is known.
    fn has_handle(&self, node: &Node, handle: impl FnOnce() -> std::io::Result<Handle>) -> bool {
        self.with_record(node, handle_of)
            .is_ok_and(|kept| !kept.bytes.is_empty() && handle().is_ok_and(|handle| handle == kept))
    }

    /// Counts a lookup, unless the node was forgotten meanwhile.
    fn count(&self, node: &Node) -> bool {
        self.with_record(node, |record| record.lookups().fetch_add(1, Ordering::AcqRel)).is_ok()
    }

    /// Counts a lookup of what a descriptor holds; adds its node if there is none.
    fn insert(&self, number: u64, file: OwnedFd, parent: u64, name: &[u8], stat: &Statx) -> Result<Arc<Node>, Errno> {
        let handle = self.anywhere.as_ref().and_then(|_| handle::of(file.as_fd()).ok());
        let mode = u32::from(stat.stx_mode);
        let mut part = self.map.lock(number);
        let replaced = match part.get(&number) {
            Some(node) if self.is_same(node, handle.as_ref(), mode) => {
                self.record(node).lookups().fetch_add(1, Ordering::AcqRel);
                self.offer(node, file, handle.is_some());
                return Ok(Arc::clone(node));
            }
            // A node whose object is gone: its number is used again, its lookups are still to be forgotten.
            Some(node) => Some((node.slot, self.record(node).lookups().load(Ordering::Acquire))),
            None => None,
        };
        let slot = self.free.take().ok_or(Errno::NFILE)?;
        self.state.word(Word::NodesEnd).fetch_max(u64::from(slot.0) + 1, Ordering::AcqRel);
        let record = NodeRecord(self.state.nodes().slot(slot));
        record.lookups().store(1 + replaced.map_or(0, |(_, lookups)| lookups), Ordering::Release);
        record.set_backing(None);
        record.set_place(parent, name);
        let (kind, bytes) = handle.as_ref().map_or((0, &[][..]), |handle| (handle.kind.cast_unsigned(), &handle.bytes));
        record.set_handle(kind, bytes);
        record.set_generation_mode(if bytes.is_empty() { 0 } else { generation(bytes) }, mode);
        self.state.nodes().publish(slot, number);
        let node = Arc::new(Node { number, slot, file: OnceLock::new(), io: Mutex::default() });
        self.offer(&node, file, handle.is_some() && number != ROOT);
        part.insert(number, Arc::clone(&node));
        if let Some((slot, _)) = replaced {
            self.release(slot);
        }
        Ok(node)
    }

    fn release(&self, slot: Slot) {
        self.state.nodes().release(slot);
        self.free.give_back(slot);
    }

    /// Whether an object with the node's number is the node's. Without handles the kind of file is all there is to compare.
    fn is_same(&self, node: &Node, handle: Option<&Handle>, mode: u32) -> bool {
        let record = self.record(node);
        let kept = handle_of(record);
        node.file.get().is_some()
            || match handle {
                Some(handle) => *handle == kept,
                None => kept.bytes.is_empty() && record.generation_mode().1 & S_IFMT == mode & S_IFMT,
            }
    }

    /// A descriptor that is open anyway is kept, if there is room or no handle.
    fn offer(&self, node: &Node, file: OwnedFd, has_handle: bool) {
        if node.file.get().is_none()
            && let Ok(file) = self.budget.keep(file, if has_handle { Keep::IfRoom } else { Keep::Always })
        {
            node.file.get_or_init(|| file);
        }
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
            self.release(node.slot);
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
            let Ok((name, parent)) = self.with_record(&node, |record| (record.name(), record.parent())) else { break };
            names.push(name);
            number = parent;
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

    /// The kernel may read and write an object under that number.
    pub(super) fn set_backing(&self, node: &Node, io: &mut IoMode, id: u32) {
        self.record(node).set_backing(Some(id));
        io.backing = Some(id);
    }

    /// It may no more. A server that is killed in between leaves a number that nobody uses; to take it back twice does no harm, as
    /// numbers count up.
    pub(super) fn drop_backing(&self, node: &Node, io: &mut IoMode, unregister: impl FnOnce(u32)) {
        if let Some(id) = io.backing.take() {
            unregister(id);
            self.record(node).set_backing(None);
        }
    }

    /// Where it is seen now. Mostly that is where it was.
    pub(super) fn moved(&self, number: u64, parent: u64, name: &[u8]) {
        let is_there = |node: &Arc<Node>| self.record(node).is_at(parent, name);
        if self.map.read(number).get(&number).is_none_or(is_there) {
            return;
        }
        let part = self.map.lock(number);
        if let Some(node) = part.get(&number) {
            let _alone = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
            self.state.move_node(node.slot, parent, name);
        }
    }
}

const MAX_DEPTH: usize = 4096;

/// The bits of a mode that tell the kind of file.
const S_IFMT: u32 = 0o170_000;

fn handle_of(record: NodeRecord<'_>) -> Handle {
    let (kind, bytes) = record.handle();
    Handle { kind: kind.cast_signed(), bytes }
}

/// A descriptor to open handles at, where the file system has handles and this process may open them.
fn opens_handles(source: &OwnedFd) -> Option<OwnedFd> {
    let anywhere = rustix::fs::openat(source, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let handle = handle::of(source.as_fd()).ok()?;
    handle::open(anywhere.as_fd(), &handle).ok()?;
    Some(anywhere)
}

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
