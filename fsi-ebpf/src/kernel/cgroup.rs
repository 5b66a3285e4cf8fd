//! A cgroup: its hierarchy, and the directory that stands for it.
#![expect(unsafe_code, reason = "names are copied by address")]

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use fsi_common::probe_config::CGROUP_V2;
use fsi_common::record::CGROUP_NAME;

use super::config::{config, offset};
use super::{read, read_u64};

/// A cgroup, by its address.
#[derive(Clone, Copy)]
pub(crate) struct Cgroup(pub(crate) u64);

impl Cgroup {
    /// Whether it is one of the hierarchy the agent chose. Each is numbered by itself, so that ids of another one mean nothing.
    #[inline(always)]
    pub(crate) fn is_of_hierarchy(self) -> bool {
        let root = read_u64(self.0, offset!(cgroup_root));
        let controller = config!(cgroup_subsystem);
        if controller == CGROUP_V2 {
            return read::<u32>(root, offset!(cgroup_root_hierarchy)) == Some(0);
        }
        read::<u32>(root, offset!(cgroup_root_mask)).is_some_and(|mask| mask >> (controller & 31) & 1 == 1)
    }

    /// Its `kernfs_node`.
    #[inline(always)]
    pub(crate) fn node(self) -> u64 {
        read_u64(self.0, offset!(cgroup_kn))
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

/// The name of a node; it stays as it is, with zeros behind it, where it cannot be read.
#[inline(always)]
pub(crate) fn read_name(node: u64, name: &mut [u8; CGROUP_NAME]) {
    let from = read_u64(node, offset!(kernfs_name));
    // SAFETY: the helper writes no more than it is told there is room, and answers what cannot be read with an error.
    unsafe { bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), CGROUP_NAME as u32, from as *const _) };
}
