//! What the CSI driver asks of a Kubernetes API: rules from ConfigMaps of the right namespace, and events for the pods that feel something.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use fsi_tests::csi::Driver;
use fsi_tests::csi::api::Api;
use fsi_tests::csi::requests::{FLAKY, errno_of_write, inline_volume};
use fsi_tests::eventually::eventually;
use fsi_tests::need::{Need, has};
use tonic::Code;

const FAILS: &str = "version: 1\nrules: [{ match: { ops: write }, do: { errno: ENOSPC } }]\n";

#[test]
fn rules_come_from_the_map_of_the_claims_namespace() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let claim = [
        ("rulesConfigMap", "flaky"),
        ("csi.storage.k8s.io/pvc/name", "c"),
        ("csi.storage.k8s.io/pvc/namespace", "team"),
    ];
    let refused = |parameters: &[(&str, &str)]| {
        let status = driver.create("v", parameters).expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        status.message().to_owned()
    };
    assert!(refused(&claim[..1]).contains("--extra-create-metadata"));
    assert!(refused(&claim).contains("there is no ConfigMap `team/flaky`"));
    api.put_config_map("team", "flaky", &[("rules.yaml", "version: 1\nrulez: []")]);
    let wrong = refused(&claim);
    assert!(wrong.starts_with("ConfigMap `flaky`: line 2, column 1: "), "{wrong}");
    api.put_config_map("team", "flaky", &[("a", FAILS), ("b", FAILS)]);
    assert!(refused(&claim).contains("has no key `rules.yaml`"));
    api.put_config_map("team", "flaky", &[("any-name", FAILS)]);
    let volume = driver.create("v", &claim).expect("made");
    let target = driver.up(&volume, "pod");
    assert_eq!(errno_of_write(&target), Some(rustix::io::Errno::NOSPC.raw_os_error()));
    driver.down("v", &target);
    driver.nothing_left();
}

#[test]
fn a_pod_gets_no_rules_of_another_namespace() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    api.put_config_map("other", "flaky", &[("rules.yaml", FAILS)]);
    // As somebody would write it who wants to.
    let volume = inline_volume("csi-1", &[("rulesConfigMap", "flaky"), ("csi.storage.k8s.io/pvc/namespace", "other")]);
    let status = driver.publish(&volume, "pod").expect_err("refused");
    assert!(status.message().contains("there is no ConfigMap `default/flaky`"), "{status:?}");
    api.put_config_map("default", "flaky", &[("rules.yaml", FAILS)]);
    let target = driver.publish(&volume, "pod").expect("published");
    assert!(errno_of_write(&target).is_some());
    driver.unpublish("csi-1", &target).expect("unpublished");
    driver.nothing_left();
}

#[test]
fn a_server_that_ends_is_an_event_of_the_pod() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    let driver = Driver::in_cluster(&api);
    let volume = inline_volume("csi-1", FLAKY);
    let target = driver.publish(&volume, "pod").expect("published");
    eventually("the server was seen", || driver.metric("fsi_csi_interposers") > 0.0);
    driver.kill_server_at(&target);
    eventually("an event is sent", || !api.events().is_empty());
    let event = &api.events()[0];
    assert_eq!((event["type"].as_str(), event["reason"].as_str()), (Some("Warning"), Some("InterposerReplaced")));
    assert_eq!(event["regarding"]["name"].as_str(), Some("pod"));
    assert_eq!(event["regarding"]["uid"].as_str(), Some("1-2-3"));
    assert!(event["note"].as_str().is_some_and(|note| note.contains("csi-1")), "{event}");
    // The API is away for a while: the next one is told all the same.
    api.refuse_events(true);
    driver.kill_server_at(&target);
    eventually("the driver tries", || api.refused_events() > 1);
    assert_eq!(api.events().len(), 1);
    api.refuse_events(false);
    eventually("an event is sent", || api.events().len() == 2);
    driver.unpublish("csi-1", &target).expect("unpublished");
    driver.nothing_left();
}

/// A namespace that is stuck on its way out takes no events for as long as that lasts.
#[test]
fn an_event_that_its_namespace_does_not_take_holds_up_no_other() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let api = Api::start();
    api.end_namespace("ends");
    let driver = Driver::in_cluster(&api);
    let targets = [("csi-1", "ends", "1"), ("csi-2", "default", "2")].map(|(id, namespace, uid)| {
        let mut volume = inline_volume(id, FLAKY);
        for (key, value) in [("namespace", namespace), ("uid", uid)] {
            volume.volume_context.insert(format!("csi.storage.k8s.io/pod.{key}"), value.to_owned());
        }
        (id, driver.publish(&volume, namespace).expect("published"))
    });
    eventually("the servers were seen", || driver.metric("fsi_csi_interposers") > 1.0);
    for (count, (_, target)) in (1_u32..).zip(&targets) {
        driver.kill_server_at(target);
        let deaths = || driver.metric("fsi_csi_server_deaths_total{outcome=\"replaced\"}");
        eventually("the death is seen", || deaths() >= f64::from(count));
    }
    eventually("the other pod is told", || !api.events().is_empty());
    assert_eq!(api.events()[0]["regarding"]["namespace"].as_str(), Some("default"));
    for (id, target) in &targets {
        driver.unpublish(id, target).expect("unpublished");
    }
    eventually("the pod is gone", || driver.metric("fsi_csi_events_lost_total{reason=\"pod_gone\"}") > 0.0);
    driver.nothing_left();
}
