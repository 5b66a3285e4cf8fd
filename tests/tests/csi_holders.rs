//! Claims of other drivers: the pods that hold them, how they come, are replaced and go, and the claims behind volumes of a class.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::{Path, PathBuf};

use fsi_csi::holder::backing::Backing;
use fsi_csi::proto::csi::{CapacityRange, NodeExpandVolumeRequest};
use fsi_csi::volume_id::VolumeId;
use fsi_tests::csi::Driver;
use fsi_tests::csi::api::Api;
use fsi_tests::csi::controller::Controller;
use fsi_tests::csi::requests::{FLAKY, errno_of_write, inline_volume};
use fsi_tests::eventually::eventually;
use fsi_tests::need::{Need, has};
use serde_json::{Value, json};
use tonic::Code;

/// A cluster with a claim, and the driver in it. Where the claim's files are, as the kubelet would have them for its holder.
fn with_claim(api: &Api, driver: &Driver, holder: &str) -> PathBuf {
    let named = |name: &str| json!({ "name": name, "namespace": "default", "uid": "1" });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": named("data"),
        "spec": { "volumeName": "pv-1", "volumeMode": "Filesystem" },
    });
    api.put("default", "persistentvolumeclaims", "data", claim);
    let containers = json!([{ "name": "fsi-csi", "image": "fsi:test", "imagePullPolicy": "Never" }]);
    let own =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": named("driver"), "spec": { "containers": containers } });
    api.put("fsi", "pods", "driver", own);
    let place = driver.path("kubelet/pods").join(format!("uid-of-{holder}")).join("volume-subpaths/pv-1/hold/0");
    fs::create_dir_all(&place).expect("a folder");
    place
}

#[test]
fn a_claim_of_another_driver_is_wrapped_through_a_holder() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let holder = fsi_csi::holder::name("test-node", &VolumeId::parse("csi-1").expect("an id"));
    let place = with_claim(&api, &driver, &holder);
    let backing = driver.path("backing");
    fs::create_dir(&backing).expect("a folder");
    api.set_status_of_pods(json!({ "phase": "Running" }));
    for (switch, fails) in [("disabled", false), ("enabled", true)] {
        rustix::mount::mount_bind(&backing, &place).expect("as the kubelet does");
        // As it was written for the older driver.
        let attributes = [
            ("persistentVolumeClaimName", "data"),
            ("fakeIO", "disabled"),
            ("traces", "enabled"),
            ("faultyIO", switch),
        ];
        let volume = inline_volume("csi-1", &attributes);
        for _ in 0..2 {
            driver.publish(&volume, "pod").expect("published");
        }
        let target = driver.publish(&volume, "pod").expect("published");
        let errors = (0..2000).filter(|_| errno_of_write(&target).is_some()).count();
        assert_eq!(errors > 0, fails, "one in a hundred");
        assert!(backing.join("file").exists());
        assert!(!driver.data("csi-1").exists(), "nothing is in the pool");
        assert!(!driver.stats("csi-1", &target).expect("an answer").volume_condition.expect("a condition").abnormal);
        let pods = api.objects("default", "pods");
        assert_eq!(pods.len(), 1);
        assert_eq!(pods[0]["metadata"]["ownerReferences"][0]["uid"], "1-2-3");
        assert_eq!(pods[0]["spec"]["containers"][0]["image"], "fsi:test");
        for _ in 0..2 {
            driver.unpublish("csi-1", &target).expect("unpublished");
        }
        assert!(api.objects("default", "pods").is_empty(), "the holder is removed");
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).expect("nobody uses it any more");
        assert!(backing.join("file").exists(), "the claim keeps its files");
        driver.nothing_left();
    }
}

#[test]
fn another_holder_takes_over_from_one_that_goes() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let first = fsi_csi::holder::name("test-node", &VolumeId::parse("csi-1").expect("an id"));
    let place = with_claim(&api, &driver, &first);
    let backing = driver.path("backing");
    fs::create_dir(&backing).expect("a folder");
    api.set_status_of_pods(json!({ "phase": "Running" }));
    rustix::mount::mount_bind(&backing, &place).expect("as the kubelet does");
    let holders = || api.objects("default", "pods");
    // As it is, and through an interposer.
    for (at, faults) in [&[][..], &[("faults", "fsync=EIO")]].into_iter().enumerate() {
        let attributes = [&[("persistentVolumeClaimName", "data")], faults].concat();
        let volume = inline_volume("csi-1", &attributes);
        let target = driver.publish(&volume, "pod").expect("published");
        let mut leaving = holders().remove(0);
        leaving["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
        api.put("default", "pods", &first, leaving);
        eventually("another one is made", || holders().len() == 2);
        let is_next = |name: &String| *name != first;
        let names = holders().into_iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned));
        let next = names.into_iter().find(is_next).expect("another name");
        let next_place = with_claim(&api, &driver, &next);
        rustix::mount::mount_bind(&backing, &next_place).expect("as the kubelet does");
        eventually("the pod is told", || api.events().len() == at + 1);
        assert_eq!(api.events()[at]["reason"], "HolderReplaced");
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).expect("the kubelet takes it away");
        let mounts = driver.mounts();
        driver.publish(&volume, "pod").expect("published");
        assert_eq!(driver.mounts(), mounts, "nothing is shown anew");
        assert_eq!(errno_of_write(&target), None);
        driver.unpublish("csi-1", &target).expect("unpublished");
        assert_eq!(holders().len(), 1, "the holder that took over is removed");
        rustix::mount::unmount(&next_place, rustix::mount::UnmountFlags::empty()).expect("nobody uses it any more");
        api.remove("default", "pods", &first);
        rustix::mount::mount_bind(&backing, &place).expect("as the kubelet does");
    }
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).expect("nobody uses it any more");
    driver.nothing_left();
}

#[test]
fn a_claim_that_cannot_be_wrapped_is_refused_with_the_reason() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let volume = inline_volume("csi-1", &[("source", "pvc"), ("persistentVolumeClaimName", "data")]);
    let refused = |code: Code| {
        let status = driver.publish(&volume, "pod").expect_err("refused");
        assert_eq!(status.code(), code, "{status:?}");
        status.message().to_owned()
    };
    assert_eq!(refused(Code::InvalidArgument), "there is no claim `default/data` to wrap");
    drop(with_claim(&api, &driver, "nobody"));
    let elsewhere = json!([{ "type": "PodScheduled", "status": "False", "message": "1 node(s) had volume node affinity conflict" }]);
    api.set_status_of_pods(json!({ "phase": "Pending", "conditions": elsewhere }));
    let waits = refused(Code::Unavailable);
    assert!(waits.contains("waits: 1 node(s) had volume node affinity conflict"), "{waits}");
    let claim = driver.create("v", &[("source", "pvc"), ("persistentVolumeClaimName", "data")]).expect_err("refused");
    assert!(claim.message().contains("write it as an inline volume"), "{claim:?}");
    driver.nothing_left();
}

#[test]
fn a_claim_of_our_own_is_wrapped_too() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let holder = fsi_csi::holder::name("test-node", &VolumeId::parse("csi-1").expect("an id"));
    let place = with_claim(&api, &driver, &holder);
    api.set_status_of_pods(json!({ "phase": "Running" }));
    let claim = driver.create("v", FLAKY).expect("made");
    let of_claim = driver.up(&claim, "holder");
    rustix::mount::mount_bind(&of_claim, &place).expect("as the kubelet does");
    for attributes in
        [&[("persistentVolumeClaimName", "data")][..], &[("persistentVolumeClaimName", "data"), ("fake", "null")]]
    {
        let volume = inline_volume("csi-1", attributes);
        let target = driver.publish(&volume, "pod").expect("published");
        let mounts = driver.mounts();
        driver.publish(&volume, "pod").expect("published");
        assert_eq!(driver.mounts(), mounts, "once");
        assert!(!driver.stats("csi-1", &target).expect("an answer").volume_condition.expect("a condition").abnormal);
        let is_fake = attributes.len() > 1;
        assert_eq!(errno_of_write(&target).is_some(), !is_fake, "the claim's faults show, unless a fake is over them");
        driver.unpublish("csi-1", &target).expect("unpublished");
    }
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).expect("nobody uses it any more");
    driver.down("v", &of_claim);
    driver.nothing_left();
}

/// A volume of 64 MiB over a claim becomes one of 128 MiB once the claim is.
fn grows(api: &Api, driver: &Driver, behind: &Value, target: &Path) {
    let request = NodeExpandVolumeRequest {
        volume_id: "v".to_owned(),
        volume_path: target.to_str().expect("a plain path").to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: 128 << 20, limit_bytes: 0 }),
        ..NodeExpandVolumeRequest::default()
    };
    let name = behind["metadata"]["name"].as_str().expect("a name");
    let put_size = |size: &str| {
        let mut claim = behind.clone();
        claim["status"] = json!({ "capacity": { "storage": size } });
        api.put("default", "persistentvolumeclaims", name, claim);
    };
    let total = || driver.stats("v", target).expect("an answer").usage[0].total;
    put_size("64Mi");
    let early = driver.wait_for(driver.node().node_expand_volume(request.clone())).expect_err("too early");
    assert_eq!(early.code(), Code::Unavailable, "{early:?}");
    assert!(early.message().contains("has 67108864 of 134217728 bytes yet"), "{early:?}");
    assert_eq!(total(), 64 << 20);
    put_size("128Mi");
    for _ in 0..2 {
        let done = driver.wait_for(driver.node().node_expand_volume(request.clone())).expect("expanded");
        assert_eq!(done.into_inner().capacity_bytes, 128 << 20);
    }
    assert_eq!(total(), 128 << 20);
}

#[test]
fn the_claim_behind_a_volume_grows_with_it() {
    let api = Api::start();
    let controller = Controller::in_cluster(&api);
    let volume = |source: &str| {
        let csi = json!({ "driver": "interposer.fsi.dev", "volumeHandle": "pvc-1", "volumeAttributes": { "source": source } });
        let spec = json!({ "csi": csi, "claimRef": { "namespace": "team", "name": "data" } });
        api.put_volume("pvc-1", "64Mi", spec);
    };
    let grow = |mebibytes: i64| controller.expand("pvc-1", mebibytes << 20);
    volume("directory");
    assert_eq!(grow(128).expect("nothing is behind it"), (128 << 20, true));
    volume("storageClass:fast");
    let missing = grow(128).expect_err("no claim behind");
    assert_eq!(missing.code(), Code::InvalidArgument, "{missing:?}");

    let Backing { name, .. } = Backing::new(&VolumeId::parse("pvc-1").expect("an id"), "team", "data");
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": "team" },
        "spec": { "volumeName": "pv-1", "resources": { "requests": { "storage": "64Mi" } } },
    });
    api.put("team", "persistentvolumeclaims", &name, claim);
    api.put_volume("pv-1", "64Mi", json!({}));
    let asked = || api.objects("team", "persistentvolumeclaims")[0]["spec"]["resources"]["requests"]["storage"].clone();
    api.refuse_changes(Some("only dynamically provisioned pvc can be resized"));
    let refused = grow(128).expect_err("the class does not allow it");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(
        refused.message().ends_with("may not grow: only dynamically provisioned pvc can be resized"),
        "{refused:?}"
    );
    assert_eq!(asked(), "64Mi");

    api.refuse_changes(None);
    let early = grow(1 << 20).expect_err("too early");
    assert_eq!(early.code(), Code::Unavailable, "{early:?}");
    assert_eq!(asked(), (1_u64 << 40).to_string());
    let early = grow(128).expect_err("too early");
    assert_eq!(early.code(), Code::Unavailable, "{early:?}");
    assert_eq!(asked(), (128 << 20).to_string(), "somebody thought better of it");
    api.put_volume("pv-1", "1Gi", json!({}));
    api.refuse_changes(Some("nothing is to be changed any more"));
    for _ in 0..2 {
        assert_eq!(grow(128).expect("it has more"), (128 << 20, true));
    }
}

#[test]
fn a_class_wraps_claims_of_another_class() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let holder = fsi_csi::holder::name("test-node", &VolumeId::parse("v").expect("an id"));
    drop(with_claim(&api, &driver, "nobody"));
    api.set_status_of_pods(json!({ "phase": "Running" }));
    let parameters = [
        ("source", "storageClass:fast"),
        ("faults", "write=EIO"),
        ("csi.storage.k8s.io/pvc/name", "data"),
        ("csi.storage.k8s.io/pvc/namespace", "default"),
    ];
    let mut gone = parameters;
    gone[2].1 = "gone";
    let refused = driver.create("w", &gone).expect_err("its claim is gone");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(!driver.data("w").exists(), "nobody would delete it");
    for _ in 0..2 {
        driver.create("v", &parameters).expect("made");
    }
    let volume = driver.create("v", &parameters).expect("made");
    let claims = || api.objects("default", "persistentvolumeclaims");
    let behind = claims().into_iter().find(|claim| claim["metadata"]["name"] != "data").expect("one more claim");
    assert_eq!(behind["spec"]["storageClassName"], "fast");
    assert_eq!(behind["spec"]["resources"]["requests"]["storage"], (64 << 20).to_string());
    assert_eq!(behind["metadata"]["ownerReferences"][0]["kind"], "PersistentVolumeClaim");

    let name = format!("pv-of-{}", behind["metadata"]["name"].as_str().expect("a name"));
    let place =
        driver.path("kubelet/pods").join(format!("uid-of-{holder}")).join("volume-subpaths").join(name).join("hold/0");
    fs::create_dir_all(&place).expect("a folder");
    let backing = driver.path("backing");
    fs::create_dir(&backing).expect("a folder");
    rustix::mount::mount_bind(&backing, &place).expect("as the kubelet does");
    let target = driver.up(&volume, "pod");
    let owners = || claims().into_iter().map(|claim| claim["metadata"]["ownerReferences"].clone());
    assert!(owners().all(|owners| owners.is_null()), "what has data goes with its volume alone");
    let second = driver.publish(&volume, "second").expect("published");
    assert!(errno_of_write(&target).is_some());
    assert!(backing.join("file").exists(), "the files are in the claim behind");
    driver.unpublish("v", &second).expect("unpublished");
    grows(&api, &driver, &behind, &target);
    assert_eq!(api.objects("default", "pods").len(), 1, "held for the stage");
    assert_eq!(driver.delete("v").expect_err("in use").code(), Code::FailedPrecondition);
    driver.down("v", &target);
    assert!(api.objects("default", "pods").is_empty(), "the holder is removed");
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).expect("nobody uses it any more");
    for _ in 0..2 {
        driver.delete("v").expect("deleted");
    }
    assert_eq!(claims().len(), 1, "the claim behind goes with the volume");
    driver.nothing_left();
}

#[test]
fn a_holder_that_cannot_be_removed_is_not_forgotten_and_one_that_may_not_be_holds_up_nobody() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let holder = fsi_csi::holder::name("test-node", &VolumeId::parse("csi-1").expect("an id"));
    let place = with_claim(&api, &driver, &holder);
    let backing = driver.path("backing");
    fs::create_dir(&backing).expect("a folder");
    rustix::mount::mount_bind(&backing, &place).expect("as the kubelet does");
    api.set_status_of_pods(json!({ "phase": "Running" }));
    let volume = inline_volume("csi-1", &[("persistentVolumeClaimName", "data")]);
    let target = driver.publish(&volume, "pod").expect("published");
    api.refuse_removals(Some(503));
    let away = driver.unpublish("csi-1", &target).expect_err("the holder is still there");
    assert_eq!(away.code(), Code::Unavailable, "{away:?}");
    assert_eq!(driver.notes().len(), 1, "whoever comes next knows of it");
    assert!(!target.exists(), "the pod has it no more");
    api.refuse_removals(None);
    driver.unpublish("csi-1", &target).expect("unpublished");
    assert!(api.objects("default", "pods").is_empty(), "the holder is removed");

    let target = driver.publish(&volume, "pod").expect("published");
    api.refuse_removals(Some(403));
    driver.unpublish("csi-1", &target).expect("it goes with its owner");
    assert_eq!(api.objects("default", "pods").len(), 1);
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).expect("nobody uses it any more");
    driver.nothing_left();
}

/// As after a drain, or when somebody removed the pod: the claim's files are the same, and elsewhere.
#[test]
fn a_volume_goes_on_when_its_holder_is_replaced() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let id = VolumeId::parse("v").expect("an id");
    let holder = fsi_csi::holder::name("test-node", &id);
    drop(with_claim(&api, &driver, "nobody"));
    api.set_status_of_pods(json!({ "phase": "Running" }));
    let backing = driver.path("backing");
    fs::create_dir(&backing).expect("a folder");
    let claim = Backing::new(&id, "default", "data").name;
    let held_by = |uid: &str| {
        let place = driver.path("kubelet/pods").join(uid).join(format!("volume-subpaths/pv-of-{claim}/hold/0"));
        fs::create_dir_all(&place).expect("a folder");
        rustix::mount::mount_bind(&backing, &place).expect("as the kubelet does");
        place
    };
    for faults in [None, Some(("faults", "write=EIO"))] {
        let mut parameters = vec![
            ("source", "storageClass:fast"),
            ("csi.storage.k8s.io/pvc/name", "data"),
            ("csi.storage.k8s.io/pvc/namespace", "default"),
        ];
        parameters.extend(faults);
        let volume = driver.create("v", &parameters).expect("made");
        let first = held_by(&format!("uid-of-{holder}"));
        let target = driver.up(&volume, "pod");
        let opened = fs::File::create(target.join("open")).expect("it opens");
        rustix::mount::unmount(&first, rustix::mount::UnmountFlags::DETACH).expect("as the kubelet does");
        let mut other = api.objects("default", "pods").pop().expect("a holder");
        other["metadata"]["uid"] = "another".into();
        api.put("default", "pods", &holder, other);
        let second = held_by("another");
        let mounts = driver.mounts();
        driver.stage(&volume).expect("it is staged");
        assert_eq!(driver.mounts(), mounts, "what is well stays");
        let next = driver.publish(&volume, "next").expect("published");
        driver.publish(&volume, "next").expect("published");
        assert_eq!(driver.mounts().len(), mounts.len() + 1);
        assert_eq!(errno_of_write(&next).is_some(), faults.is_some());
        for place in [&target, &next] {
            driver.stats("v", place).expect("an answer");
        }
        assert!(next.join("open").exists() && opened.metadata().is_ok());
        driver.unpublish("v", &next).expect("unpublished");
        drop(opened);
        driver.down("v", &target);
        assert!(api.objects("default", "pods").is_empty(), "the holder is removed");
        rustix::mount::unmount(&second, rustix::mount::UnmountFlags::empty()).expect("nobody uses it any more");
        driver.delete("v").expect("deleted");
        driver.nothing_left();
    }
}
