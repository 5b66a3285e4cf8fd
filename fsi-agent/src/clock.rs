//! The only reader of clocks: the kernel's records carry `CLOCK_MONOTONIC`, spans carry Unix time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Maps monotonic nanoseconds to Unix nanoseconds, with the offset measured once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    unix_minus_monotonic_ns: i128,
    measured_ns: u64,
}

fn nanoseconds(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// `CLOCK_MONOTONIC` now, as the kernel's records have it.
#[must_use]
pub fn monotonic_ns() -> u64 {
    u64::try_from(nanoseconds(ClockId::Monotonic)).unwrap_or(0)
}

impl Clock {
    /// Reads both clocks, the monotonic one twice around the other, and takes the closest of a few tries.
    #[must_use]
    pub fn measure() -> Self {
        let mut best = (i128::MAX, 0);
        for _ in 0..8 {
            let before = nanoseconds(ClockId::Monotonic);
            let unix = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Monotonic);
            if after - before < best.0 {
                best = (after - before, unix - (before + after) / 2);
            }
        }
        Self { unix_minus_monotonic_ns: best.1, measured_ns: monotonic_ns() }
    }

    /// When this was measured, monotonic.
    #[must_use]
    pub fn measured_ns(&self) -> u64 {
        self.measured_ns
    }

    /// Unix nanoseconds of a monotonic time.
    #[must_use]
    pub fn unix_ns(&self, monotonic_ns: u64) -> u64 {
        u64::try_from(i128::from(monotonic_ns) + self.unix_minus_monotonic_ns).unwrap_or(0)
    }

    /// Monotonic nanoseconds since `start_ns`.
    #[must_use]
    pub fn since(start_ns: u64) -> Duration {
        Duration::from_nanos(monotonic_ns().saturating_sub(start_ns))
    }
}
