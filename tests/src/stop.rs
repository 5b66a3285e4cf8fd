//! Threads that go on until they are told: also when the test that would tell them fails.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether to go on.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

/// Says stop when it goes.
#[derive(Debug)]
#[must_use = "it says stop when it is dropped"]
pub struct StopAtEnd<'a>(&'a Stop);

impl Stop {
    pub fn is_said(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Until what is returned goes, by a panic too.
    pub const fn at_end(&self) -> StopAtEnd<'_> {
        StopAtEnd(self)
    }
}

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
