//! Writing a task's entry in a BPF task storage map, which the loader library has no type for.
#![expect(unsafe_code, reason = "bpf(2) takes its attributes by address")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `BPF_MAP_UPDATE_ELEM`
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;

/// The part of `union bpf_attr` that an element update reads.
#[repr(C)]
struct UpdateAttributes {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Sets the entry of the task behind a pidfd: the kernel takes the descriptor itself as the key.
pub fn set(map: BorrowedFd<'_>, task: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = task.as_raw_fd();
    let attributes = UpdateAttributes {
        map: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        reserved: 0,
        key: (&raw const key) as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the attributes live until the call returns; the key is an int as the map's, and the caller gives a value as long
    // as the map's (`set_marks` in the loader asserts it against the map).
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const attributes, size_of::<UpdateAttributes>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
