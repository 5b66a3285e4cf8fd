//! What can be asked of a mount while it runs. The gRPC service and the tests speak to this, the file system implements it.

use std::fmt;
use std::path::PathBuf;

use crate::rules::decision::FaultEntry;

/// How a mount is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub source: PathBuf,
    pub target: PathBuf,
    /// `major:minor` of the mount.
    pub device: String,
    pub version: String,
    /// The rules in force, as they were given; empty when there are none.
    pub rules_text: String,
    pub paused: bool,
    /// Whether unconcerned files are read and written in the kernel.
    pub passthrough: bool,
    /// Servers started so far, the first included.
    pub servers: u64,
    pub server_pid: u32,
    pub keeper_pid: u32,
    /// Files and directories the kernel knows.
    pub nodes: u64,
    pub open_files: u64,
    pub open_passthrough: u64,
    /// Requests that wait for a delay or for tokens.
    pub waiting: u64,
    /// Requests that came to a server since the mount.
    pub requests: u64,
    pub faults_injected: u64,
    /// `(limit, used)` in bytes, where there is a capacity.
    pub capacity: Option<(u64, u64)>,
    /// Bytes that a power cut would lose now.
    pub unsynced_bytes: u64,
    /// Operations that were to wait and did not, because as many waited as can.
    pub undelayed: u64,
    /// Faults that this server could not write to the log file.
    pub unlogged: u64,
}

/// What a new set of rules met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOutcome {
    pub rules: u64,
    /// Files that are open in passthrough although a rule now concerns them: their reads and writes stay out of reach until they are
    /// opened again.
    pub out_of_reach: u64,
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerCut {
    pub files: u64,
    pub bytes: u64,
    /// Open files that answer EIO from now on.
    pub handles: u64,
}

/// A stretch of the fault log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPage {
    pub entries: Vec<FaultEntry>,
    /// Entries that were wanted and are no longer kept.
    pub forgotten: u64,
}

/// Why something could not be done; a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// What was given is wrong.
    Invalid(String),
    /// It cannot be now.
    Unavailable(String),
    /// It went wrong.
    Failed(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(sentence) | Self::Unavailable(sentence) | Self::Failed(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for ControlError {}

/// A mount under control. Calls may block for as long as a file system call does.
pub trait Controlled: Send + Sync {
    fn status(&self) -> Status;
    /// Puts these rules in force, all or nothing; the text is YAML, or the older JSON.
    ///
    /// # Errors
    /// When the text has a mistake; the rules before stay in force.
    fn set(&self, text: &str) -> Result<SetOutcome, ControlError>;
    /// No rule fires and nothing is throttled until `resume`, and nothing is counted; capacity and fakes stay.
    fn pause(&self);
    fn resume(&self);
    /// Takes all rules, throttles, capacity and fakes away.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn clear(&self) -> Result<(), ControlError>;
    /// The fault log after this sequence number.
    fn faults(&self, after: u64, limit: usize) -> FaultPage;
    /// Everything that was not synced is lost, as when the power goes.
    ///
    /// # Errors
    /// When the backing file system cannot be put back.
    fn power_cut(&self) -> Result<PowerCut, ControlError>;
    /// Another server takes over, from this binary or from the one the mount was started with.
    ///
    /// # Errors
    /// When that binary is no `fsi` that can take over.
    fn upgrade(&self, binary: Option<PathBuf>) -> Result<(), ControlError>;
}
