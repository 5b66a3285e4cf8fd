//! File handles: a name for an object that outlives every descriptor, where the file system has them.
#![expect(unsafe_code, reason = "the kernel's handle is a structure of variable length")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// As long as a handle may be (`MAX_HANDLE_SZ`).
const MAX_BYTES: usize = 128;

/// The same, as the structure has it.
const ROOM: u32 = 128;
const _: () = assert!(ROOM as usize == MAX_BYTES, "one bound");

/// `struct file_handle` with room for the longest.
#[repr(C)]
struct Raw {
    bytes: u32,
    kind: i32,
    handle: [u8; MAX_BYTES],
}

/// A handle as the file system made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    pub kind: i32,
    pub bytes: Vec<u8>,
}

/// The handle of what a descriptor stands for.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has none.
pub fn of(file: BorrowedFd<'_>) -> io::Result<Handle> {
    make(file, c"", libc::AT_EMPTY_PATH)
}

/// The handle of what a name in a directory stands for; of a symbolic link itself.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has none.
pub fn of_name(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Handle> {
    make(directory, &CString::new(name)?, 0)
}

fn make(at: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<Handle> {
    let mut raw = Raw { bytes: ROOM, kind: 0, handle: [0; MAX_BYTES] };
    let mut mount = 0;
    // SAFETY: the descriptor is open, the name ends with a zero, and `raw` has the room that `bytes` says.
    let result =
        unsafe { libc::name_to_handle_at(at.as_raw_fd(), name.as_ptr(), (&raw mut raw).cast(), &raw mut mount, flags) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = usize::try_from(raw.bytes).unwrap_or(MAX_BYTES).min(MAX_BYTES);
    Ok(Handle { kind: raw.kind, bytes: raw.handle[..length].to_vec() })
}

/// Opens what a handle stands for, with `O_PATH`; `anywhere` is any descriptor on the same file system.
///
/// # Errors
/// `ESTALE` when it is gone.
pub fn open(anywhere: BorrowedFd<'_>, handle: &Handle) -> io::Result<OwnedFd> {
    if handle.bytes.len() > MAX_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let length = u32::try_from(handle.bytes.len()).map_err(io::Error::other)?;
    let mut raw = Raw { bytes: length, kind: handle.kind, handle: [0; MAX_BYTES] };
    raw.handle[..handle.bytes.len()].copy_from_slice(&handle.bytes);
    // SAFETY: `raw` holds as many bytes as it says, and the descriptor is open.
    let file = unsafe {
        libc::open_by_handle_at(
            anywhere.as_raw_fd(),
            (&raw mut raw).cast(),
            libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC,
        )
    };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}
