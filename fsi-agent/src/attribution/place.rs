//! What the name of a cgroup directory says: the uid of the pod whose it is. Pure.
//!
//! The kubelet names them `pod<uid>` (driver `cgroupfs`) or `kubepods-burstable-pod<uid with _>.slice` (driver `systemd`); with a
//! runtime of the other driver than the kubelet, one directory below the runtime's own carries pod and container:
//! `kubepods-burstable-pod<uid with _>.slice:cri-containerd:<id>`.

/// A uid as the API server makes it, and as the kubelet makes that of a static pod (a hash, without dashes).
const UID_LEN: usize = 36;
const STATIC_UID_LEN: usize = 32;

/// The uid of the pod whose cgroup a directory of that name is, as the API has it.
pub(crate) fn pod_uid_in(name: &str) -> Option<String> {
    let name = name.split_once(':').map_or(name, |(pod, _)| pod);
    let stem = name.strip_suffix(".slice").unwrap_or(name);
    let ends = stem.match_indices("pod").filter(|(at, _)| *at == 0 || stem.as_bytes()[at - 1] == b'-');
    ends.map(|(at, pod)| stem[at + pod.len()..].replace('_', "-")).find(|uid| is_uid(uid))
}

fn is_uid(text: &str) -> bool {
    let dashed = |(at, byte): (usize, u8)| {
        if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    match text.len() {
        UID_LEN => text.bytes().enumerate().all(dashed),
        STATIC_UID_LEN => text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_where_the_kubelet_writes_it_and_nowhere_else() {
        const UID: &str = "6b9f2c3e-0000-1111-2222-333344445555";
        const STATIC: &str = "0123456789abcdef0123456789abcdef";
        let cases = [
            (format!("pod{UID}"), Some(UID)),
            (format!("pod{STATIC}"), Some(STATIC)),
            (format!("kubepods-pod{}.slice", UID.replace('-', "_")), Some(UID)),
            (format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_")), Some(UID)),
            (format!("kubelet-kubepods-burstable-pod{}.slice", UID.replace('-', "_")), Some(UID)),
            (format!("kubepods-burstable-pod{STATIC}.slice"), Some(STATIC)),
            (format!("kubepods-burstable-pod{}.slice:cri-containerd:{STATIC}", UID.replace('-', "_")), Some(UID)),
            ("kubepods-burstable.slice".to_owned(), None),
            ("kubepods".to_owned(), None),
            ("pod1".to_owned(), None),
            (format!("tripod{UID}"), None),
            (format!("libpod_pod_{STATIC}{STATIC}.slice"), None),
            (format!("pod{}", UID.replace('-', "x")), None),
            (format!("pod{}é", &UID[2..]), None),
            ("podé".to_owned(), None),
        ];
        for (name, uid) in cases {
            assert_eq!(pod_uid_in(&name).as_deref(), uid, "{name}");
        }
    }
}
