//! The whole from a cgroup or a device to its owner, with folders of our own; what the API tells is put in by hand.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::json;

use super::identity::Pod;
use super::*;

const UID: &str = "6b9f2c3e-0000-1111-2222-333344445555";
const CONTAINER: &str = "aaaa111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";
const DEVICE: u32 = (8 << 20) | 17;

struct Node {
    folder: tempfile::TempDir,
    attribution: Arc<Attribution>,
}

/// One volume is mounted, and there is no pod yet.
fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let (cgroups, kubelet) = (folder.path().join("cgroup"), folder.path().join("kubelet"));
    fs::create_dir(&cgroups).unwrap();
    fs::create_dir(&kubelet).unwrap();
    let point = kubelet.canonicalize().unwrap().join(format!("pods/{UID}/volumes/kubernetes.io~csi/pvc-1/mount"));
    let mounts = folder.path().join("mountinfo");
    fs::write(&mounts, format!("24 1 8:17 / {} rw - ext4 /dev/sdb1 rw\n", point.display())).unwrap();
    let config = Config { hierarchy: Some(cgroups), kubelet: Some(kubelet), mounts, ..Config::default() };
    Node { folder, attribution: Attribution::start(config).unwrap() }
}

fn pod(volumes: &serde_json::Value) -> Pod {
    let object = json!({
        "metadata": { "name": "db-0", "namespace": "shop", "uid": UID },
        "spec": { "nodeName": "n1", "containers": [{ "name": "pg", "image": "postgres:16" }], "volumes": volumes },
        "status": { "containerStatuses": [{ "name": "pg", "containerID": format!("containerd://{CONTAINER}") }] },
    });
    objects::pod(serde_json::from_value(object).unwrap()).unwrap()
}

#[test]
fn a_pod_that_was_gone_when_the_api_told_of_it_is_named_all_the_same() {
    let Node { folder, attribution } = node();
    let path = folder.path().join(format!("cgroup/kubepods/burstable/pod{UID}/{CONTAINER}"));
    fs::create_dir_all(&path).unwrap();
    let id = fs::metadata(&path).unwrap().ino();
    let of_pod = fs::metadata(path.parent().unwrap()).unwrap().ino();
    for _ in 0..500 {
        if attribution.of_cgroup(id).is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::remove_dir_all(folder.path().join("cgroup/kubepods")).unwrap();
    let early = attribution.of_cgroup(id).unwrap();
    assert_eq!((early.pod_uid.as_deref(), &early.pod), (Some(UID), &None));
    assert_eq!(attribution.container(id).as_deref(), Some(CONTAINER));
    let again = attribution.of_cgroup(id).unwrap();
    assert!(Arc::ptr_eq(&early, &again), "made once");
    attribution.pods.apply(pod(&json!([])));
    attribution.pods.end(UID);
    let late = attribution.of_cgroup(id).unwrap();
    assert_eq!(late.pod.as_ref().unwrap().name.as_ref(), "db-0");
    assert_eq!(late.container.as_ref().unwrap().name.as_ref(), "pg");
    assert_eq!(attribution.of_cgroup(of_pod).unwrap().pod, late.pod, "the pod's and the container's");
    let are_there = || attribution.cgroups().iter().any(|(there, _)| [id, of_pod].contains(there));
    for _ in 0..500 {
        if !are_there() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!are_there() && attribution.is_gone(id), "they have ended, and are remembered");
    assert_eq!(attribution.of_cgroup(u64::MAX), None);
}

#[test]
fn a_single_claim_is_told_without_the_api_and_several_are_not() {
    let attribution = node().attribution;
    let volume = || attribution.volume_of(DEVICE, Some(&UID.into())).unwrap();
    assert_eq!((&*volume().name, &*volume().kind, &volume().claim), ("pvc-1", "csi", &None), "no pod yet");
    let claim = |name: &str| json!({ "name": name, "persistentVolumeClaim": { "claimName": format!("{name}-db-0") } });
    attribution.pods.apply(pod(&json!([{ "name": "tmp", "emptyDir": {} }, claim("data")])));
    let told = volume().claim.clone().unwrap();
    assert_eq!((&*told.namespace, &*told.name), ("shop", "data-db-0"));
    attribution.pods.apply(pod(&json!([claim("data"), claim("wal")])));
    assert_eq!(volume().claim, None, "rather nothing than the wrong one");
    attribution.pods.apply(pod(&json!([{ "name": "pvc-1", "csi": { "driver": "d" } }, claim("data")])));
    assert_eq!(volume().claim, None, "a volume of the pod itself");
    assert_eq!(attribution.volume_of(DEVICE + 1, None), None);
}
