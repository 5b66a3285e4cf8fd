//! One operation for each volume at a time. A second one is refused, not queued: the caller comes back.
//!
//! The guard goes with the work, also where nobody waits for the work any more, so that a late operation still keeps others away. A volume that
//! is copied is not worked on: copies take long, and pods come and go meanwhile. Only who would take it away is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::CallError;

/// What is done to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Work,
    /// It is made or deleted.
    Alone,
    /// It is copied, by so many as like.
    Copy,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<String, Right>,
    copies: HashMap<String, usize>,
}

/// Which volumes are being worked on.
#[derive(Clone, Debug, Default)]
pub struct Locks(Arc<Mutex<State>>);

impl Locks {
    /// The right to work on a volume, until what is returned goes.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn hold(&self, id: &str) -> Result<Guard, CallError> {
        self.take(id, Right::Work)
    }

    /// The same, to make it or to take it away: nobody copies it.
    ///
    /// # Errors
    /// When somebody else has it, or copies it.
    pub fn hold_alone(&self, id: &str) -> Result<Guard, CallError> {
        self.take(id, Right::Alone)
    }

    /// The right to copy a volume, whatever else is done to it: it stays.
    ///
    /// # Errors
    /// When it is being made or taken away.
    pub fn copy(&self, id: &str) -> Result<Guard, CallError> {
        self.take(id, Right::Copy)
    }

    fn take(&self, id: &str, right: Right) -> Result<Guard, CallError> {
        let mut state = self.state();
        let is_free = match right {
            Right::Work => !state.held.contains_key(id),
            Right::Alone => !state.held.contains_key(id) && !state.copies.contains_key(id),
            Right::Copy => state.held.get(id) != Some(&Right::Alone),
        };
        if !is_free {
            return Err(CallError::Busy(id.to_owned()));
        }
        match right {
            Right::Copy => *state.copies.entry(id.to_owned()).or_default() += 1,
            Right::Work | Right::Alone => drop(state.held.insert(id.to_owned(), right)),
        }
        drop(state);
        Ok(Guard { locks: self.clone(), id: id.to_owned(), right })
    }

    fn give_back(&self, id: &str, right: Right) {
        let mut state = self.state();
        if right != Right::Copy {
            state.held.remove(id);
        } else if let Some(copies) = state.copies.get_mut(id) {
            *copies -= 1;
            if *copies == 0 {
                state.copies.remove(id);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the right back when it is dropped.
#[derive(Debug)]
#[must_use = "the volume is free again when this is dropped"]
pub struct Guard {
    locks: Locks,
    id: String,
    right: Right,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.locks.give_back(&self.id, self.right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_busy(taken: &Result<Guard, CallError>) -> bool {
        matches!(taken, Err(CallError::Busy(id)) if id == "a")
    }

    #[test]
    fn one_at_a_time_for_each_volume() {
        let locks = Locks::default();
        let first = locks.hold("a").unwrap();
        assert!(is_busy(&locks.hold("a")));
        assert!(is_busy(&locks.hold_alone("a")));
        let other = locks.hold("b").unwrap();
        drop(first);
        drop(locks.hold("a").unwrap());
        drop(other);
    }

    #[test]
    fn a_volume_that_is_copied_is_used_and_not_deleted() {
        let locks = Locks::default();
        let (one, other) = (locks.copy("a").unwrap(), locks.copy("a").unwrap());
        let staged = locks.hold("a").unwrap();
        assert!(is_busy(&locks.hold("a")), "still one at a time");
        let third = locks.copy("a").unwrap();
        drop((staged, one, third));
        assert!(is_busy(&locks.hold_alone("a")), "somebody still copies it");
        drop(other);
        let deleted = locks.hold_alone("a").unwrap();
        assert!(is_busy(&locks.copy("a")));
        assert!(is_busy(&locks.hold("a")));
        drop(deleted);
        drop(locks.copy("a").unwrap());
    }
}
