//! What the maps hold between two programs.
#![expect(unsafe_code, reason = "zeros are written in a way that the compiler leaves alone")]

use fsi_common::glob::Positions;
use fsi_common::probe_config::NEAR_BYTES;
use fsi_common::record::{CloseRecord, FileRecord, FileTotals, OpRecord, OpenFile, PATH_MAX};

/// Sets a word to 0 by itself. Left alone the compiler gathers several into a call of memset, which here is a loop over bytes.
#[inline(always)]
pub(crate) fn zero(word: &mut u64) {
    // SAFETY: a word that is borrowed for writing.
    unsafe { core::ptr::write_volatile(word, 0) };
}

/// Copies totals word by word, for the same reason.
#[inline(always)]
pub(crate) fn copy_totals(from: *const FileTotals, to: *mut FileTotals) {
    const WORDS: usize = size_of::<FileTotals>() / 8;
    for word in 0..WORDS {
        // SAFETY: both are whole structures of u64, in maps.
        unsafe { core::ptr::write_volatile(to.cast::<u64>().add(word), *from.cast::<u64>().add(word)) };
    }
}

/// The task is looked at.
pub(crate) const SELECTED: u32 = 1;
/// What the task starts is looked at (the agent's thread while it starts the command).
pub(crate) const SELECTS_CHILDREN: u32 = 2;

/// A task: its marks and its call in flight.
#[repr(C)]
pub(crate) struct TaskState {
    pub(crate) marks: u32,
    /// Number of the call in flight plus one; 0: none.
    pub(crate) call: u32,
    /// The arguments, and two cells more so that any masked index is inside.
    pub(crate) args: [u64; 8],
    pub(crate) start_ns: u64,
    /// The file of the call, when it has one; 0: none.
    pub(crate) object: Object,
    /// Address of the second file; 0: none.
    pub(crate) file2: u64,
    /// READ and WRITTEN of the result.
    pub(crate) direction: u32,
    /// Last verdict on `comm`: 0 none yet, 1 selected, 2 refused.
    pub(crate) comm_verdict: u32,
    pub(crate) comm: [u64; 2],
    /// By which policy the call in flight is looked at.
    pub(crate) policy: u32,
    /// Requests that the call in flight sent to mounts of ours.
    pub(crate) requests: u32,
}

// The agent marks tasks by writing this much (`fsi_agent::probe`).
const _: () = assert!(size_of::<TaskState>() == 152);

/// An open file, or 0s.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Object {
    /// Address of the `struct file`.
    pub(crate) file: u64,
    /// Address of the inode.
    pub(crate) inode: u64,
    pub(crate) ino: u64,
    pub(crate) dev: u32,
    pub(crate) mode: u32,
}

impl Object {
    pub(crate) const NONE: Self = Self { file: 0, inode: 0, ino: 0, dev: 0, mode: 0 };
}

/// A path that the agent has, and what it was resolved from.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct PathSlot {
    /// 0: nothing here yet.
    pub(crate) id: u64,
    pub(crate) dentry: u64,
    pub(crate) mnt: u64,
    pub(crate) root_dentry: u64,
    pub(crate) root_mnt: u64,
    /// The dentry's parent and name hash, and its inode number: another object at the same address differs in one of them.
    pub(crate) parent: u64,
    pub(crate) hash_len: u64,
    pub(crate) ino: u64,
    /// [`crate::maps::GENERATION`] when it was resolved.
    pub(crate) generation: u64,
    /// [`fsi_common::record::PathState`]
    pub(crate) state: u32,
    /// Verdict of the path globs: 1 selected, 2 refused.
    pub(crate) verdict: u32,
}

/// Room in front of a path for the header of its record.
pub(crate) const HEADROOM: usize = 64;

/// A path walk under way.
#[repr(C)]
pub(crate) struct Walk {
    pub(crate) dentry: u64,
    pub(crate) mnt: u64,
    /// Root dentry of the mount it is in.
    pub(crate) mount_root: u64,
    pub(crate) root_dentry: u64,
    pub(crate) root_mnt: u64,
    /// Bytes of path so far.
    pub(crate) length: u64,
    /// [`fsi_common::record::PathState`]
    pub(crate) state: u64,
}

/// Globs running over the bytes of a path.
#[repr(C)]
pub(crate) struct GlobRun {
    pub(crate) positions: Positions,
    /// Index of the first byte in its buffer, and how many there are.
    pub(crate) at: u64,
    pub(crate) length: u64,
    /// A slash waits for what follows: the last one of a path says nothing.
    pub(crate) pending_slash: u32,
    /// A dot after a slash waits: `/./` says nothing.
    pub(crate) pending_dot: u32,
    /// Something was there.
    pub(crate) any: u32,
    /// The bytes are a name given by the process, not a walked path.
    pub(crate) in_names: u32,
}

/// The operation that is over and under report.
#[repr(C)]
pub(crate) struct Done {
    pub(crate) number: u64,
    /// [`fsi_common::syscall::Call`]
    pub(crate) call: u64,
    pub(crate) ret: i64,
    pub(crate) start_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) bytes: u64,
    pub(crate) cgroup: u64,
    pub(crate) object: Object,
    /// Ids of the announced files; 0: none.
    pub(crate) file_id: u64,
    pub(crate) file2_id: u64,
    /// Code of the operation.
    pub(crate) op: u32,
    pub(crate) errno: u32,
    /// Created, read, written.
    pub(crate) flags: u32,
    pub(crate) policy: u32,
    /// Requests sent to mounts of ours.
    pub(crate) requests: u32,
    /// 1: its policy asks for its event.
    pub(crate) is_wanted: u64,
    /// 1: the names below were read.
    pub(crate) has_names: u64,
    /// Lengths and states of the two names in `Scratch::names`.
    pub(crate) name1: u64,
    pub(crate) name2: u64,
    pub(crate) state1: u64,
    pub(crate) state2: u64,
    /// 1: its event is in the ring.
    pub(crate) was_sent: u64,
}

/// What [`fsi_common::probe_config::NEAR_BYTES`] are in words.
pub(crate) const NEAR_WORDS: usize = NEAR_BYTES as usize / 8;

/// Where records are put together; one per CPU.
#[repr(C)]
pub(crate) struct Scratch {
    /// First, so that its address is the scratch's: older verifiers allow no arithmetic before the check for null.
    pub(crate) done: Done,
    /// Sequence of path ids and of file ids of this CPU.
    pub(crate) path_sequence: u64,
    pub(crate) file_sequence: u64,
    /// Work of `path` and `filter`, here because the stack is short.
    pub(crate) wanted_path: PathSlot,
    pub(crate) walk: Walk,
    pub(crate) globs: GlobRun,
    /// Records on their way.
    pub(crate) file_record: FileRecord,
    pub(crate) close_record: CloseRecord,
    /// Id of the path that was resolved last.
    pub(crate) known_path: u64,
    /// The super block of named files that was seen last; most operations come to the same one.
    pub(crate) ordinary_sb: u64,
    /// The first fields of the structure that was read last.
    pub(crate) fields: [u64; NEAR_WORDS],
    /// A new open file before it goes into its map.
    pub(crate) open_file: OpenFile,
    /// The operation, and right behind it the names.
    pub(crate) record: OpRecord,
    pub(crate) names: [u8; 2 * PATH_MAX + 8],
    /// A path grows backwards from `HEADROOM + PATH_MAX`. The room behind is for the verifier, which knows the start and the
    /// length of a path each within PATH_MAX, not their sum.
    pub(crate) path: [u8; HEADROOM + 2 * PATH_MAX + 512],
}
