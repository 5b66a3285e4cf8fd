//! What crosses the ring: one record per operation somebody asked for, per open file, per path, per process event.
//!
//! Every record opens with a [`RecordHeader`]; `len` is the length of the whole record with its names. The ring keeps the
//! order of sending: a path comes before the records that name it, a file before its operations.

/// Kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RecordKind {
    /// [`OpRecord`]
    Operation = 1,
    /// [`PathRecord`]
    Path = 2,
    /// [`FileRecord`]
    File = 3,
    /// [`CloseRecord`]
    Close = 4,
    /// [`ProcessRecord`]
    Process = 5,
    /// [`RequestRecord`]
    Request = 6,
    /// [`CgroupRecord`]
    Cgroup = 7,
}

/// Where a name comes from, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PathState {
    /// The operation has no such path.
    None = 0,
    /// As the process sees it, from its root.
    Resolved = 1,
    /// The object cannot be reached from the process's root (outside of it, or its mount is detached).
    Unreachable = 2,
    /// Longer than 4,096 bytes: of a resolved path only the end is here, of a name that a call gave only the beginning.
    TooLong = 3,
    /// The process gave an address that cannot be read.
    Fault = 4,
    /// The record with the path was lost: the ring was full.
    Lost = 5,
    /// The kernel changed under the walk; it will be tried again on the next use.
    Race = 6,
}

/// How an open file came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseKind {
    /// A system call closed the last descriptor (close, dup2, dup3).
    Closed = 1,
    /// The last process that had it open ended.
    Exit = 2,
    /// It ended unseen (closed at exec, unmapped, close_range, passed over a socket) and was found dead later.
    Unseen = 3,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ProcessEvent {
    /// A new process (not a thread); `comm` is its parent's until it executes.
    Fork = 1,
    /// It executes another program; `comm` is the new one.
    Exec = 2,
    /// Its last thread ended.
    Exit = 3,
}

/// Opens every record.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct RecordHeader {
    /// [`RecordKind`]
    pub kind: u16,
    /// For a [`CloseRecord`] the [`CloseKind`], for a [`ProcessRecord`] the [`ProcessEvent`], for a [`RequestRecord`] 0 or
    /// [`UNWANTED_REQUEST`], else 0.
    pub detail: u16,
    /// Bytes of the whole record, this header and the names behind it included.
    pub len: u32,
}

/// No offset: the operation has none.
pub const NO_OFFSET: i64 = i64::MIN;

/// One operation. Behind it stand `name1_len` bytes, then `name2_len` bytes: the paths as the process gave them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct OpRecord {
    pub header: RecordHeader,
    /// `CLOCK_MONOTONIC` when the system call began.
    pub start_ns: u64,
    pub duration_ns: u64,
    pub cgroup: u64,
    /// The open file it is about, announced by a [`FileRecord`]; 0: none, or it could not be followed.
    pub file_id: u64,
    /// The other open file (copy_file_range, sendfile, splice between files); 0: none.
    pub file2_id: u64,
    /// Inode number; 0 for operations on a path (open tells it through its file).
    pub ino: u64,
    /// [`NO_OFFSET`] or where in the file.
    pub offset: i64,
    /// Bytes asked for.
    pub asked: u64,
    /// What the system call returned: bytes, a descriptor, 0, or minus errno.
    pub ret: i64,
    /// Path id of the directory that `name1` is relative to; 0 when `name1` is absolute.
    pub dir1: u64,
    /// The same for `name2`.
    pub dir2: u64,
    pub tgid: u32,
    pub tid: u32,
    pub uid: u32,
    /// Device as the kernel has it (major << 20 | minor); 0 for operations on a path.
    pub dev: u32,
    pub comm: [u8; 16],
    /// [`crate::op::OpKind`]
    pub op: u16,
    /// 0 or the errno.
    pub errno: u16,
    /// `i_mode` of the file (type and permissions); 0 for operations on a path.
    pub mode: u16,
    /// [`PathState`] of the first path.
    pub path1: u8,
    /// [`PathState`] of the second path.
    pub path2: u8,
    /// open: the flags; else 0.
    pub open_flags: u32,
    /// Number of the system call.
    pub syscall: u32,
    pub name1_len: u16,
    pub name2_len: u16,
    /// The bits of [`crate::aggregate`]: created, read, written.
    pub flags: u16,
    /// 1: its policy asks for it (every, slow, failed, sampled); 0: it crosses because a mount of ours was asked.
    pub is_wanted: u16,
    /// How many requests it sent to mounts of ours, each announced by a [`RequestRecord`] with its start.
    pub requests: u32,
    pub reserved: u32,
}

/// Whether a mount reports on requests of this kind: not on those that only let go (`FUSE_FORGET`, `FUSE_RELEASE`, `FUSE_RELEASEDIR`,
/// `FUSE_BATCH_FORGET`) or are about the connection (`FUSE_INIT`, `FUSE_INTERRUPT`, `FUSE_DESTROY`).
#[must_use]
pub const fn is_reported(opcode: u32) -> bool {
    !matches!(opcode, 2 | 18 | 26 | 29 | 36 | 38 | 42)
}

/// The policy of who sent the request wants no events: nothing that the mount did for it is told.
pub const UNWANTED_REQUEST: u16 = 1;

/// A request that the kernel sends to a mount of ours, if the mount [reports](is_reported) on it. It comes before the record of the
/// operation it is part of.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct RequestRecord {
    pub header: RecordHeader,
    /// Start of the operation, which with the thread names it; 0: it belongs to no operation that may be told.
    pub start_ns: u64,
    /// The request's number within its connection.
    pub unique: u64,
    pub tid: u32,
    /// The connection's device, as the kernel has it.
    pub dev: u32,
}

/// A path, sent once per id. Behind it stand the bytes of the path. Ids are `sequence << 32 | slot`: a new path in a slot ends
/// the one before, so a receiver keeps one path per slot.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct PathRecord {
    pub header: RecordHeader,
    pub id: u64,
    /// [`PathState`]
    pub state: u32,
    /// Length of the path.
    pub path_len: u32,
}

/// A file that is open, sent before the first record that names its id.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct FileRecord {
    pub header: RecordHeader,
    pub file_id: u64,
    /// 0 when the path could not be had (see `path`).
    pub path_id: u64,
    /// Start of the open call; 0: it was open before we looked.
    pub opened_ns: u64,
    pub ino: u64,
    pub cgroup: u64,
    pub tgid: u32,
    pub tid: u32,
    pub dev: u32,
    pub open_flags: u32,
    pub mode: u16,
    /// [`PathState`]
    pub path: u16,
    pub reserved: u32,
    pub comm: [u8; 16],
}

/// The end of an open file, with exact totals over its whole life under observation.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct CloseRecord {
    pub header: RecordHeader,
    pub file_id: u64,
    /// When it was closed; for [`CloseKind::Unseen`] when it was found dead.
    pub closed_ns: u64,
    pub totals: FileTotals,
}

/// What was done through one open file, by whoever held it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct FileTotals {
    /// All operations, the open and the closes included.
    pub operations: u64,
    pub reads: u64,
    pub writes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub errors: u64,
    /// Sum of the durations.
    pub duration_ns: u64,
    /// Longest operation.
    pub max_ns: u64,
    /// End of the last operation.
    pub last_ns: u64,
}

/// An open file that is followed, as the map `FILES` holds it under the address of its `struct file`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct OpenFile {
    pub id: u64,
    /// Address of the inode: another one means that the `struct file` was used again.
    pub inode: u64,
    /// Address of the dentry, for the same reason.
    pub dentry: u64,
    /// 1: the agent knows it.
    pub announced: u32,
    /// Verdict of the path globs: 1 selected, 2 refused.
    pub verdict: u32,
    /// Start of its open; 0: before we looked.
    pub opened_ns: u64,
    pub totals: FileTotals,
}

impl FileTotals {
    /// Nothing yet.
    pub const ZERO: Self = Self {
        operations: 0,
        reads: 0,
        writes: 0,
        bytes_read: 0,
        bytes_written: 0,
        errors: 0,
        duration_ns: 0,
        max_ns: 0,
        last_ns: 0,
    };
}

/// Start, exec or end of a process.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct ProcessRecord {
    pub header: RecordHeader,
    pub time_ns: u64,
    pub cgroup: u64,
    pub tgid: u32,
    pub parent_tgid: u32,
    pub uid: u32,
    /// Exit: the wait status; else 0.
    pub exit_code: u32,
    pub comm: [u8; 16],
}

/// A cgroup was made, in the hierarchy whose ids are used. It comes before anything that is done in it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct CgroupRecord {
    pub header: RecordHeader,
    pub id: u64,
    /// The cgroup it was made in.
    pub parent: u64,
    /// Of its directory, up to the first 0.
    pub name: [u8; CGROUP_NAME],
}

/// The longest name of a directory, and its end.
pub const CGROUP_NAME: usize = 256;

/// Longest path or name behind a record.
pub const PATH_MAX: usize = 4096;

const _: () = {
    assert!(size_of::<RecordHeader>() == 8);
    assert!(size_of::<OpRecord>() == 160);
    assert!(size_of::<PathRecord>() == 24);
    assert!(size_of::<FileRecord>() == 88);
    assert!(size_of::<CloseRecord>() == 96);
    assert!(size_of::<ProcessRecord>() == 56);
    assert!(size_of::<RequestRecord>() == 32);
    assert!(size_of::<CgroupRecord>() == 280);
};
