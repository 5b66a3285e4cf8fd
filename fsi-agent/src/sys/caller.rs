//! Acting for the caller of a request: its user and group own what is made, its umask counts, its lack of `CAP_FSETID` clears
//! setuid bits. All of it is per thread.
#![expect(unsafe_code, reason = "setfsuid(2), setfsgid(2) and unshare(2) have no safe form")]

use std::cell::Cell;

use rustix::fs::Mode;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Puts the thread's identity back.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: both take numbers and touch only this thread's credentials. Going back to user 0 raises the file capabilities again.
        unsafe {
            libc::setfsuid(0);
            libc::setfsgid(0);
        }
    }
}

thread_local! {
    /// Whether this thread has a umask of its own.
    static OWN_UMASK: Cell<bool> = const { Cell::new(false) };
}

/// Runs `make` so that what it makes belongs to `uid` and `gid`, with `umask`. Permissions were checked by the kernel before the
/// request came (`default_permissions`), so the thread keeps its capabilities.
pub fn making<T>(uid: u32, gid: u32, umask: u32, make: impl FnOnce() -> T) -> T {
    OWN_UMASK.with(|own| {
        // SAFETY: unshare touches only this thread's file system information: its umask and working directory.
        if !own.get() && unsafe { libc::unshare(libc::CLONE_FS) } == 0 {
            own.set(true);
        }
        if own.get() {
            rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
        }
    });
    if uid == 0 && gid == 0 {
        return make();
    }
    let sets = rustix::thread::capabilities(None).ok();
    // SAFETY: as in `Restore`.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
    let restore = Restore;
    // Another file system user than 0 takes the file capabilities away.
    if let Some(sets) = sets {
        rustix::thread::set_capabilities(None, sets).ok();
    }
    let made = make();
    drop(restore);
    made
}

/// Runs `change` without `CAP_FSETID`, so that the kernel clears setuid and setgid bits as it does for most users.
pub fn clearing_setid<T>(change: impl FnOnce() -> T) -> T {
    let Ok(sets) = rustix::thread::capabilities(None) else { return change() };
    let without = CapabilitySets { effective: sets.effective - CapabilitySet::FSETID, ..sets };
    rustix::thread::set_capabilities(None, without).ok();
    let changed = change();
    rustix::thread::set_capabilities(None, sets).ok();
    changed
}
