//! The attributes of a file that its file system keeps for itself: flags, extent size, project (`struct fsxattr`).
#![expect(unsafe_code, reason = "ioctl(2) takes its argument by address")]

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::Errno;

/// `FS_IOC_FSGETXATTR`: `_IOR('X', 31, struct fsxattr)`
pub const GET: u32 = 0x801c_581f;
/// `FS_IOC_FSSETXATTR`: `_IOW('X', 32, struct fsxattr)`
pub const SET: u32 = 0x401c_5820;
/// `sizeof(struct fsxattr)`
pub const BYTES: usize = 28;

fn call(file: impl AsFd, command: u32, attributes: &mut [u8; BYTES]) -> Result<(), Errno> {
    // The C libraries do not agree on the type of a command; the kernel's is this.
    let command = libc::c_ulong::from(command);
    // SAFETY: both commands read or write `BYTES` bytes at the address, which has no alignment that matters to the kernel's copy
    // and lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, file.as_fd().as_raw_fd(), command, attributes.as_mut_ptr()) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// # Errors
/// When the file system has none.
pub fn get(file: impl AsFd) -> Result<[u8; BYTES], Errno> {
    let mut attributes = [0; BYTES];
    call(file, GET, &mut attributes)?;
    Ok(attributes)
}

/// # Errors
/// When the file system refuses.
pub fn set(file: impl AsFd, mut attributes: [u8; BYTES]) -> Result<(), Errno> {
    call(file, SET, &mut attributes)
}
