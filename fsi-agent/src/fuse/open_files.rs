//! Open files and directories, by the handle the kernel has for them: the number of their slot in the state, and in the upper half
//! how often that slot was used, so that a close that comes a second time closes nothing else.
//!
//! | word | holds |
//! |---|---|
//! | 0 | node number (0: free) |
//! | 1 | open flags; upper half: how it is open ([`Kind`]) |
//! | 2 | power cuts before it was opened |
//! | 3 | how often the slot was used |
//! | 4 | whose pod opened it, where a limit asked ([`super::pods`]) |

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::node::{IoMode, Node, Nodes};
use super::pods::{self, UNKNOWN};
use super::sharded::Sharded;
use super::state::{FreeSlots, Slot, State, Word};

/// How a file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// The kernel reads and writes the backing file.
    Passthrough = 1,
    /// Reads and writes come to us.
    Direct = 2,
    /// Reads and writes come to us, mappings go to the backing file: others have it open in passthrough.
    DirectBacked = 3,
    Directory = 4,
}

impl Kind {
    const fn of(word: u64) -> Self {
        match word >> 32 {
            1 => Self::Passthrough,
            3 => Self::DirectBacked,
            4 => Self::Directory,
            _ => Self::Direct,
        }
    }

    /// One more is open like this.
    pub(super) const fn opened(self, io: &mut IoMode) {
        match self {
            Self::Passthrough | Self::DirectBacked => io.passthrough += 1,
            Self::Direct | Self::Directory => io.direct += 1,
        }
    }

    /// One fewer.
    pub(super) const fn closed(self, io: &mut IoMode) {
        match self {
            Self::Passthrough | Self::DirectBacked => io.passthrough = io.passthrough.saturating_sub(1),
            Self::Direct | Self::Directory => io.direct = io.direct.saturating_sub(1),
        }
    }
}

/// One open file.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) handle: u64,
    pub(super) node: u64,
    pub(super) flags: OFlags,
    pub(super) kind: Kind,
    /// Power cuts before it was opened.
    pub(super) era: u64,
    pod: AtomicU64,
    file: OnceLock<OwnedFd>,
    reader: OnceLock<OwnedFd>,
}

impl Open {
    /// The descriptor on the backing file; opened when it is needed first.
    pub(super) fn file(&self, nodes: &Nodes) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(file) = self.file.get() {
            return Ok(file.as_fd());
        }
        let node = nodes.get(self.node)?;
        let file = reopen(nodes, &node, self.flags)?;
        Ok(self.file.get_or_init(|| file).as_fd())
    }

    /// One that can be read, also where the application may only write.
    pub(super) fn reader(&self, nodes: &Nodes) -> Result<BorrowedFd<'_>, Errno> {
        if !self.flags.contains(OFlags::WRONLY) {
            return self.file(nodes);
        }
        if let Some(reader) = self.reader.get() {
            return Ok(reader.as_fd());
        }
        let node = nodes.get(self.node)?;
        let reader = reopen(nodes, &node, OFlags::RDONLY)?;
        Ok(self.reader.get_or_init(|| reader).as_fd())
    }
}

/// Opens a node's object for reading or writing. What makes or empties files was done before, and the kernel does the appending.
/// `O_DIRECT` is between the application and the kernel: what comes here is not aligned, and what a rule leaves of it, or a mapping
/// writes back, has any length.
pub(super) fn reopen(nodes: &Nodes, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
    let once = OFlags::CREATE
        | OFlags::EXCL
        | OFlags::TRUNC
        | OFlags::APPEND
        | OFlags::DIRECT
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY
        | OFlags::PATH;
    let file = nodes.file(node)?;
    let path = object_path(file.as_fd());
    match rustix::fs::open(&path, (flags - once) | OFlags::CLOEXEC, Mode::empty()) {
        // A file that may only be appended to (`chattr +a`); where it ends is where the kernel has us write.
        Err(Errno::PERM) if flags.contains(OFlags::APPEND) => {
            rustix::fs::open(&path, (flags - once) | OFlags::APPEND | OFlags::CLOEXEC, Mode::empty())
        }
        opened => opened,
    }
}

/// A path that leads to what a descriptor stands for, whatever it is called, as long as the descriptor is open.
pub(super) fn object_path(file: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// All open files of a mount.
#[derive(Debug)]
pub(super) struct OpenFiles {
    state: Arc<State>,
    map: Sharded<Arc<Open>>,
    free: FreeSlots,
}

impl OpenFiles {
    /// The open files of a state.
    pub(super) fn restore(state: Arc<State>) -> Self {
        let map = Sharded::new();
        let mut free = FreeSlots::new(state.open_files().len());
        let end = state.word(Word::OpenEnd).load(Ordering::Acquire);
        for (slot, words) in state.open_files().below(end) {
            let node = words[0].load(Ordering::Acquire);
            free.next_is(node != 0);
            if node == 0 {
                continue;
            }
            let word = words[1].load(Ordering::Acquire);
            let handle = handle(slot, &words[SERIAL]);
            let open = Open {
                handle,
                node,
                flags: OFlags::from_bits_retain(u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)),
                kind: Kind::of(word),
                era: words[2].load(Ordering::Acquire),
                pod: AtomicU64::new(words[POD].load(Ordering::Acquire)),
                file: OnceLock::new(),
                reader: OnceLock::new(),
            };
            map.lock(handle).insert(handle, Arc::new(open));
        }
        Self { state, map, free }
    }

    /// Counts how each node is open.
    pub(super) fn count(&self, nodes: &Nodes) {
        for open in self.all() {
            if let Ok(node) = nodes.get(open.node) {
                open.kind.opened(&mut node.io());
            }
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Open>> {
        self.map.values()
    }

    pub(super) fn get(&self, handle: u64) -> Result<Arc<Open>, Errno> {
        self.map.get(handle).ok_or(Errno::BADF)
    }

    /// Adds an open file; without a descriptor it is opened when one is needed. `note` hears of its handle before it is open.
    pub(super) fn add(
        &self,
        node: u64,
        flags: OFlags,
        kind: Kind,
        file: Option<OwnedFd>,
        note: impl FnOnce(u64),
    ) -> Result<Arc<Open>, Errno> {
        let table = self.state.open_files();
        let slot = self.free.take().ok_or(Errno::NFILE)?;
        self.state.word(Word::OpenEnd).fetch_max(u64::from(slot.0) + 1, Ordering::AcqRel);
        let words = table.slot(slot);
        // A handle that was noted is not given again, whether it came to be open or not.
        words[SERIAL].store(words[SERIAL].load(Ordering::Acquire).wrapping_add(1), Ordering::Release);
        let handle = handle(slot, &words[SERIAL]);
        note(handle);
        let era = self.state.word(Word::Era).load(Ordering::Acquire);
        words[2].store(era, Ordering::Release);
        words[1].store(u64::from(flags.bits()) | (kind as u64) << 32, Ordering::Release);
        words[POD].store(UNKNOWN, Ordering::Release);
        table.publish(slot, node);
        let file = file.map_or_else(OnceLock::new, OnceLock::from);
        let open = Arc::new(Open {
            handle,
            node,
            flags,
            kind,
            era,
            pod: AtomicU64::new(UNKNOWN),
            file,
            reader: OnceLock::new(),
        });
        self.map.lock(handle).insert(handle, Arc::clone(&open));
        Ok(open)
    }

    /// The pod of who uses an open file: of the first who did, since the kernel writes pages back under nobody's name.
    pub(super) fn pod(&self, handle: u64, tid: u32) -> u64 {
        let Some(open) = self.map.get(handle) else { return pods::of_thread(tid) };
        let known = open.pod.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return known;
        }
        let pod = pods::of_thread(tid);
        open.pod.store(pod, Ordering::Relaxed);
        if let Ok(slot) = u32::try_from(handle & u64::from(u32::MAX)) {
            self.state.open_files().slot(Slot(slot))[POD].store(pod, Ordering::Relaxed);
        }
        pod
    }

    /// The kernel has no more use for it.
    pub(super) fn remove(&self, handle: u64) -> Option<Arc<Open>> {
        let open = self.map.lock(handle).remove(&handle)?;
        let slot = Slot(u32::try_from(handle & u64::from(u32::MAX)).ok()?);
        self.state.open_files().release(slot);
        self.free.give_back(slot);
        Some(open)
    }
}

/// The word that counts how often a slot was used.
const SERIAL: usize = 3;
/// That of the pod.
const POD: usize = 4;

fn handle(slot: Slot, serial: &AtomicU64) -> u64 {
    u64::from(slot.0) | serial.load(Ordering::Acquire) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(files: &OpenFiles, node: u64, note: impl FnOnce(u64)) -> u64 {
        files.add(node, OFlags::RDONLY, Kind::Passthrough, None, note).unwrap().handle
    }

    #[test]
    fn a_handle_is_given_once() {
        let file = State::create().unwrap();
        let first = OpenFiles::restore(State::open(file.as_fd()).unwrap());
        let held = open(&first, 7, |_| ());
        let closed = open(&first, 8, |_| ());
        assert!(first.remove(closed).is_some());
        let again = open(&first, 9, |_| ());
        assert_ne!(again, closed);
        assert!(first.remove(closed).is_none(), "a close that comes again");

        // The server is killed once the handle is noted, and then once it is open.
        let noted = |number| {
            let files = OpenFiles::restore(State::open(file.as_fd()).unwrap());
            let mut noted = 0;
            let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                open(&files, number, |handle| {
                    noted = handle;
                    panic!("killed");
                })
            }));
            assert!(killed.is_err());
            noted
        };
        let [one, other] = [10, 11].map(noted);
        let next = OpenFiles::restore(State::open(file.as_fd()).unwrap());
        let mut nodes: Vec<_> = next.all().iter().map(|open| open.node).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, [7, 9], "what was not open yet is not open");
        let newest = open(&next, 12, |_| ());
        assert!([one, other, closed, held, again].iter().all(|handle| *handle != newest));
        assert!(next.remove(one).is_none() && next.remove(held).is_some() && next.remove(again).is_some());
    }
}
