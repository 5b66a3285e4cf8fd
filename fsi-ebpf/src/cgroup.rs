//! New cgroups, told by name: a container may be gone before anybody could look at its directory.

use fsi_common::record::{CGROUP_NAME, CgroupRecord, RecordHeader, RecordKind};

use crate::emit;
use crate::kernel::{Cgroup, cgroup_id, cgroup_parent, read_name};

/// A cgroup was made; nothing is in it yet.
#[inline(always)]
pub(crate) fn on_new(cgroup: Cgroup) {
    if !cgroup.is_of_hierarchy() {
        return;
    }
    let node = cgroup.node();
    let mut record = CgroupRecord {
        header: RecordHeader { kind: RecordKind::Cgroup as u16, detail: 0, len: size_of::<CgroupRecord>() as u32 },
        id: cgroup_id(node),
        parent: cgroup_id(cgroup_parent(node)),
        name: [0; CGROUP_NAME],
    };
    read_name(node, &mut record.name);
    emit::cgroup(&record);
}
