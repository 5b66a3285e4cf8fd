//! A task and what hangs on it: names, cgroup, root, descriptors.
#![expect(unsafe_code, reason = "the helper that gives the current task has no safe form")]

use core::ptr::null;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use fsi_common::probe_config::CGROUP_V2;

use super::config::{config, offset};
use super::tree::Place;
use super::{load, read, read_u64};

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

    #[inline(always)]
    pub(crate) fn tid(self) -> u32 {
        self.field(offset!(task_pid))
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
        let Some(words) = read::<[u64; 2]>(fs as u64, of) else { return Place { dentry: 0, mnt: 0 } };
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
