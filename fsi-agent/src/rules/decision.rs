//! What a decision is made from, and what it says.

use std::sync::Arc;
use std::time::Duration;

use super::op::Op;

/// An operation as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub op: Op,
    /// From the mount's root, without a leading slash; empty for the root itself. For operations that make, remove or look up a
    /// name: the path of that name.
    pub path: &'a [u8],
    /// The other path (rename, link).
    pub target: Option<&'a [u8]>,
    /// Where the data begins; 0 for operations without data.
    pub offset: u64,
    /// How many bytes are asked for.
    pub len: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

/// What costs something to know, asked only when a rule needs it.
pub trait Facts {
    /// Size of the file now, in bytes.
    fn size(&self) -> Option<u64>;
    /// Command name (`comm`) of the caller.
    fn process(&self) -> Option<Vec<u8>>;
}

/// Counts that outlive a server: how often each thing came so far.
pub trait Counters: Send + Sync {
    /// Adds one and returns how many there were before.
    fn next(&self, key: u128) -> u64;
    /// Adds one unless it is `limit` already; whether it was added.
    fn below(&self, key: u128, limit: u64) -> bool;
}

/// What is done to an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The operation's ordinal among those of its kind on its path, from 0.
    pub ordinal: u64,
    /// Bit n: rule n fires. Enough to decide the same again.
    pub fired: u64,
    /// Sum of the delays of all rules that fire.
    pub delay: Duration,
    /// What happens to the operation itself.
    pub effect: Effect,
    /// Written bytes are lost at a power cut unless an fsync comes first.
    pub volatile: bool,
    /// One for each rule that fires and each kind.
    pub faults: Vec<Fault>,
}

/// What happens to the operation itself; the first rule that says something wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Effect {
    /// It is done as asked.
    #[default]
    Done,
    /// It is not done; the errno is the answer.
    Fail(i32),
    /// The connection ends.
    Abort,
    /// Only this many bytes are read or written, and the answer says so.
    Short(u64),
    /// Only this many bytes are written, and the answer says that all were.
    Torn(u64),
    /// Bytes are changed: of the answer of a read, of the data of a write.
    Corrupt(Corruption),
    /// fsync answers the errno, and what was not synced before is lost.
    FailFsync(i32),
    /// fsync answers that all is well, and nothing was made durable.
    LieFsync,
}

/// How bytes are changed; the same seed changes the same bytes the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct Corruption {
    pub how: Corrupt,
    pub seed: u64,
}

/// What becomes of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Corrupt {
    /// This many bits are flipped.
    BitFlip { bits: u32 },
    /// A run of at most this many bytes becomes zero.
    Zero { bytes: u64 },
    /// A run of at most this many bytes becomes random.
    Random { bytes: u64 },
    /// A run of at most this many bytes becomes this pattern, repeated.
    Pattern { bytes: u64, pattern: Vec<u8> },
}

/// What a fault is, in the log, in metrics and in span events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    Errno,
    Delay,
    Short,
    Torn,
    Corrupt,
    LoseUntilFsync,
    FailFsync,
    LieFsync,
    Abort,
    PowerCut,
    Capacity,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Errno,
        Self::Delay,
        Self::Short,
        Self::Torn,
        Self::Corrupt,
        Self::LoseUntilFsync,
        Self::FailFsync,
        Self::LieFsync,
        Self::Abort,
        Self::PowerCut,
        Self::Capacity,
    ];

    /// The public name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Errno => "errno",
            Self::Delay => "delay",
            Self::Short => "short",
            Self::Torn => "torn",
            Self::Corrupt => "corrupt",
            Self::LoseUntilFsync => "lose_until_fsync",
            Self::FailFsync => "fail_fsync",
            Self::LieFsync => "lie_fsync",
            Self::Abort => "abort",
            Self::PowerCut => "power_cut",
            Self::Capacity => "capacity",
        }
    }
}

/// One thing that one rule does to one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub rule: Arc<str>,
    pub kind: FaultKind,
    pub errno: Option<i32>,
    pub delay: Duration,
}

/// A fault that was injected, as the log has it.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultEntry {
    /// Counts up from 1 within a mount, over all its servers.
    pub sequence: u64,
    pub unix_ns: u64,
    pub fault: Fault,
    pub op: Op,
    /// From the mount's root.
    pub path: Arc<[u8]>,
    pub ordinal: u64,
    pub ino: u64,
    pub pid: u32,
    pub uid: u32,
    pub offset: u64,
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes that were done.
    pub done: u64,
    /// What makes the same fault again, in the words of [`Effect`].
    pub effect: Effect,
}
