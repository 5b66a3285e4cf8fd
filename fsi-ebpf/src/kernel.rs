//! The only reads of kernel and process memory, as typed steps from object to object.
//!
//! Two ways: a plain load through a pointer whose type the verifier knows (`task`, `pt_regs`, what hangs on them), which costs
//! nothing, and `bpf_probe_read_kernel` for the rest (array elements, `struct file` and what hangs under it).
#![expect(unsafe_code, reason = "kernel memory is read by address; offsets come from the running kernel's BTF")]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{addr_of, null, read_volatile};

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_current_uid_gid, bpf_get_prandom_u32, bpf_ktime_get_ns,
    bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str,
};
use fsi_common::probe_config::{CGROUP_V2, NEAR_BYTES, Offsets, ProbeConfig};
use fsi_common::syscall::{CALLS, Call};

use crate::maps::SCRATCH;
use crate::state::{NEAR_WORDS, Object};

/// Set by the agent before loading.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;
/// Set by the agent before loading.
#[unsafe(no_mangle)]
static CONFIG: ProbeConfig = ProbeConfig::UNSET;
/// Set by the agent before loading: how to read each system call.
#[unsafe(no_mangle)]
static SYSCALLS: [u64; CALLS] = [0; CALLS];

/// A knob.
macro_rules! config {
    ($field:ident) => {
        $crate::kernel::knob(core::mem::offset_of!(fsi_common::probe_config::ProbeConfig, $field))
    };
}
pub(crate) use config;

/// The knob at that place of CONFIG; only for the macro `config`, which knows the place from the field.
#[inline(always)]
pub(crate) fn knob(at: usize) -> u32 {
    // SAFETY: the field is inside CONFIG; volatile because the agent changes the bytes after compilation.
    unsafe { read_volatile(addr_of!(CONFIG).cast::<u8>().add(at).cast()) }
}

/// Whether operations of that code are told of.
#[inline(always)]
pub(crate) fn is_chosen(op: u16) -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!(CONFIG.operations)) >> (op & 63) & 1 != 0 }
}

/// Durations from which an operation counts as slow.
#[inline(always)]
pub(crate) fn slower_ns() -> u64 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!(CONFIG.slower_ns)) }
}

macro_rules! offset {
    ($($field:tt)+) => {
        // SAFETY: the field is inside OFFSETS; volatile because the agent changes the bytes after compilation.
        unsafe { read_volatile(addr_of!(OFFSETS.$($field)+)) as usize }
    };
}

/// How to read a system call. [`Call::NONE`] for the many that are none of our business.
#[inline(always)]
pub(crate) fn call_of(number: u64) -> Call {
    if number >= CALLS as u64 {
        return Call::NONE;
    }
    // SAFETY: inside the array; volatile because the agent changes the bytes after compilation.
    Call(unsafe { read_volatile(addr_of!(SYSCALLS).cast::<u64>().add(number as usize)) })
}

/// `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// (thread group, thread) of the current task.
#[inline(always)]
pub(crate) fn current_ids() -> (u32, u32) {
    // SAFETY: no preconditions.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    ((ids >> 32) as u32, ids as u32)
}

/// User id of the current task.
#[inline(always)]
pub(crate) fn current_uid() -> u32 {
    // SAFETY: no preconditions.
    (unsafe { bpf_get_current_uid_gid() }) as u32
}

/// A plain load through a pointer whose type the verifier knows: it refuses the program for any other pointer or offset.
#[inline(always)]
fn load<T: Copy>(object: *const u8, offset: usize) -> T {
    // SAFETY: the callers, all in this file, have the pointer from a hook's arguments or a helper and the offset from BTF.
    unsafe { read_volatile(object.add(offset).cast::<T>()) }
}

/// A read at an address that may be anything.
#[inline(always)]
pub(crate) fn read<T: Copy>(address: u64, offset: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    let source = address.wrapping_add(offset as u64) as *const c_void;
    // SAFETY: the destination is as long as T; the helper answers an unreadable source with an error and zeros. T is made of
    // integers at all callers, for which any bytes are valid.
    unsafe {
        (bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source) == 0)
            .then(|| value.assume_init())
    }
}

/// The same, with 0 for what cannot be read.
#[inline(always)]
fn read_u64(address: u64, offset: usize) -> u64 {
    read(address, offset).unwrap_or(0)
}

/// A read of process memory.
#[inline(always)]
pub(crate) fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as in `read`.
    unsafe {
        (bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) == 0)
            .then(|| value.assume_init())
    }
}

/// Copies a string of the process to `to`, which has room for `room` bytes; its length without the end, or none.
#[inline(always)]
pub(crate) unsafe fn read_user_string(to: *mut u8, room: u32, address: u64) -> Option<u64> {
    // SAFETY: the caller has that room.
    let length = unsafe { bpf_probe_read_user_str(to.cast(), room, address as *const c_void) };
    (length > 0).then(|| length as u64 - 1)
}

/// Copies `length` bytes of kernel memory.
#[inline(always)]
pub(crate) unsafe fn read_bytes(to: *mut u8, length: u32, from: u64) -> bool {
    // SAFETY: the caller has that room.
    unsafe { bpf_probe_read_kernel(to.cast(), length, from as *const c_void) == 0 }
}

/// The registers of a system call.
#[derive(Clone, Copy)]
pub(crate) struct Registers(pub *const u8);

impl Registers {
    /// Number of the system call, also at its exit.
    #[inline(always)]
    pub(crate) fn number(self) -> u64 {
        load(self.0, offset!(regs_number))
    }

    /// Copies the six arguments.
    #[inline(always)]
    pub(crate) fn arguments(self, to: &mut [u64; 8]) {
        to[0] = load(self.0, offset!(regs_args[0]));
        to[1] = load(self.0, offset!(regs_args[1]));
        to[2] = load(self.0, offset!(regs_args[2]));
        to[3] = load(self.0, offset!(regs_args[3]));
        to[4] = load(self.0, offset!(regs_args[4]));
        to[5] = load(self.0, offset!(regs_args[5]));
    }

    /// The third argument alone.
    #[inline(always)]
    pub(crate) fn third(self) -> u64 {
        load(self.0, offset!(regs_args[2]))
    }
}

/// A task, by a pointer that the verifier trusts.
#[derive(Clone, Copy)]
pub(crate) struct Task(*mut task_struct);

impl Task {
    /// The one that runs.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: no preconditions.
        Self(unsafe { bpf_get_current_task_btf() })
    }

    /// One from a tracepoint's arguments.
    #[inline(always)]
    pub(crate) const fn from_argument(task: *mut task_struct) -> Self {
        Self(task)
    }

    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut task_struct {
        self.0
    }

    #[inline(always)]
    fn field<T: Copy>(self, offset: usize) -> T {
        load(self.0.cast(), offset)
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.field(offset!(task_tgid))
    }

    /// The first thread of its group.
    #[inline(always)]
    pub(crate) fn leader(self) -> Self {
        Self(self.field(offset!(task_group_leader)))
    }

    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self(self.field(offset!(task_real_parent)))
    }

    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The command name, as two words.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u64; 2] {
        [self.field(offset!(task_comm)), self.field(offset!(task_comm) + 8)]
    }

    #[inline(always)]
    pub(crate) fn exit_code(self) -> u32 {
        self.field(offset!(task_exit_code))
    }

    /// Whether the call in flight came through the 32-bit table.
    #[inline(always)]
    pub(crate) fn is_compat(self) -> bool {
        let at = offset!(task_status);
        at != 0 && self.field::<u32>(at) & 2 != 0
    }

    /// Whether no thread of the group lives on.
    #[inline(always)]
    pub(crate) fn group_is_dead(self) -> bool {
        let signal: *const u8 = self.field(offset!(task_signal));
        if signal.is_null() {
            return true;
        }
        load::<u32>(signal, offset!(signal_live)) == 0
    }

    /// The cgroup's `kernfs_node`, in the hierarchy the agent chose.
    #[inline(always)]
    pub(crate) fn cgroup_node(self) -> *const u8 {
        let set: *const u8 = self.field(offset!(task_cgroups));
        if set.is_null() {
            return null();
        }
        let controller = config!(cgroup_subsystem);
        let cgroup: *const u8 = if controller == CGROUP_V2 {
            load(set, offset!(css_set_dfl_cgrp))
        } else {
            let state: *const u8 = load(set, offset!(css_set_subsys) + controller as usize * 8);
            if state.is_null() {
                return null();
            }
            load(state, offset!(css_cgroup))
        };
        if cgroup.is_null() { null() } else { load(cgroup, offset!(cgroup_kn)) }
    }

    /// Its cgroup id.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        let node = self.cgroup_node();
        if node.is_null() { 0 } else { load(node, offset!(kernfs_id)) }
    }

    /// (dentry, mount) of its root and of its working directory.
    #[inline(always)]
    pub(crate) fn root(self) -> Place {
        self.place(offset!(fs_root))
    }

    #[inline(always)]
    pub(crate) fn working_directory(self) -> Place {
        self.place(offset!(fs_pwd))
    }

    #[inline(always)]
    fn place(self, of: usize) -> Place {
        let fs: *const u8 = self.field(offset!(task_fs));
        if fs.is_null() {
            return Place { dentry: 0, mnt: 0 };
        }
        // Read, not loaded: the verifier forbids arithmetic on pointers whose type it knows, and these become keys.
        let words = read::<[u64; 2]>(fs as u64, of).unwrap_or([0; 2]);
        Place { dentry: words[offset!(path_dentry) / 8 & 1], mnt: words[offset!(path_mnt) / 8 & 1] }
    }

    /// (address of the descriptor array, its length), or nothing for a task without a table.
    #[inline(always)]
    pub(crate) fn descriptors(self) -> Option<(u64, u32)> {
        let files: *const u8 = self.field(offset!(task_files));
        if files.is_null() {
            return None;
        }
        let table: *const u8 = load(files, offset!(files_fdt));
        if table.is_null() {
            return None;
        }
        Some((load(table, offset!(fdt_fd)), load(table, offset!(fdt_max_fds))))
    }

    /// How many tasks share its descriptor table.
    #[inline(always)]
    pub(crate) fn descriptor_table_users(self) -> u32 {
        let files: *const u8 = self.field(offset!(task_files));
        if files.is_null() {
            return 0;
        }
        load(files, offset!(files_count))
    }

    /// Address of the file behind a descriptor; 0: none.
    #[inline(always)]
    pub(crate) fn file(self, descriptor: u64) -> u64 {
        let descriptor = descriptor as u32;
        match self.descriptors() {
            Some((array, length)) if descriptor < length => read_u64(array, descriptor as usize * 8),
            Some(_) | None => 0,
        }
    }
}

/// Id of a `kernfs_node`.
#[inline(always)]
pub(crate) fn cgroup_id(node: u64) -> u64 {
    if node == 0 { 0 } else { read_u64(node, offset!(kernfs_id)) }
}

/// The node above.
#[inline(always)]
pub(crate) fn cgroup_parent(node: u64) -> u64 {
    read_u64(node, offset!(kernfs_parent))
}

/// A place in the tree of mounts.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) dentry: u64,
    pub(crate) mnt: u64,
}

/// The first fields of a structure in one read: a read costs the same for many bytes as for few. They stand in the scratch until
/// the next such read. The agent refuses a kernel where a field that is read this way lies further back.
#[derive(Clone, Copy)]
struct Fields(*const [u64; NEAR_WORDS]);

impl Fields {
    #[inline(always)]
    fn read(address: u64) -> Option<Self> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: scratch of this CPU, as long as what is read.
        unsafe {
            let fields = &raw mut (*scratch).fields;
            read_bytes(fields.cast(), NEAR_BYTES, address).then_some(Self(fields))
        }
    }

    #[inline(always)]
    fn u64(self, offset: usize) -> u64 {
        // SAFETY: the mask keeps the index inside the array.
        unsafe { (*self.0)[offset / 8 & (NEAR_WORDS - 1)] }
    }

    #[inline(always)]
    fn u32(self, offset: usize) -> u32 {
        (self.u64(offset) >> (offset % 8 * 8)) as u32
    }
}

/// What a `struct file` says of itself.
#[derive(Clone, Copy)]
pub(crate) struct FileAddress(pub u64);

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFBLK: u32 = 0o060_000;
const SB_KERNMOUNT: u64 = 1 << 22;
const PIPEFS: u64 = 0x5049_5045;
const SOCKFS: u64 = 0x534f_434b;
const ANON_INODE_FS: u64 = 0x0904_1934;
const TMPFS: u64 = 0x0102_1994;
const PID_FS: u64 = 0x5049_4446;
const NSFS: u64 = 0x6e73_6673;
const FMODE_CREATED: u32 = 1 << 20;

impl FileAddress {
    #[inline(always)]
    pub(crate) fn inode(self) -> u64 {
        read_u64(self.0, offset!(file_inode))
    }

    /// The file as an object of a file system: a regular file, a directory, a symbolic link or a block device. Pipes, sockets,
    /// character devices, anonymous files (eventfd, memfd, ...) are none.
    #[inline(always)]
    pub(crate) fn object(self) -> Option<Object> {
        if self.0 == 0 {
            return None;
        }
        let inode = self.inode();
        let fields = Fields::read(inode)?;
        let mode = fields.u32(offset!(inode_mode)) & 0xffff;
        if !matches!(mode & S_IFMT, S_IFREG | S_IFDIR | S_IFLNK | S_IFBLK) {
            return None;
        }
        let (ino, sb) = (fields.u64(offset!(inode_ino)), fields.u64(offset!(inode_sb)));
        let sb = Fields::read(sb)?;
        let magic = sb.u64(offset!(sb_magic));
        if matches!(magic, PIPEFS | SOCKFS | ANON_INODE_FS | PID_FS | NSFS) {
            return None;
        }
        if magic == TMPFS && sb.u64(offset!(sb_flags)) & SB_KERNMOUNT != 0 {
            return None;
        }
        Some(Object { file: self.0, inode, ino, dev: sb.u32(offset!(sb_dev)), mode })
    }

    /// Its dentry alone.
    #[inline(always)]
    pub(crate) fn dentry(self) -> u64 {
        read_u64(self.0, offset!(file_path) + offset!(path_dentry))
    }

    /// Where it is in the tree of mounts.
    #[inline(always)]
    pub(crate) fn place(self) -> Place {
        Place {
            dentry: read_u64(self.0, offset!(file_path) + offset!(path_dentry)),
            mnt: read_u64(self.0, offset!(file_path) + offset!(path_mnt)),
        }
    }

    /// Its position.
    #[inline(always)]
    pub(crate) fn position(self) -> i64 {
        read::<i64>(self.0, offset!(file_pos)).unwrap_or(0)
    }

    /// The flags it is open with.
    #[inline(always)]
    pub(crate) fn flags(self) -> u32 {
        read::<u32>(self.0, offset!(file_flags)).unwrap_or(0)
    }

    /// Whether its open made the file.
    #[inline(always)]
    pub(crate) fn was_created(self) -> bool {
        read::<u32>(self.0, offset!(file_mode)).unwrap_or(0) & FMODE_CREATED != 0
    }

    /// Whether the last reference is gone. `f_ref` counts from 0 and goes negative; `f_count` counts from 1 to 0.
    #[inline(always)]
    pub(crate) fn is_dead(self) -> bool {
        let references = read::<i64>(self.0, offset!(file_ref)).unwrap_or(1);
        if offset!(file_ref_is_biased) != 0 { references < 0 } else { references == 0 }
    }

    /// Whether one reference is left.
    #[inline(always)]
    pub(crate) fn has_one_reference(self) -> bool {
        let references = read::<i64>(self.0, offset!(file_ref)).unwrap_or(0);
        references == if offset!(file_ref_is_biased) != 0 { 0 } else { 1 }
    }
}

/// `vm_file` of a mapping.
#[inline(always)]
pub(crate) fn mapped_file(vma: *const u8) -> u64 {
    load(vma, offset!(vma_file))
}

/// A name in its directory.
#[derive(Clone, Copy)]
pub(crate) struct Dentry {
    pub(crate) parent: u64,
    pub(crate) hash_len: u64,
    pub(crate) name: u64,
}

impl Dentry {
    #[inline(always)]
    pub(crate) fn read(address: u64) -> Option<Self> {
        // The three stand side by side in every kernel so far; should that change, three reads do.
        if offset!(dentry_name) == offset!(dentry_parent) + 8 && offset!(qstr_name) == 8 {
            let [parent, hash_len, name] = read::<[u64; 3]>(address, offset!(dentry_parent))?;
            return Some(Self { parent, hash_len, name });
        }
        Some(Self {
            parent: read(address, offset!(dentry_parent))?,
            hash_len: read(address, offset!(dentry_name))?,
            name: read(address, offset!(dentry_name) + offset!(qstr_name))?,
        })
    }

    /// Inode number behind a dentry; 0: none.
    #[inline(always)]
    pub(crate) fn ino(address: u64) -> u64 {
        let inode = read_u64(address, offset!(dentry_inode));
        if inode == 0 { 0 } else { read_u64(inode, offset!(inode_ino)) }
    }
}

/// Steps between mounts.
#[derive(Clone, Copy)]
pub(crate) struct Mount;

impl Mount {
    /// Root dentry of a `vfsmount`.
    #[inline(always)]
    pub(crate) fn root(mnt: u64) -> u64 {
        read_u64(mnt, offset!(vfsmount_root))
    }

    /// Where a `vfsmount` is mounted; nothing for the topmost one.
    #[inline(always)]
    pub(crate) fn mounted_at(mnt: u64) -> Option<Place> {
        let mount = mnt.wrapping_sub(offset!(mount_mnt) as u64);
        let parent = read_u64(mount, offset!(mount_parent));
        if parent == mount || parent == 0 {
            return None;
        }
        let dentry = read_u64(mount, offset!(mount_mountpoint));
        Some(Place { dentry, mnt: parent.wrapping_add(offset!(mount_mnt) as u64) })
    }
}

/// A random number.
#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// A command name as bytes.
#[inline(always)]
pub(crate) fn comm_bytes(comm: [u64; 2]) -> [u8; 16] {
    // SAFETY: the same sixteen bytes.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(comm) }
}
