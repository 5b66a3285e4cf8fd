//! A request of FUSE and the connection it belongs to.

use super::config::offset;
use super::{read, read_u64};

/// Address of a `struct fuse_req`.
#[derive(Clone, Copy)]
pub(crate) struct FuseRequest(pub(crate) u64);

impl FuseRequest {
    /// Device of the connection, as the kernel has it.
    #[inline(always)]
    pub(crate) fn dev(self) -> u32 {
        let mount = read_u64(self.0, offset!(fuse_req_mount));
        let connection = read_u64(mount, offset!(fuse_mount_connection));
        read(connection, offset!(fuse_connection_dev)).unwrap_or(0)
    }

    /// Its number within the connection.
    #[inline(always)]
    pub(crate) fn unique(self) -> u64 {
        read_u64(self.0, offset!(fuse_req_unique))
    }

    #[inline(always)]
    pub(crate) fn opcode(self) -> u32 {
        read(self.0, offset!(fuse_req_opcode)).unwrap_or(0)
    }
}
