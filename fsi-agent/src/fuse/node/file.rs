//! Descriptors of nodes: as many are kept as a budget allows, the others are opened by handle each time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit};

/// A descriptor for a node's object (`O_PATH`). A path by its number holds as long as this does.
#[derive(Debug)]
pub(in crate::fuse) enum NodeFile<'n> {
    Kept(BorrowedFd<'n>),
    Own(OwnedFd),
}

impl AsFd for NodeFile<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kept(file) => file.as_fd(),
            Self::Own(file) => file.as_fd(),
        }
    }
}

/// Who gets to keep a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Its object can be opened again.
    IfRoom,
    /// Nothing else leads to its object.
    Always,
}

/// How many descriptors are kept for nodes; the rest of what a process may have is for open files.
#[derive(Debug)]
pub(super) struct Budget {
    most: u64,
    kept: AtomicU64,
}

/// A descriptor that is kept; counted until it is closed.
#[derive(Debug)]
pub(super) struct Kept {
    file: OwnedFd,
    budget: Arc<Budget>,
}

impl Budget {
    /// Half of what this process may have.
    pub(super) fn of_process() -> Arc<Self> {
        let most = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 2);
        Arc::new(Self { most, kept: AtomicU64::new(0) })
    }

    /// Keeps a descriptor, or gives it back where there is no room.
    pub(super) fn keep(self: &Arc<Self>, file: OwnedFd, how: Keep) -> Result<Kept, OwnedFd> {
        if how == Keep::IfRoom && self.kept.load(Ordering::Relaxed) >= self.most {
            Err(file)
        } else {
            Ok(self.always(file))
        }
    }

    /// Keeps a descriptor, over the budget if need be.
    pub(super) fn always(self: &Arc<Self>, file: OwnedFd) -> Kept {
        self.kept.fetch_add(1, Ordering::Relaxed);
        Kept { file, budget: Arc::clone(self) }
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.kept.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_kept_is_kept_over_the_budget() {
        let budget = Arc::new(Budget { most: 1, kept: AtomicU64::new(0) });
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let first = budget.keep(file(), Keep::IfRoom).unwrap();
        budget.keep(file(), Keep::IfRoom).unwrap_err();
        let second = budget.keep(file(), Keep::Always).unwrap();
        drop(first);
        budget.keep(file(), Keep::IfRoom).unwrap_err();
        drop(second);
        budget.keep(file(), Keep::IfRoom).unwrap();
    }
}
