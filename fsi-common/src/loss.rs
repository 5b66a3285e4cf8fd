//! What the kernel side counts about itself: events asked for and sent, and every way an operation or a record is lost.

/// Index into the per-CPU array `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Counter {
    /// Operations counted (the sum of all aggregates plus `AggregateFull`).
    Seen = 0,
    /// Operation events that crossed to the agent.
    Sent = 1,
    /// Operations whose event nobody asked for (not slow, not failed, not sampled).
    SampledOut = 2,
    /// Operation events lost: the ring was full.
    RingOperation = 3,
    /// Path records lost: the ring was full; the path is resolved again on its next use.
    RingPath = 4,
    /// Records that announce or close an open file lost: the ring was full.
    RingFile = 5,
    /// Records of process start, exec or exit lost: the ring was full.
    RingProcess = 6,
    /// Operations missing from the metrics: the aggregate map was full.
    AggregateFull = 7,
    /// Files that could not be followed: the table of open files was full.
    FilesFull = 8,
    /// System calls not seen: no task storage could be had.
    TaskStorage = 9,
    /// Requests handed to io_uring, whose inside is not seen.
    IoUring = 10,
    /// Requests handed to io_submit, whose inside is not seen.
    Aio = 11,
    /// File system calls of 32-bit processes, which have another call table.
    Compat32 = 12,
    /// Calls of msync whose mapping could not be looked up: another thread was changing the address space.
    MappingBusy = 13,
    /// Records of requests to mounts of ours lost: the ring was full.
    RingRequest = 14,
    /// Requests to mounts of ours that operations sent.
    RequestsOfOperations = 15,
    /// Requests to mounts of ours that belong to no operation that is looked at: readahead, writeback, forget, other processes.
    RequestsOfNone = 16,
    /// Records of new cgroups lost: the ring was full.
    RingCgroup = 17,
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = 18;

    /// Every counter.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Seen,
        Self::Sent,
        Self::SampledOut,
        Self::RingOperation,
        Self::RingPath,
        Self::RingFile,
        Self::RingProcess,
        Self::AggregateFull,
        Self::FilesFull,
        Self::TaskStorage,
        Self::IoUring,
        Self::Aio,
        Self::Compat32,
        Self::MappingBusy,
        Self::RingRequest,
        Self::RequestsOfOperations,
        Self::RequestsOfNone,
        Self::RingCgroup,
    ];

    /// `(stage, reason)` of `fsi_lost_total`, or nothing where the counter is no loss.
    #[must_use]
    pub const fn loss(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Seen | Self::Sent | Self::SampledOut | Self::RequestsOfOperations | Self::RequestsOfNone => None,
            Self::RingOperation => Some(("ring", "operation")),
            Self::RingPath => Some(("ring", "path")),
            Self::RingFile => Some(("ring", "file")),
            Self::RingProcess => Some(("ring", "process")),
            Self::RingRequest => Some(("ring", "request")),
            Self::RingCgroup => Some(("ring", "cgroup")),
            Self::AggregateFull => Some(("probe", "aggregate_full")),
            Self::FilesFull => Some(("probe", "files_full")),
            Self::TaskStorage => Some(("probe", "task_storage")),
            Self::IoUring => Some(("probe", "io_uring")),
            Self::Aio => Some(("probe", "aio")),
            Self::Compat32 => Some(("probe", "compat32")),
            Self::MappingBusy => Some(("probe", "mapping_busy")),
        }
    }
}
