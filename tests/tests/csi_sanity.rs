//! csi-sanity, the specification's own questions, against the real driver and real mounts: with volumes that are bind mounts, and with
//! volumes that have an interposer each.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::process::Command;

use fsi_tests::csi::Driver;
use fsi_tests::fsi::text;
use fsi_tests::need::{self, Need, has};

/// What it asks that no capability of ours allows: snapshots, groups of them, publishing by the controller, and changing parameters.
/// csi-sanity skips those by itself.
fn sanity(parameters: Option<&str>) {
    if !has(&[Need::Mounts, Need::Tool("FSI_CSI_SANITY")]) {
        return;
    }
    let driver = Driver::start();
    let mut command = Command::new(need::tool("FSI_CSI_SANITY").expect("it is there"));
    command.arg("--csi.endpoint").arg(driver.socket());
    command.arg("--csi.mountdir").arg(driver.path("kubelet/target"));
    command.arg("--csi.stagingdir").arg(driver.path("kubelet/stage"));
    command.args(["--csi.testvolumesize", "67108864", "--csi.testvolumeexpandsize", "134217728", "--ginkgo.no-color"]);
    if let Some(parameters) = parameters {
        let file = driver.path("parameters.yaml");
        fs::write(&file, parameters).expect("a file");
        command.arg("--csi.testvolumeparameters").arg(file);
    }
    let output = command.output().expect("csi-sanity runs");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    let ran = said.lines().find(|line| line.starts_with("Ran ")).expect("it counts");
    let count: usize = ran.split(' ').nth(1).and_then(|count| count.parse().ok()).expect("a number");
    assert!(count >= 50, "few cases: {ran}");
    driver.nothing_left();
    assert_eq!(fs::read_dir(driver.path("pool/volumes")).expect("the pool").count(), 0, "volumes are left");
}

#[test]
fn csi_sanity_with_bind_mounts() {
    sanity(None);
}

#[test]
fn csi_sanity_with_an_interposer_for_each_volume() {
    sanity(Some("faults: \"read=EIO@0.5\"\nseed: \"7\"\n"));
}
