//! Cgroups against directories: every runtime's names, what is gone, what makes room, what is told and not seen.

use super::*;

const A: &str = "aaaa111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";
const B: &str = "bbbb111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";

/// Makes a directory; its id.
fn make(root: &Path, path: &str) -> u64 {
    fs::create_dir_all(root.join(path)).unwrap();
    fs::metadata(root.join(path)).unwrap().ino()
}

fn cgroups(root: &Path) -> Cgroups {
    Cgroups::below(Some(root.to_owned()), Arc::default())
}

#[test]
fn containers_and_pods_of_every_runtime_and_what_is_inside_them() {
    const UID: &str = "6b9f2c3e-0000-1111-2222-333344445555";
    const SLICE: &str = "kubepods-burstable-pod6b9f2c3e_0000_1111_2222_333344445555.slice";
    let root = tempfile::tempdir().unwrap();
    let in_pod = |container| Some((UID, container));
    let cases = [
        (format!("docker/{A}"), Some(A), None),
        (format!("docker/{A}/init.scope"), Some(A), None),
        (format!("system.slice/docker-{B}.scope"), Some(B), None),
        (format!("machine.slice/libpod-{A}.scope"), Some(A), None),
        (format!("machine.slice/libpod-conmon-{A}.scope"), None, None),
        ("system.slice/ssh.service".to_owned(), None, None),
        (format!("other/{}", &A[1..]), None, None),
        // A container inside a container.
        (format!("docker/{A}/docker/{B}"), Some(B), None),
        // Driver cgroupfs: containerd, docker, CRI-O.
        (format!("kubepods/burstable/pod{UID}"), None, in_pod(None)),
        (format!("kubepods/burstable/pod{UID}/{A}"), Some(A), in_pod(Some(A))),
        (format!("kubepods/pod{UID}/{B}/init.scope"), Some(B), in_pod(Some(B))),
        (format!("kubepods/besteffort/pod{UID}/crio-{A}"), Some(A), in_pod(Some(A))),
        (format!("kubepods/besteffort/pod{UID}/crio-conmon-{A}"), None, in_pod(None)),
        (format!("node-1/kubepods/pod{UID}/{A}"), Some(A), in_pod(Some(A))),
        // Driver systemd.
        (format!("kubepods.slice/kubepods-burstable.slice/{SLICE}"), None, in_pod(None)),
        (format!("kubepods.slice/{SLICE}/cri-containerd-{A}.scope"), Some(A), in_pod(Some(A))),
        (format!("kubepods.slice/{SLICE}/crio-{A}.scope/container"), Some(A), in_pod(Some(A))),
        (format!("kubepods.slice/{SLICE}/docker-{A}.scope"), Some(A), in_pod(Some(A))),
        (format!("kubelet.slice/kubelet-kubepods.slice/kubelet-{SLICE}/{B}"), Some(B), in_pod(Some(B))),
        // The kubelet's driver is systemd, the runtime's is not.
        (format!("system.slice/containerd.service/{SLICE}:cri-containerd:{A}"), Some(A), in_pod(Some(A))),
        // A container that a pod's container made, and a node that is a container.
        (format!("kubepods.slice/{SLICE}/cri-containerd-{A}.scope/docker/{B}"), Some(B), in_pod(Some(A))),
        (format!("docker/{A}/kubepods/pod{UID}"), None, in_pod(None)),
        (format!("docker/{A}/kubepods/pod{UID}/{B}"), Some(B), in_pod(Some(B))),
    ];
    let ids: Vec<_> = cases.iter().map(|(path, ..)| make(root.path(), path)).collect();
    let cgroups = cgroups(root.path());
    for ((path, container, pod), id) in cases.iter().zip(ids) {
        let cgroup = cgroups.get(id).unwrap();
        assert_eq!((&*cgroup.path, cgroup.container.as_deref()), (format!("/{path}").as_str(), *container));
        let place = cgroup.pod.as_ref().map(|pod| (&*pod.uid, pod.container.as_deref()));
        assert_eq!(place, *pod, "{path}");
    }
    let id = fs::metadata(root.path()).unwrap().ino();
    assert_eq!(cgroups.get(id).unwrap(), Cgroup::root());
}

#[test]
fn what_was_known_is_remembered_and_what_is_gone_is_not_looked_for() {
    let root = tempfile::tempdir().unwrap();
    let first = make(root.path(), A);
    let cgroups = cgroups(root.path());
    let walks = || cgroups.counters.get(Counter::Walks);
    let may_walk = || *cgroups.next_walk_ns.lock().unwrap() = 0;
    assert_eq!(cgroups.known(first), None, "memory does not walk");
    assert_eq!(cgroups.container(first).as_deref(), Some(A));
    let second = make(root.path(), B);
    assert_eq!(cgroups.get(second), None, "not walked again at once");
    fs::remove_dir(root.path().join(A)).unwrap();
    may_walk();
    assert_eq!(cgroups.container(second).as_deref(), Some(B));
    assert_eq!(cgroups.known(first).unwrap().container.as_deref(), Some(A), "it was there");
    may_walk();
    assert_eq!((cgroups.get(u64::MAX), walks()), (None, 3));
    may_walk();
    assert_eq!((cgroups.get(u64::MAX), walks()), (None, 3), "no second walk for it");
    cgroups.memory.lock().unwrap().gone.put(u64::MAX, 0);
    assert_eq!((cgroups.get(u64::MAX), walks()), (None, 4), "but later");
    assert_eq!(Cgroups::below(None, Arc::default()).get(first), None);
}

#[test]
fn the_oldest_makes_room_and_is_counted() {
    let cgroups = Cgroups::below(None, Arc::default());
    let ids = 0..MAX_CGROUPS.get() as u64 + 3;
    cgroups.learn(ids.clone().map(|id| (id, Cgroup::root())));
    assert_eq!(cgroups.counters.get(Counter::CgroupsForgotten), 3);
    assert_eq!((cgroups.known(2), cgroups.known(3)), (None, Some(Cgroup::root())));
    cgroups.learn([(3, Cgroup::root())]);
    assert_eq!(cgroups.counters.get(Counter::CgroupsForgotten), 3, "it was known");
}

#[test]
fn what_is_gone_is_remembered_and_not_there() {
    let root = tempfile::tempdir().unwrap();
    let [first, second] = [make(root.path(), A), make(root.path(), B)];
    let cgroups = cgroups(root.path());
    assert!(cgroups.get(first).is_some());
    let ids = || cgroups.there().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert!(ids().contains(&first) && ids().is_sorted());
    assert!(!cgroups.is_gone(first));
    fs::remove_dir(root.path().join(A)).unwrap();
    let before = cgroups.changes();
    assert!(cgroups.is_gone(first) && cgroups.is_gone(first));
    assert_eq!(cgroups.changes(), before + 1, "said once");
    assert!(!ids().contains(&first) && ids().contains(&second));
    assert_eq!(cgroups.known(first).unwrap().container.as_deref(), Some(A));
    assert!(!cgroups.is_gone(u64::MAX), "nobody has looked for it");
}

#[test]
fn what_was_made_is_known_though_nobody_looks() {
    let root = tempfile::tempdir().unwrap();
    let docker = make(root.path(), "docker");
    let cgroups = cgroups(root.path());
    assert!(cgroups.get(docker).is_some());
    let ids = || cgroups.there().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let first = make(root.path(), &format!("docker/{A}"));
    cgroups.made(first, docker, A);
    assert_eq!(cgroups.known(first).unwrap().container.as_deref(), Some(A));
    assert!(ids().contains(&first));
    // Its end was heard of before its making.
    cgroups.made(u64::MAX, docker, B);
    assert_eq!(cgroups.known(u64::MAX).unwrap().container.as_deref(), Some(B));
    assert!(!ids().contains(&u64::MAX));
    // And after it.
    fs::remove_dir(root.path().join("docker").join(A)).unwrap();
    cgroups.nothing_is_at(&format!("/docker/{A}"));
    assert!(!ids().contains(&first));
    cgroups.made(7, u64::MAX - 1, A);
    assert_eq!(cgroups.known(7), None, "nobody knows where");
}
