//! Acting for the caller of a request: its user and group own what is made, its umask counts, its lack of `CAP_FSETID` clears
//! setuid and setgid bits. All of it is per thread.
#![expect(unsafe_code, reason = "setfsuid(2), setfsgid(2), setgroups(2) and unshare(2) have no safe form")]

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

/// What of a caller's credentials decides on setuid and setgid bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Its effective capabilities hold `CAP_FSETID`.
    fsetid: bool,
    groups: Vec<u32>,
}

/// `CAP_FSETID`
const FSETID_BIT: u64 = 1 << 4;

impl Credentials {
    /// Those of a thread. Of one that is gone, or that is the kernel's own (0), only its user is known.
    #[must_use]
    pub fn of(tid: u32, uid: u32) -> Self {
        let unknown = || Self { fsetid: uid == 0, groups: Vec::new() };
        if tid == 0 {
            return unknown();
        }
        let Ok(status) = std::fs::read_to_string(format!("/proc/{tid}/status")) else { return unknown() };
        let said = Self::parse(&status);
        // Capabilities count in the user namespace they were given in.
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
        Self { fsetid: said.fsetid && namespace("self") == namespace(&tid.to_string()), ..said }
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap_or_default();
        let groups = field("Groups:").split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect();
        Self { fsetid: capabilities & FSETID_BIT != 0, groups }
    }

    /// Whether no change to a file takes its bits.
    #[must_use]
    pub const fn keep_set_id(&self) -> bool {
        self.fsetid
    }

    /// Runs `change` on a file of the group `file_gid` so that the kernel decides on its bits as for a caller with the group
    /// `gid` and these credentials: the setgid bit of a file that its group may not execute stays for members of the group.
    pub fn changing<T>(&self, gid: u32, file_gid: u32, change: impl FnOnce() -> T) -> T {
        let Ok(sets) = rustix::thread::capabilities(None) else { return change() };
        if self.fsetid {
            return change();
        }
        // The server has no supplementary groups, so this one decides.
        let group = if self.groups.contains(&file_gid) { file_gid } else { gid };
        // SAFETY: it takes a number and touches only this thread's credentials.
        unsafe { libc::setfsgid(group) };
        let without = CapabilitySets { effective: sets.effective - CapabilitySet::FSETID, ..sets };
        rustix::thread::set_capabilities(None, without).ok();
        let changed = change();
        rustix::thread::set_capabilities(None, sets).ok();
        // SAFETY: as above.
        unsafe { libc::setfsgid(0) };
        changed
    }
}

/// Leaves all supplementary groups; to be called before there are threads.
///
/// # Errors
/// When the kernel refuses.
pub fn leave_groups() -> std::io::Result<()> {
    // SAFETY: no list is read for a count of none.
    let result = unsafe { libc::setgroups(0, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_a_status() {
        let status = "Name:\tGroups:\nUid:\t1\t1\t1\t1\nGroups:\t4 60 1000 \nCapInh:\t0\nCapEff:\t0000000000000010\n";
        assert_eq!(Credentials::parse(status), Credentials { fsetid: true, groups: vec![4, 60, 1000] });
        let none = "Groups:\t \nCapEff:\t000001ffffffffef\n";
        assert_eq!(Credentials::parse(none), Credentials::default());
    }

    #[test]
    fn of_a_thread_that_is_gone_the_user_is_known() {
        assert!(Credentials::of(0, 0).keep_set_id());
        assert!(!Credentials::of(u32::MAX, 65_534).keep_set_id());
    }
}
