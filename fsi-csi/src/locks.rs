//! One operation for each volume at a time. A second one is refused, not queued: the caller comes back.
//!
//! The guard goes with the work, also where nobody waits for the work any more, so that a late operation still keeps others away.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::CallError;

/// Which volumes are being worked on.
#[derive(Clone, Debug, Default)]
pub struct Locks(Arc<Mutex<HashSet<String>>>);

impl Locks {
    /// The right to work on a volume, until what is returned goes.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn hold(&self, id: &str) -> Result<Guard, CallError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.insert(id.to_owned()) {
            return Err(CallError::Busy(id.to_owned()));
        }
        drop(held);
        Ok(Guard { locks: self.clone(), id: id.to_owned() })
    }
}

/// Gives the right back when it is dropped.
#[derive(Debug)]
#[must_use = "the volume is free again when this is dropped"]
pub struct Guard {
    locks: Locks,
    id: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.locks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_for_each_volume() {
        let locks = Locks::default();
        let first = locks.hold("a").unwrap();
        assert!(matches!(locks.hold("a"), Err(CallError::Busy(id)) if id == "a"));
        let other = locks.hold("b").unwrap();
        drop(first);
        drop(locks.hold("a").unwrap());
        drop(other);
    }
}
