//! What a throttle is made from: plain data, as rules or a device profile say it.

use std::time::Duration;

/// Whether a request moves bytes out of a file or into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Read,
    Write,
}

/// What shares one set of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every file has buckets of its own.
    File,
    /// All files of the mount share.
    Volume,
    /// All volumes of a pod share; who is in no pod and no container shares with the others of the mount who are in none.
    Pod,
}

/// What a request meets when the bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenEmpty {
    /// It waits for its turn.
    #[default]
    Wait,
    /// `EAGAIN` at once for a descriptor with `O_NONBLOCK`; others wait.
    Again,
}

/// One limit. `None` means not limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleSpec {
    pub scope: Scope,
    pub read_bytes_per_s: Option<u64>,
    pub write_bytes_per_s: Option<u64>,
    pub read_iops: Option<u64>,
    pub write_iops: Option<u64>,
    /// Reads and writes together, as devices count.
    pub total_bytes_per_s: Option<u64>,
    pub total_iops: Option<u64>,
    /// A request of more bytes than this counts as several operations.
    pub bytes_per_operation: Option<u64>,
    /// What may be saved up: the rate times this.
    pub burst: Duration,
    pub when_empty: WhenEmpty,
}

impl ThrottleSpec {
    /// Limits nothing yet.
    #[must_use]
    pub const fn unlimited(scope: Scope) -> Self {
        Self {
            scope,
            read_bytes_per_s: None,
            write_bytes_per_s: None,
            read_iops: None,
            write_iops: None,
            total_bytes_per_s: None,
            total_iops: None,
            bytes_per_operation: None,
            burst: Duration::ZERO,
            when_empty: WhenEmpty::Wait,
        }
    }
}
