//! The offsets that the kernel side needs, from the running kernel's BTF; where kernels differ, both ways stand here.

use fsi_common::probe_config::{NEAR_BYTES, Offsets};

use super::btf::{BtfError, KernelTypes};

/// Reads them all.
pub fn of(types: &KernelTypes) -> Result<Offsets, BtfError> {
    let of = |structure, field| types.offset(structure, field);
    let near = |structure, field| match types.offset(structure, field) {
        Ok(offset) if offset + 8 > NEAR_BYTES => Err(BtfError::TooFar { structure, field }),
        other => other,
    };
    // A file counted its references in `f_count` until Linux 6.12, in `f_ref` since.
    let (file_ref, file_ref_is_biased) = match of("file", "f_ref") {
        Ok(offset) => (offset, 1),
        Err(_) => (of("file", "f_count")?, 0),
    };
    // `parent` until Linux 6.14.
    let kernfs_parent = of("kernfs_node", "__parent").or_else(|_| of("kernfs_node", "parent"))?;
    let inode = [near("inode", "i_mode")?, near("inode", "i_sb")?, near("inode", "i_ino")?];
    let super_block = [near("super_block", "s_dev")?, near("super_block", "s_flags")?, near("super_block", "s_magic")?];
    Ok(Offsets {
        task_files: of("task_struct", "files")?,
        task_fs: of("task_struct", "fs")?,
        task_tgid: of("task_struct", "tgid")?,
        task_pid: of("task_struct", "pid")?,
        task_group_leader: of("task_struct", "group_leader")?,
        task_real_parent: of("task_struct", "real_parent")?,
        task_cgroups: of("task_struct", "cgroups")?,
        task_comm: of("task_struct", "comm")?,
        task_exit_code: of("task_struct", "exit_code")?,
        task_status: of("task_struct", "thread_info.status")?,
        task_signal: of("task_struct", "signal")?,
        css_set_dfl_cgrp: of("css_set", "dfl_cgrp")?,
        css_set_subsys: of("css_set", "subsys")?,
        css_cgroup: of("cgroup_subsys_state", "cgroup")?,
        cgroup_kn: of("cgroup", "kn")?,
        cgroup_root: of("cgroup", "root")?,
        cgroup_root_mask: of("cgroup_root", "subsys_mask")?,
        cgroup_root_hierarchy: of("cgroup_root", "hierarchy_id")?,
        kernfs_id: of("kernfs_node", "id")?,
        kernfs_name: of("kernfs_node", "name")?,
        kernfs_parent,
        files_fdt: of("files_struct", "fdt")?,
        files_count: of("files_struct", "count")?,
        fdt_fd: of("fdtable", "fd")?,
        fdt_max_fds: of("fdtable", "max_fds")?,
        file_inode: of("file", "f_inode")?,
        file_mode: of("file", "f_mode")?,
        file_flags: of("file", "f_flags")?,
        file_path: of("file", "f_path")?,
        file_pos: of("file", "f_pos")?,
        file_ref,
        file_ref_is_biased,
        path_mnt: of("path", "mnt")?,
        path_dentry: of("path", "dentry")?,
        dentry_parent: of("dentry", "d_parent")?,
        dentry_name: of("dentry", "d_name")?,
        dentry_inode: of("dentry", "d_inode")?,
        qstr_name: of("qstr", "name")?,
        vfsmount_root: of("vfsmount", "mnt_root")?,
        mount_mnt: of("mount", "mnt")?,
        mount_parent: of("mount", "mnt_parent")?,
        mount_mountpoint: of("mount", "mnt_mountpoint")?,
        fs_root: of("fs_struct", "root")?,
        fs_pwd: of("fs_struct", "pwd")?,
        inode_mode: inode[0],
        inode_sb: inode[1],
        inode_ino: inode[2],
        inode_bytes: end_of(inode),
        sb_dev: super_block[0],
        sb_flags: super_block[1],
        sb_magic: super_block[2],
        sb_bytes: end_of(super_block),
        regs_args: registers(types)?,
        regs_number: of("pt_regs", "orig_ax")?,
        vma_file: of("vm_area_struct", "vm_file")?,
        signal_live: of("signal_struct", "live")?,
        ..fuse(types).unwrap_or_default()
    })
}

/// What leads from a request of FUSE to its connection; nothing where there is no FUSE, or it is a module that is not loaded.
pub fn fuse(types: &KernelTypes) -> Option<Offsets> {
    let of = |structure, field| types.offset(structure, field).ok();
    Some(Offsets {
        fuse_req_mount: of("fuse_req", "fm")?,
        fuse_req_unique: of("fuse_req", "in.h.unique")?,
        fuse_req_opcode: of("fuse_req", "in.h.opcode")?,
        fuse_mount_connection: of("fuse_mount", "fc")?,
        fuse_connection_dev: of("fuse_conn", "dev")?,
        ..Offsets::UNKNOWN
    })
}

/// Where the last of some fields of at most eight bytes ends.
fn end_of(offsets: [u32; 3]) -> u32 {
    offsets.into_iter().max().unwrap_or(0) + 8
}

/// The argument registers of a system call on x86_64.
fn registers(types: &KernelTypes) -> Result<[u32; 6], BtfError> {
    let mut offsets = [0; 6];
    for (offset, register) in offsets.iter_mut().zip(["di", "si", "dx", "r10", "r8", "r9"]) {
        *offset = types.offset("pt_regs", register)?;
    }
    Ok(offsets)
}
