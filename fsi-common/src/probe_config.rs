//! What the agent tells the kernel side before it loads: the knobs, and where the running kernel keeps its fields.
//! Both become read-only data, so the verifier sees constants and drops the branches that are not taken.

/// Which tasks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Select {
    /// Those that are marked, and what they start.
    Marked = 0,
    /// Those in a cgroup that the map `CGROUPS` names, or below one.
    Cgroup = 1,
    /// All but the agent.
    All = 2,
    /// Those in a cgroup that the map `CGROUPS` names, or below one: the nearest says by which policy; never the agent.
    Policy = 3,
}

/// Every operation becomes an event.
pub const EVENTS_EVERY: u32 = 1;
/// Operations of at least `slower_ns` do.
pub const EVENTS_SLOW: u32 = 2;
/// Operations that failed do.
pub const EVENTS_FAILED: u32 = 4;
/// One in `sample_every` does.
pub const EVENTS_SAMPLED: u32 = 8;
/// Which do, the task's [`Policy`] says.
pub const EVENTS_BY_POLICY: u32 = 16;

/// Policies that there can be; a cgroup names one by its number. 0 stands for "not looked at".
pub const MAX_POLICIES: u32 = 1024;

/// Which operations of a cgroup become events; what is looked at is always counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Policy {
    /// Any of `EVENTS_*`; 0 for none, also where a mount of ours was asked.
    pub events: u32,
    pub sample_every: u32,
    pub slower_ns: u64,
}

/// Open files are followed; those of wanted events are announced.
pub const FOLLOW_WANTED: u32 = 1;
/// Open files are followed and all announced.
pub const FOLLOW_ALL: u32 = 2;

/// The knobs (`CONFIG`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProbeConfig {
    /// [`crate::ABI_VERSION`]
    pub abi_version: u32,
    /// [`Select`]
    pub select: u32,
    /// Any of `EVENTS_*`; 0 for none.
    pub events: u32,
    pub sample_every: u32,
    pub slower_ns: u64,
    /// A bit per operation code: those that are told of.
    pub operations: u64,
    /// 0: open files are not followed; [`FOLLOW_WANTED`], [`FOLLOW_ALL`].
    pub follow_files: u32,
    /// Process records are sent (0 or 1).
    pub follow_processes: u32,
    /// The automaton in `GLOBS[0]` decides on paths (0 or 1).
    pub path_filter: u32,
    /// The automaton in `GLOBS[1]` decides on command names (0 or 1).
    pub comm_filter: u32,
    /// Index of the cgroup v1 controller whose ids are used; [`CGROUP_V2`] for the unified hierarchy.
    pub cgroup_subsystem: u32,
    /// Kernel log of the probes through aya-log (0 or 1).
    pub debug: u32,
}

impl ProbeConfig {
    /// Before the agent has set it.
    pub const UNSET: Self = Self {
        abi_version: 0,
        select: 0,
        events: 0,
        sample_every: 0,
        slower_ns: 0,
        operations: 0,
        follow_files: 0,
        follow_processes: 0,
        path_filter: 0,
        comm_filter: 0,
        cgroup_subsystem: 0,
        debug: 0,
    };
}

/// Cgroup ids are those of the unified hierarchy.
pub const CGROUP_V2: u32 = u32::MAX;

/// Fields of `inode` and `super_block` are read in one piece from the start of the structure, of this length at most.
pub const NEAR_BYTES: u32 = 128;

/// Byte offsets in the running kernel's structures, read from its BTF by the agent (`fsi_agent::probe::offsets`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Offsets {
    pub task_files: u32,
    pub task_fs: u32,
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_cgroups: u32,
    pub task_comm: u32,
    pub task_exit_code: u32,
    /// `thread_info.status` (x86_64, for 32-bit calls).
    pub task_status: u32,
    pub task_signal: u32,
    pub css_set_dfl_cgrp: u32,
    pub css_set_subsys: u32,
    pub css_cgroup: u32,
    pub cgroup_kn: u32,
    pub cgroup_root: u32,
    /// `cgroup_root`: which v1 controllers' hierarchy it is; 0 stands for the unified one.
    pub cgroup_root_mask: u32,
    pub cgroup_root_hierarchy: u32,
    pub kernfs_id: u32,
    pub kernfs_name: u32,
    pub kernfs_parent: u32,
    pub files_fdt: u32,
    pub files_count: u32,
    pub fdt_fd: u32,
    pub fdt_max_fds: u32,
    pub file_inode: u32,
    pub file_mode: u32,
    pub file_flags: u32,
    pub file_path: u32,
    pub file_pos: u32,
    /// `f_ref` or `f_count`.
    pub file_ref: u32,
    /// 1: `f_ref` (0 is one reference, negative is dead); 0: `f_count` (1 is one reference, 0 is dead).
    pub file_ref_is_biased: u32,
    pub path_mnt: u32,
    pub path_dentry: u32,
    pub dentry_parent: u32,
    pub dentry_name: u32,
    pub dentry_inode: u32,
    pub qstr_name: u32,
    pub vfsmount_root: u32,
    pub mount_mnt: u32,
    pub mount_parent: u32,
    pub mount_mountpoint: u32,
    pub fs_root: u32,
    pub fs_pwd: u32,
    pub inode_mode: u32,
    pub inode_sb: u32,
    pub inode_ino: u32,
    /// How much of an inode is read: up to the last of the three above.
    pub inode_bytes: u32,
    pub sb_dev: u32,
    pub sb_flags: u32,
    pub sb_magic: u32,
    /// How much of a super block is read: up to the last of the three above.
    pub sb_bytes: u32,
    /// `pt_regs`: the six arguments and the number of the system call.
    pub regs_args: [u32; 6],
    pub regs_number: u32,
    pub vma_file: u32,
    /// `signal_struct.live`: threads of the group that live.
    pub signal_live: u32,
    /// `fuse_req`: its mount, number and opcode; then from the mount to the connection to its device. 0 where the kernel has no FUSE.
    pub fuse_req_mount: u32,
    pub fuse_req_unique: u32,
    pub fuse_req_opcode: u32,
    pub fuse_mount_connection: u32,
    pub fuse_connection_dev: u32,
}

impl Offsets {
    /// Before the agent has set it.
    pub const UNKNOWN: Self = Self {
        task_files: 0,
        task_fs: 0,
        task_tgid: 0,
        task_pid: 0,
        task_group_leader: 0,
        task_real_parent: 0,
        task_cgroups: 0,
        task_comm: 0,
        task_exit_code: 0,
        task_status: 0,
        task_signal: 0,
        css_set_dfl_cgrp: 0,
        css_set_subsys: 0,
        css_cgroup: 0,
        cgroup_kn: 0,
        cgroup_root: 0,
        cgroup_root_mask: 0,
        cgroup_root_hierarchy: 0,
        kernfs_id: 0,
        kernfs_name: 0,
        kernfs_parent: 0,
        files_fdt: 0,
        files_count: 0,
        fdt_fd: 0,
        fdt_max_fds: 0,
        file_inode: 0,
        file_mode: 0,
        file_flags: 0,
        file_path: 0,
        file_pos: 0,
        file_ref: 0,
        file_ref_is_biased: 0,
        path_mnt: 0,
        path_dentry: 0,
        dentry_parent: 0,
        dentry_name: 0,
        dentry_inode: 0,
        qstr_name: 0,
        vfsmount_root: 0,
        mount_mnt: 0,
        mount_parent: 0,
        mount_mountpoint: 0,
        fs_root: 0,
        fs_pwd: 0,
        inode_mode: 0,
        inode_sb: 0,
        inode_ino: 0,
        inode_bytes: 0,
        sb_dev: 0,
        sb_flags: 0,
        sb_magic: 0,
        sb_bytes: 0,
        regs_args: [0; 6],
        regs_number: 0,
        vma_file: 0,
        signal_live: 0,
        fuse_req_mount: 0,
        fuse_req_unique: 0,
        fuse_req_opcode: 0,
        fuse_mount_connection: 0,
        fuse_connection_dev: 0,
    };
}
