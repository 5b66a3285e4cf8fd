//! What a volume of the CSI driver is: its size, options, group, clones, and how long it lives.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::thread;

use fsi_csi::proto::csi::volume_capability::AccessType;
use fsi_csi::proto::csi::volume_capability::access_mode::Mode;
use fsi_csi::proto::csi::volume_content_source::{Type, VolumeSource};
use fsi_csi::proto::csi::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, ListVolumesRequest, NodeExpandVolumeRequest,
    VolumeContentSource,
};
use fsi_tests::csi::Driver;
use fsi_tests::csi::requests::{FLAKY, capability, errno_of_write, inline_volume};
use fsi_tests::eventually::eventually;
use fsi_tests::need::{Need, has};
use tonic::Code;

#[test]
fn what_was_asked_for_is_enforced_and_grows() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let volume = driver.create("v", &[("rules", "version: 1")]).expect("made");
    let target = driver.up(&volume, "pod");
    let total = |place: &Path| {
        let stats = driver.stats("v", place).expect("an answer");
        assert!(!stats.volume_condition.expect("a condition").abnormal);
        assert_eq!(stats.usage.len(), 2, "bytes and inodes");
        stats.usage[0].total
    };
    assert_eq!(total(&target), 64 << 20);
    let full = fs::write(target.join("big"), vec![1; 65 << 20]).expect_err("it does not fit");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    fs::remove_file(target.join("big")).expect("removed");
    let request = NodeExpandVolumeRequest {
        volume_id: "v".to_owned(),
        volume_path: target.to_str().expect("a plain path").to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: 128 << 20, limit_bytes: 0 }),
        ..NodeExpandVolumeRequest::default()
    };
    for _ in 0..2 {
        let done = driver.wait_for(driver.node().node_expand_volume(request.clone())).expect("expanded");
        assert_eq!(done.into_inner().capacity_bytes, 128 << 20);
    }
    assert_eq!(total(&target), 128 << 20);
    fs::write(target.join("big"), vec![1; 65 << 20]).expect("it fits");
    driver.down("v", &target);
    let target = driver.up(&volume, "pod");
    assert_eq!(total(&target), 128 << 20, "also for the next server");
    driver.down("v", &target);
    driver.nothing_left();
}

/// As on another node that shares the pool, or after a kill between the two steps.
#[test]
fn a_server_grows_whatever_the_file_of_the_volume_says() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let volume = driver.create("v", &[("rules", "version: 1")]).expect("made");
    let target = driver.up(&volume, "pod");
    let file = driver.path("pool/volumes/v.json");
    let says = |bytes: u64| {
        let text = fs::read_to_string(&file).expect("it is there");
        let mut volume: serde_json::Value = serde_json::from_str(&text).expect("a document");
        volume["bytes"] = bytes.into();
        fs::write(&file, volume.to_string()).expect("written");
    };
    let total = || driver.stats("v", &target).expect("an answer").usage[0].total;
    says(128 << 20);
    driver.expand("v", &target, 128 << 20).expect("expanded");
    assert_eq!(total(), 128 << 20, "another node was faster");
    says(64 << 20);
    driver.expand("v", &target, 256 << 20).expect("expanded");
    assert_eq!(total(), 256 << 20, "it was killed before it wrote it down");
    driver.down("v", &target);
    driver.nothing_left();
}

#[test]
fn a_volume_does_not_grow_beyond_its_pool() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let volume = driver.create("v", &[]).expect("made");
    let target = driver.up(&volume, "pod");
    let refused = driver.expand("v", &target, i64::MAX).expect_err("no pool has it");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let sentence = "volume `v` of 67108864 bytes cannot have 9223372036854775807: the pool has ";
    assert!(refused.message().starts_with(sentence), "{refused:?}");
    let request = ControllerExpandVolumeRequest {
        volume_id: "v".to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: i64::MAX, limit_bytes: 0 }),
        ..ControllerExpandVolumeRequest::default()
    };
    let refused = driver.wait_for(driver.controller().controller_expand_volume(request)).expect_err("nor here");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    driver.expand("v", &target, 65 << 20).expect("there is room for that");
    driver.down("v", &target);
    driver.nothing_left();
}

#[test]
fn an_inline_volume_lives_as_long_as_its_pod() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mut driver = Driver::start();
    for (id, attributes) in [("csi-plain", &[][..]), ("csi-flaky", FLAKY)] {
        let volume = inline_volume(id, attributes);
        for _ in 0..2 {
            driver.publish(&volume, "pod").expect("published");
        }
        let target = driver.publish(&volume, "pod").expect("published");
        assert_eq!(errno_of_write(&target).is_some(), !attributes.is_empty());
        assert!(driver.data(id).is_dir());
        assert_eq!(driver.mounts().len(), 1);
        driver.kill_and_restart();
        for _ in 0..2 {
            driver.unpublish(id, &target).expect("unpublished");
        }
        assert!(!driver.data(id).exists() && !target.exists());
    }
    driver.nothing_left();
}

#[test]
fn mount_options_groups_and_single_pods_are_kept_to() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    for (name, parameters) in [("plain", &[][..]), ("served", &[("rules", "version: 1")])] {
        let volume = driver.create(name, parameters).expect("made");
        driver.stage(&volume).expect("staged");
        let mut request = driver.publish_request(&volume, "reader");
        request.readonly = true;
        if let Some(AccessType::Mount(mount)) =
            request.volume_capability.as_mut().and_then(|it| it.access_type.as_mut())
        {
            mount.volume_mount_group = "1234".to_owned();
        }
        driver.wait_for(driver.node().node_publish_volume(request)).expect("published");
        let reader = driver.target_of(name, "reader");
        assert_ne!(fs::metadata(driver.data(name)).expect("a folder").gid(), 1234, "who reads changes nothing");
        let refused = fs::write(reader.join("x"), "x").expect_err("read-only");
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);

        let mut request = driver.publish_request(&volume, "strict");
        let mut strict = capability(Mode::SingleNodeWriter, &["noexec", "nosuid,nodev"]);
        if let Some(AccessType::Mount(mount)) = &mut strict.access_type {
            mount.volume_mount_group = "4321".to_owned();
        }
        request.volume_capability = Some(strict);
        driver.wait_for(driver.node().node_publish_volume(request)).expect("published");
        let target = driver.target_of(name, "strict");
        let program = target.join("program");
        fs::write(&program, "#!/bin/sh\n").expect("writable");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        let refused = std::process::Command::new(&program).status().expect_err("noexec");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fs::metadata(&program).expect("a file").gid(), 4321, "new files have the group");

        let mut request = driver.publish_request(&volume, "only");
        request.volume_capability = Some(capability(Mode::SingleNodeSingleWriter, &[]));
        let status = driver.wait_for(driver.node().node_publish_volume(request)).expect_err("two pods have it");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");

        let mut request = driver.publish_request(&volume, "wrong");
        request.volume_capability = Some(capability(Mode::SingleNodeWriter, &["data=journal"]));
        let status = driver.wait_for(driver.node().node_publish_volume(request)).expect_err("unknown");
        assert!(status.message().starts_with("mount option `data=journal` is not known"), "{status:?}");
        for pod in ["reader", "strict"] {
            driver.unpublish(name, &driver.target_of(name, pod)).expect("unpublished");
        }
        driver.unstage(name).expect("unstaged");
    }
    driver.nothing_left();
}

#[test]
fn a_clone_has_the_files_and_lists_have_pages() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    driver.create("a", &[]).expect("made");
    fs::write(driver.data("a").join("file"), "content").expect("a file");
    let request = clone_request("b", "a");
    for _ in 0..2 {
        driver.wait_for(driver.controller().create_volume(request.clone())).expect("cloned");
    }
    assert_eq!(fs::read(driver.data("b").join("file")).expect("cloned"), b"content");
    driver.create("c", &[]).expect("made");
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListVolumesRequest { max_entries: 2, starting_token: token };
        let page = driver.wait_for(driver.controller().list_volumes(request)).expect("a page").into_inner();
        ids.extend(page.entries.into_iter().filter_map(|entry| Some(entry.volume?.volume_id)));
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(ids, ["a", "b", "c"]);
}

fn clone_request(name: &str, of: &str) -> CreateVolumeRequest {
    let source = Type::Volume(VolumeSource { volume_id: of.to_owned() });
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: 64 << 20, limit_bytes: 0 }),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter, &[])],
        volume_content_source: Some(VolumeContentSource { r#type: Some(source) }),
        ..CreateVolumeRequest::default()
    }
}

#[test]
fn a_clone_that_a_kill_cuts_short_is_swept_by_the_next_driver() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mut driver = Driver::start();
    driver.create("a", &[]).expect("made");
    for number in 0..20_000 {
        fs::write(driver.data("a").join(number.to_string()), "content").expect("a file");
    }
    let half = driver.path("pool/new/b");
    thread::scope(|scope| {
        let call = scope.spawn(|| driver.wait_for(driver.controller().create_volume(clone_request("b", "a"))));
        eventually("it is being copied", || fs::read_dir(&half).is_ok_and(|mut all| all.next().is_some()));
        driver.kill_now();
        call.join().expect("no panic").expect_err("it was cut short");
    });
    assert!(half.exists() && driver.path("pool/volumes/b.json").exists(), "what was begun is there");
    driver.kill_and_restart();
    eventually("it is swept", || !driver.path("pool/volumes/b.json").exists());
    assert!(!half.exists() && !driver.data("b").exists());
    assert!(driver.data("a").join("1").exists());
}
