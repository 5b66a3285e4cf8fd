//! What the CSI driver refuses, with which sentence, and that nothing comes of it.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::Path;

use fsi_csi::proto::csi::{NodeGetVolumeStatsRequest, Volume};
use fsi_tests::csi::Driver;
use fsi_tests::csi::requests::inline_volume;
use fsi_tests::need::{Need, has};
use tonic::Code;

#[test]
fn wrong_parameters_are_refused_with_a_sentence() {
    if !has(&[Need::Mounts]) {
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
    driver.nothing_left();
}

#[test]
fn an_id_never_leaves_the_pool() {
    if !has(&[Need::Mounts]) {
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
fn a_place_where_the_volume_is_not_has_no_numbers() {
    if !has(&[Need::Mounts]) {
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
