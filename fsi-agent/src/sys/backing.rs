//! Backing files of a FUSE connection: numbers under which the kernel reads and writes a file without asking the server.
#![expect(
    unsafe_code,
    reason = "ioctl(2) takes its argument by address, and a reply with a number of ours is unsafe in fuser"
)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use fuser::{BackingId, FileAttr, FileHandle, FopenFlags, Generation, ReplyCreate, ReplyOpen};

/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)`
const BACKING_CLOSE: libc::Ioctl = 0x4004_e502;

/// Registers what a descriptor stands for.
///
/// # Errors
/// When the kernel refuses: no `CAP_SYS_ADMIN`, a file system stacked too deep, no passthrough.
pub fn register(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<u32> {
    BackingId::create_raw(device, file)
}

/// Takes a number back. Open files keep what it stood for.
///
/// # Errors
/// When there is no such number.
pub fn unregister(device: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes at the address, which live until the call returns.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw const id) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Answers an open with a number that stays registered.
pub fn opened(reply: ReplyOpen, handle: u64, flags: FopenFlags, id: u32) {
    // SAFETY: the number is one that `register` gave and that was not taken back; it is not closed here, but by `unregister`.
    let id = ManuallyDrop::new(unsafe { reply.wrap_backing(id) });
    reply.opened_passthrough(FileHandle(handle), flags, &id);
}

/// Answers a create with a number that stays registered.
pub fn created(
    reply: ReplyCreate,
    ttl: std::time::Duration,
    attr: &FileAttr,
    generation: u64,
    handle: u64,
    flags: FopenFlags,
    id: u32,
) {
    // SAFETY: as in `opened`.
    let id = ManuallyDrop::new(unsafe { reply.wrap_backing(id) });
    reply.created_passthrough(&ttl, attr, Generation(generation), FileHandle(handle), flags, &id);
}
