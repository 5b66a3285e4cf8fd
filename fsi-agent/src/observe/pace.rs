//! How often things are done: the ring more often the fuller it was, the rest at fixed intervals.

use std::time::Duration;

use crate::clock::monotonic_ns;

const TICK: Duration = Duration::from_millis(100);
const SWEEP: Duration = Duration::from_millis(200);
const METRICS: Duration = Duration::from_secs(5);
const LIVENESS: Duration = Duration::from_millis(500);

/// Something that is done every so often.
#[derive(Debug)]
pub(crate) struct Every {
    interval: Duration,
    last_ns: u64,
}

impl Every {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, last_ns: monotonic_ns() }
    }

    pub(crate) fn is_due(&mut self, now_ns: u64) -> bool {
        let due = Duration::from_nanos(now_ns.saturating_sub(self.last_ns)) >= self.interval;
        if due {
            self.last_ns = now_ns;
        }
        due
    }
}

/// What a session does between two drains.
#[derive(Debug)]
pub(super) struct Chores {
    pub(super) tick: Every,
    pub(super) sweep: Every,
    pub(super) metrics: Every,
    pub(super) liveness: Every,
}

impl Chores {
    pub(super) fn new() -> Self {
        Self {
            tick: Every::new(TICK),
            sweep: Every::new(SWEEP),
            metrics: Every::new(METRICS),
            liveness: Every::new(LIVENESS),
        }
    }
}

/// How long to leave the ring alone: the fuller it was, the shorter. 8 MiB hold about 50,000 operations, 10 ms of the busiest
/// machine.
pub(crate) fn pause(records: usize) -> Duration {
    match records {
        4096.. => Duration::ZERO,
        256.. => Duration::from_millis(1),
        1.. => Duration::from_millis(2),
        0 => Duration::from_millis(4),
    }
}
