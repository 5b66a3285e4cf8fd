//! ioctl(2), as far as the kernel hands it on and a file system answers it: a file's flags (`chattr`, `lsattr`), project.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, IFlags, OFlags};
use rustix::io::Errno;

use super::{Ask, Call, Interposer, On};
use crate::fuse::open_files::reopen;
use crate::rules::op::Op;
use crate::sys::fsxattr;

/// `FS_IOC_GETFLAGS`
const GET_FLAGS: u32 = 0x8008_6601;
/// `FS_IOC_SETFLAGS`
const SET_FLAGS: u32 = 0x4008_6602;

impl Interposer {
    /// Answers with the bytes that the caller gets. What is not known is `ENOTTY`, as from a file system that does not know it.
    pub fn ioctl<A>(self: &Arc<Self>, call: Call, number: u64, command: u32, data: &[u8], answer: A)
    where
        A: FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Ioctl, On::Node(number)),
            |_way| {
                let file = || self.file_with_flags(number);
                match command {
                    GET_FLAGS => Ok(rustix::fs::ioctl_getflags(file()?)?.bits().to_ne_bytes().to_vec()),
                    SET_FLAGS => {
                        let flags = data.first_chunk().copied().map(u32::from_ne_bytes).ok_or(Errno::INVAL)?;
                        rustix::fs::ioctl_setflags(file()?, IFlags::from_bits_retain(flags))?;
                        Ok(Vec::new())
                    }
                    // The kernel asks for these before it sets flags.
                    fsxattr::GET => Ok(fsxattr::get(file()?)?.to_vec()),
                    fsxattr::SET => {
                        fsxattr::set(file()?, *data.first_chunk().ok_or(Errno::INVAL)?)?;
                        Ok(Vec::new())
                    }
                    _ => Err(Errno::NOTTY),
                }
            },
            answer,
        );
    }

    /// Only files and directories have flags, and opening anything else may wait for somebody.
    fn file_with_flags(&self, number: u64) -> Result<OwnedFd, Errno> {
        let node = self.nodes.get(number)?;
        match FileType::from_raw_mode(self.nodes.record(&node).generation_mode().1) {
            FileType::RegularFile | FileType::Directory => reopen(&self.nodes, &node, OFlags::RDONLY),
            _ => Err(Errno::NOTTY),
        }
    }
}
