//! csi-sanity, the specification's own questions, against the real driver and real mounts: with volumes that are bind mounts, and with
//! volumes that have an interposer each.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::process::Command;

use fsi_tests::csi::Driver;
use fsi_tests::fsi::text;
use fsi_tests::mount::scratch;
use fsi_tests::need::{self, Need, has};
use fsi_tests::node_keeper::NodeKeeper;
use serde_json::Value;

/// Why a case is not run: csi-sanity's own words. These need capabilities that this driver does not announce: its volumes are directories
/// of a node, which nobody attaches, and of which no state is kept beside them.
const SKIPPED: &[&str] = &[
    "Controller Publish, UnpublishVolume not supported",
    "ControllerModifyVolume not supported",
    "ControllerPublishVolume not supported",
    "ControllerUnpublishVolume not supported",
    "CreateSnapshot not supported",
    "DeleteSnapshot not supported",
    "GroupControllerService not supported",
    "ListSnapshots not supported",
    "Modify Volume not supported",
    "Modify volume not supported",
    "Snapshot not supported",
];
/// What csi-sanity itself does not run yet.
const PENDING: &str = "pagination should detect volumes added between pages and accept tokens when the last volume from a page is deleted";

fn sanity(driver: &Driver, parameters: Option<&str>) {
    let report = driver.path("sanity.json");
    let mut command = Command::new(need::tool("FSI_CSI_SANITY").expect("it is there"));
    command.arg("--csi.endpoint").arg(driver.socket());
    command.arg("--csi.mountdir").arg(driver.path("kubelet/target"));
    command.arg("--csi.stagingdir").arg(driver.path("kubelet/stage"));
    command.args(["--csi.testvolumesize", "67108864", "--csi.testvolumeexpandsize", "134217728", "--ginkgo.no-color"]);
    command.arg("--ginkgo.json-report").arg(&report);
    if let Some(parameters) = parameters {
        let file = driver.path("parameters.yaml");
        fs::write(&file, parameters).expect("a file");
        command.arg("--csi.testvolumeparameters").arg(file);
    }
    let output = command.output().expect("csi-sanity runs");
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let report = fs::read(&report).expect("it reports");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let cases = report[0]["SpecReports"].as_array().expect("a report of ginkgo");
    let mut passed = 0;
    for case in cases.iter().filter(|case| case["LeafNodeType"] == "It") {
        let why = case["Failure"]["Message"].as_str().unwrap_or_default();
        match case["State"].as_str() {
            Some("passed") => passed += 1,
            Some("skipped") => assert!(SKIPPED.contains(&why), "skipped for another reason: {case}"),
            Some("pending") => assert_eq!(case["LeafNodeText"], PENDING),
            _ => assert_eq!(case["State"], "passed", "{case}"),
        }
    }
    assert!(passed >= 50, "{passed} cases");
    driver.nothing_left();
    assert_eq!(fs::read_dir(driver.path("pool/volumes")).expect("the pool").count(), 0, "volumes are left");
}

const NEEDS: &[Need<'static>] = &[Need::Mounts, Need::Tool("FSI_CSI_SANITY")];
const INTERPOSED: &str = "faults: \"read=EIO@0.5\"\nseed: \"7\"\n";

#[test]
fn csi_sanity_with_bind_mounts() {
    if has(NEEDS) {
        sanity(&Driver::start(), None);
    }
}

#[test]
fn csi_sanity_with_an_interposer_for_each_volume() {
    if has(NEEDS) {
        sanity(&Driver::start(), Some(INTERPOSED));
    }
}

/// As the chart has it.
#[test]
fn csi_sanity_with_the_keeper_of_a_node() {
    if has(NEEDS) {
        let place = scratch();
        let keeper = NodeKeeper::start(place.path());
        sanity(&Driver::kept_by(&keeper), Some(INTERPOSED));
    }
}
