//! Whose a request is: from the thread that made it to its pod, by the names of its cgroups.
//!
//! A container outside of Kubernetes counts as a pod. A thread that is in neither, or that the server cannot see (its number is 0 where the
//! server is in a namespace of process numbers of its own), counts to the mount.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::state::{State, Word};
use crate::attribution::place::pod_uid_in;
use crate::control::target::run_directory;
use crate::rules::hash::Hash;
use crate::selection::container::id_in;
use crate::throttle::table::{self, Table};

/// What is remembered of who opened a file: nothing, that he is in no pod, or the number of his pod.
pub(super) const UNKNOWN: u64 = 0;
pub(super) const IN_NONE: u64 = 1;

/// The pod of a thread, as a number that is the same on the whole node; [`UNKNOWN`] where the thread cannot be seen.
pub(super) fn of_thread(tid: u32) -> u64 {
    if tid == 0 {
        return UNKNOWN;
    }
    // One that has ended meanwhile.
    fs::read_to_string(format!("/proc/{tid}/cgroup")).map_or(UNKNOWN, |cgroups| of_cgroups(&cgroups))
}

/// The same by what `/proc/TID/cgroup` says: a line for each hierarchy. Seen from another cgroup namespace paths begin with `..`, and
/// their ends are the same.
fn of_cgroups(cgroups: &str) -> u64 {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let names = || paths().flat_map(|path| path.split('/'));
    let pod = names().find_map(pod_uid_in);
    let container = || names().find_map(id_in).map(str::to_owned);
    let number = |name: String| Hash::new("pod").bytes(name.as_bytes()).finish().max(IN_NONE + 1);
    pod.or_else(container).map_or(IN_NONE, number)
}

/// What stands for the pod of those who are in none: this mount, as long as its rules are the same.
pub(super) fn of_mount(state: &State, device_minor: u32) -> u64 {
    let armed_at = state.word(Word::ArmedAt).load(Ordering::Acquire);
    Hash::new("mount").number(u64::from(device_minor)).number(armed_at).finish().max(IN_NONE + 1)
}

/// The buckets that the servers of this node share; where they cannot, those of this server alone.
pub(super) fn table() -> io::Result<Arc<Table>> {
    let shared = table::boot().and_then(|boot| Table::open(&run_directory().join("throttle"), &boot));
    let table = shared.or_else(|error| {
        tracing::error!(%error, "limits of pods hold for this mount alone");
        Table::private()
    });
    table.map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_the_same_however_its_cgroups_are_named() {
        const UID: &str = "6b9f2c3e-0000-1111-2222-333344445555";
        let [one, other] = ["a", "b"].map(|digit| digit.repeat(64));
        let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        let of_pod = [
            format!("0::/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{one}.scope\n"),
            format!("0::/../../kubepods-burstable.slice/{slice}/cri-containerd-{other}.scope\n"),
            format!("12:pids:/kubepods/burstable/pod{UID}/{one}\n1:name=systemd:/\n0::/\n"),
            format!("0::/system.slice/containerd.service/{slice}:cri-containerd:{other}\n"),
        ];
        let pods: Vec<_> = of_pod.iter().map(|cgroups| of_cgroups(cgroups)).collect();
        assert!(pods.iter().all(|pod| *pod == pods[0] && *pod > IN_NONE), "{pods:?}");

        let docker = |id: &str| of_cgroups(&format!("0::/system.slice/docker-{id}.scope/init\n"));
        assert_eq!(docker(&one), of_cgroups(&format!("5:cpu:/docker/{one}\n0::/\n")));
        assert!(docker(&one) != docker(&other) && docker(&one) != pods[0] && docker(&one) > IN_NONE);
        assert_eq!(of_cgroups("0::/user.slice/user-1000.slice/session-1.scope\n"), IN_NONE);
        assert_eq!(of_cgroups(""), IN_NONE);
        assert_eq!((of_thread(0), of_thread(u32::MAX)), (UNKNOWN, UNKNOWN));
    }
}
