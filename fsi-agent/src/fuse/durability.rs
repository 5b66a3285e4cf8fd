//! What is lost unless it was synced: changes are written down before they are made, and taken back by a failed fsync or a power
//! cut.
//!
//! ```text
//! change: shared -> keep what was there -> change        sync, revert, power cut: alone
//! ```
//! Whoever changes a file holds `changing` until the change is made; whoever makes durable or takes back waits for all changes. So
//! nothing is called durable that was changed after the sync, and nothing is changed after it was taken back.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::undo::{Kept, Undo};

/// Old bytes that are kept; past them the file that was not synced for longest becomes durable.
const MAX_KEPT_BYTES: u64 = 256 << 20;

/// The changes since the last sync of each file.
#[derive(Debug)]
pub(super) struct Durability {
    undo: Mutex<Undo>,
    changing: RwLock<()>,
}

/// A change is being made.
#[derive(Debug)]
pub(super) struct Changing<'a> {
    _shared: RwLockReadGuard<'a, ()>,
    pub(super) kept: Kept,
}

/// What a power cut took back.
#[derive(Debug)]
pub(super) struct TakenBack {
    pub(super) nodes: Vec<u64>,
    pub(super) bytes: u64,
    /// The first file that could not be put back.
    pub(super) outcome: io::Result<()>,
}

impl Durability {
    /// Takes over what a server before left.
    pub(super) fn open(log: OwnedFd) -> io::Result<Self> {
        Ok(Self { undo: Mutex::new(Undo::open(log, MAX_KEPT_BYTES)?), changing: RwLock::default() })
    }

    fn undo(&self) -> MutexGuard<'_, Undo> {
        self.undo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before `len` bytes at `offset` change, or the size does: for a truncation, from the new size on, with a length of
    /// `u64::MAX`. `file` must be readable. Where too much is kept, `sync` makes another file durable.
    pub(super) fn keep(
        &self,
        node: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        sync: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<Changing<'_>> {
        let shared = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        let kept = self.undo().keep(node, file, offset, len, sync)?;
        Ok(Changing { _shared: shared, kept })
    }

    /// Makes a file durable with `sync`, alone.
    pub(super) fn sync<E>(&self, node: u64, sync: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let _alone = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        sync()?;
        self.is_durable(node);
        Ok(())
    }

    /// A file is durable, or gone.
    pub(super) fn is_durable(&self, node: u64) {
        if let Err(error) = self.undo().synced(node) {
            tracing::error!(%error, "a power cut may take back too much");
        }
    }

    /// A file becomes what it was at its last sync. `file` must be writable.
    pub(super) fn revert(&self, node: u64, file: BorrowedFd<'_>) -> io::Result<()> {
        let _alone = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        self.undo().revert(node, file)
    }

    /// Every file does; one that `open` has nothing for is gone. `cut` comes first, when nothing is being changed.
    pub(super) fn power_cut(&self, cut: impl FnOnce(), open: impl Fn(u64) -> Option<File>) -> TakenBack {
        let _alone = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        cut();
        let mut undo = self.undo();
        let (nodes, bytes) = (undo.nodes(), undo.unsynced_bytes());
        let outcome = undo.revert_all(open);
        TakenBack { nodes, bytes, outcome }
    }

    /// Everything is durable.
    pub(super) fn forget(&self) {
        let _alone = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        let nodes = self.undo().nodes();
        nodes.into_iter().for_each(|node| self.is_durable(node));
    }

    /// Bytes that a power cut would change.
    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.undo().unsynced_bytes()
    }
}
