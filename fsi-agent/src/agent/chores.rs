//! How often the agent's busy thread does what.

use std::time::Duration;

use crate::observe::pace::Every;

/// What is done every so often.
#[derive(Debug)]
pub(super) struct Chores {
    pub(super) tick: Every,
    pub(super) sweep: Every,
    pub(super) policies: Every,
    pub(super) ended: Every,
    pub(super) condition: Every,
    pub(super) clock: Every,
}

impl Chores {
    pub(super) fn new() -> Self {
        Self {
            tick: Every::new(Duration::from_millis(100)),
            sweep: Every::new(Duration::from_secs(1)),
            policies: Every::new(Duration::from_millis(20)),
            ended: Every::new(Duration::from_secs(5)),
            condition: Every::new(Duration::from_millis(500)),
            clock: Every::new(Duration::from_secs(30)),
        }
    }
}
