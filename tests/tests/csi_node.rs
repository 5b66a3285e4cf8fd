//! The CSI driver under repetition, crashes, tricks and many callers at once, with real mounts.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use fsi_csi::proto::csi::volume_capability::AccessType;
use fsi_csi::proto::csi::volume_capability::access_mode::Mode;
use fsi_csi::proto::csi::volume_content_source::{Type, VolumeSource};
use fsi_csi::proto::csi::{
    CapacityRange, CreateVolumeRequest, ListVolumesRequest, NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, Volume,
    VolumeContentSource,
};
use fsi_tests::csi::{Driver, capability, map};
use fsi_tests::eventually::eventually;
use fsi_tests::need::{Need, has};
use tonic::Code;

const FLAKY: &[(&str, &str)] = &[("faults", "write=EIO")];

fn root() -> bool {
    has(&[Need::Mounts])
}

/// As a pod that starts: twice each call, as the kubelet may.
fn up(driver: &Driver, volume: &Volume, pod: &str) -> std::path::PathBuf {
    for _ in 0..2 {
        driver.stage(volume).expect("staged");
    }
    driver.publish(volume, pod).expect("published");
    driver.publish(volume, pod).expect("published")
}

fn down(driver: &Driver, id: &str, target: &Path) {
    for _ in 0..2 {
        driver.unpublish(id, target).expect("unpublished");
        assert!(!target.exists(), "the target is removed");
    }
    for _ in 0..2 {
        driver.unstage(id).expect("unstaged");
    }
}

fn errno_of_write(target: &Path) -> Option<i32> {
    fs::write(target.join("file"), "content").err().and_then(|error| error.raw_os_error())
}

fn nothing_left(driver: &Driver) {
    assert_eq!(driver.mounts(), Vec::<String>::new());
    assert_eq!(driver.notes(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn nothing_asked_for_is_a_bind_mount_and_faults_are_an_interposer() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    let plain = driver.create("plain", &[("traces", "enabled")]).expect("made");
    let target = up(&driver, &plain, "pod");
    assert_eq!(errno_of_write(&target), None);
    assert_eq!(fs::read(driver.data("plain").join("file")).expect("in the pool"), b"content");
    assert_eq!(driver.mounts().len(), 2, "stage and target");
    down(&driver, "plain", &target);

    let flaky = driver.create("flaky", FLAKY).expect("made");
    let target = up(&driver, &flaky, "pod");
    assert_eq!(errno_of_write(&target), Some(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(driver.mounts().len(), 2);
    assert_eq!(driver.delete("flaky").expect_err("in use").code(), Code::FailedPrecondition);
    down(&driver, "flaky", &target);
    for id in ["plain", "flaky", "plain"] {
        driver.delete(id).expect("deleted");
    }
    nothing_left(&driver);
}

#[test]
fn a_kill_between_any_two_steps_leaves_nothing_behind() {
    if !root() {
        return;
    }
    let mut driver = Driver::start();
    let volume = driver.create("v", FLAKY).expect("made");
    driver.kill_and_restart();
    driver.stage(&volume).expect("staged");
    driver.kill_and_restart();
    driver.stage(&volume).expect("staged");
    let target = driver.publish(&volume, "pod").expect("published");
    driver.kill_and_restart();
    assert!(errno_of_write(&target).is_some(), "the server outlives the driver");
    assert_eq!(driver.publish(&volume, "pod").expect("published"), target);
    assert_eq!(driver.mounts().len(), 2, "mounted once: {:?}", driver.mounts());
    driver.kill_and_restart();
    driver.unpublish("v", &target).expect("unpublished");
    driver.kill_and_restart();
    driver.unstage("v").expect("unstaged");
    driver.kill_and_restart();
    driver.delete("v").expect("deleted");
    nothing_left(&driver);
}

#[test]
fn a_kill_in_the_middle_of_a_stage_leaves_nothing_behind() {
    if !root() {
        return;
    }
    let mut driver = Driver::start();
    let volume = driver.create("v", FLAKY).expect("made");
    for after in [0, 2, 5, 10, 20, 40] {
        std::thread::scope(|scope| {
            let staging = scope.spawn(|| driver.stage(&volume));
            std::thread::sleep(Duration::from_millis(after));
            driver.kill_now();
            // It may have been done before.
            drop(staging.join().expect("no panic"));
        });
        driver.kill_and_restart();
        driver.unstage("v").expect("unstaged");
        // What was still on its way comes to its end and is taken away.
        std::thread::sleep(Duration::from_millis(300));
        eventually("no mount is left", || driver.mounts().is_empty());
    }
    driver.stage(&volume).expect("staged");
    driver.unstage("v").expect("unstaged");
    nothing_left(&driver);
}

#[test]
fn a_dead_interposer_is_unpublished_and_staged_anew() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    let volume =
        driver.create("v", &[("rules", "version: 1\nrules: [{ match: { path: die }, do: { abort: true } }]\n")]);
    let volume = volume.expect("made");
    let target = up(&driver, &volume, "pod");
    fs::write(target.join("die"), "x").expect_err("the connection ends");
    let gone = fs::metadata(target.join("x")).expect_err("nobody answers");
    assert_eq!(gone.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
    let stats = driver.stats("v", &target).expect("an answer");
    let condition = stats.volume_condition.expect("a condition");
    assert!(condition.abnormal && condition.message.contains("the interposer is gone"), "{}", condition.message);
    let second = driver.publish(&volume, "second").expect("the stage is made anew");
    fs::write(second.join("file"), "x").expect("it answers");
    driver.unpublish("v", &target).expect("unpublished");
    down(&driver, "v", &second);
    driver.delete("v").expect("deleted");
    nothing_left(&driver);
}

#[test]
fn what_was_asked_for_is_enforced_and_grows() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    let volume = driver.create("v", &[("rules", "version: 1")]).expect("made");
    let target = up(&driver, &volume, "pod");
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
    down(&driver, "v", &target);
    let target = up(&driver, &volume, "pod");
    assert_eq!(total(&target), 128 << 20, "also for the next server");
    down(&driver, "v", &target);
    nothing_left(&driver);
}

#[test]
fn wrong_parameters_are_refused_with_a_sentence() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    let refused = |parameters: &[(&str, &str)]| {
        let status = driver.create("wrong", parameters).expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        status.message().to_owned()
    };
    let rules = refused(&[("rules", "version: 1\nrules:\n  - do: { errno: EWRONG }\n")]);
    assert!(rules.starts_with("parameter `rules`: line 3, column "), "{rules}");
    assert!(refused(&[("fautls", "x")]).contains("known are: source, "));
    assert!(refused(&[("faultyIO", "on")]).contains("write `enabled` or `disabled`"));
    assert!(refused(&[("source", "storageClass:fast")]).contains("not served by this version"));
    assert!(refused(&[("rulesConfigMap", "flaky")]).contains("no Kubernetes here"));
    let mut inline = driver.publish_request(&inline_volume("csi-1", &[("faults", "write")]), "pod");
    inline.staging_target_path.clear();
    let status = driver.wait_for(driver.node().node_publish_volume(inline)).expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("for example `write=EIO@0.001"), "{status:?}");
    assert_eq!(fs::read_dir(driver.path("pool/volumes")).expect("the pool").count(), 0, "nothing is made");
    nothing_left(&driver);
}

/// What the kubelet passes for a volume that is written in a pod.
fn inline_volume(id: &str, attributes: &[(&str, &str)]) -> Volume {
    let mut volume_context = map(attributes);
    volume_context.extend(map(&[
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.storage.k8s.io/pod.name", "pod"),
        ("csi.storage.k8s.io/pod.namespace", "default"),
        ("csi.storage.k8s.io/pod.uid", "1-2-3"),
    ]));
    Volume { volume_id: id.to_owned(), volume_context, ..Volume::default() }
}

#[test]
fn an_inline_volume_lives_as_long_as_its_pod() {
    if !root() {
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
    nothing_left(&driver);
}

#[test]
fn an_id_never_leaves_the_pool() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    let outside = driver.path("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("precious"), "x").expect("a file");
    for id in ["../../outside", "..", ".", "/etc", "a/../../../outside"] {
        driver.delete(id).expect("no volume can have it, so it is deleted");
        let volume = Volume { volume_id: id.to_owned(), ..Volume::default() };
        let stage = driver.path("kubelet/stage");
        let mut request = driver.publish_request(&Volume { volume_id: "x".to_owned(), ..volume }, "pod");
        request.volume_id = id.to_owned();
        request.staging_target_path = stage.to_str().expect("a plain path").to_owned();
        let status = driver.wait_for(driver.node().node_publish_volume(request)).expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("cannot be the id of a volume"), "{status:?}");
    }
    assert!(outside.join("precious").exists());
    let tricky = driver.create("../../outside", &[]).expect("a name may be anything");
    assert!(tricky.volume_id.starts_with("v-"));
    driver.delete(&tricky.volume_id).expect("deleted");
    assert!(outside.join("precious").exists());
    let volume = driver.create("v", &[]).expect("made");
    driver.stage(&volume).expect("staged");
    let foreign = driver.unpublish("v", Path::new("/proc")).expect_err("not ours");
    assert_eq!(foreign.code(), Code::FailedPrecondition, "{foreign:?}");
    driver.unstage("v").expect("unstaged");
}

#[test]
fn many_callers_at_once_get_one_mount_each() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    let volumes: Vec<_> = (0..8)
        .map(|index| driver.create(&format!("v{index}"), if index % 2 == 0 { FLAKY } else { &[] }).expect("made"))
        .collect();
    let is_busy = |status: &tonic::Status| status.code() == Code::Aborted;
    std::thread::scope(|scope| {
        for (volume, pod) in volumes.iter().flat_map(|volume| ["a", "b", "b"].map(|pod| (volume, pod))) {
            let driver = &driver;
            scope.spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(60);
                loop {
                    match driver.stage(volume).and_then(|()| driver.publish(volume, pod)) {
                        Ok(_target) => return,
                        Err(status) if is_busy(&status) && Instant::now() < deadline => {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Err(status) => panic!("{status:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(driver.mounts().len(), 8 * 3, "a stage and two pods each");
    for volume in &volumes {
        let id = &volume.volume_id;
        for pod in ["a", "b"] {
            driver.unpublish(id, &driver.target_of(id, pod)).expect("unpublished");
        }
        driver.unstage(id).expect("unstaged");
        driver.delete(id).expect("deleted");
    }
    nothing_left(&driver);
}

#[test]
fn mount_options_groups_and_single_pods_are_kept_to() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    for (name, parameters) in [("plain", &[][..]), ("served", &[("rules", "version: 1")])] {
        let volume = driver.create(name, parameters).expect("made");
        driver.stage(&volume).expect("staged");
        let mut request = driver.publish_request(&volume, "reader");
        request.readonly = true;
        driver.wait_for(driver.node().node_publish_volume(request)).expect("published");
        let reader = driver.target_of(name, "reader");
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
    nothing_left(&driver);
}

#[test]
fn a_clone_has_the_files_and_lists_have_pages() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    driver.create("a", &[]).expect("made");
    fs::write(driver.data("a").join("file"), "content").expect("a file");
    let source = VolumeContentSource { r#type: Some(Type::Volume(VolumeSource { volume_id: "a".to_owned() })) };
    let request = CreateVolumeRequest {
        name: "b".to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: 64 << 20, limit_bytes: 0 }),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter, &[])],
        volume_content_source: Some(source),
        ..CreateVolumeRequest::default()
    };
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

#[test]
fn the_kubelet_is_told_again_when_the_sockets_vanish() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    let socket = driver.path("registry/interposer.fsi.dev-reg.sock");
    eventually("it registers", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let info = driver.registered(&socket);
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "interposer.fsi.dev"));
    assert_eq!(info.supported_versions, ["1.0.0"]);
    assert!(info.endpoint.ends_with("plugins/interposer.fsi.dev/csi.sock"), "{}", info.endpoint);
    for socket in [&socket, &driver.socket()] {
        fs::remove_file(socket).expect("it is there");
        eventually("it is there again", || std::os::unix::net::UnixStream::connect(socket).is_ok());
    }
    drop(driver.registered(&socket));
    driver.create("v", &[]).expect("it answers");
}

#[test]
fn a_place_where_the_volume_is_not_has_no_numbers() {
    if !root() {
        return;
    }
    let driver = Driver::start();
    driver.create("v", &[]).expect("made");
    let elsewhere = NodeGetVolumeStatsRequest {
        volume_id: "v".to_owned(),
        volume_path: "/proc".to_owned(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let status = driver.wait_for(driver.node().node_get_volume_stats(elsewhere)).expect_err("not there");
    assert_eq!(status.code(), Code::NotFound);
}
