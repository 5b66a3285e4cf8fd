//! The CSI driver is replaced by one of another version, whose servers have another layout, and back: volumes go on under the program that
//! they were made with, and pods see a pause.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fsi_tests::csi::Driver;
use fsi_tests::csi::api::Api;
use fsi_tests::csi::pod::write_until;
use fsi_tests::csi::requests::{errno_of_write, inline_volume};
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::binary;
use fsi_tests::mount::scratch;
use fsi_tests::need::{Need, has};
use fsi_tests::node_keeper::NodeKeeper;
use fsi_tests::stop::Stop;
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use xtask::other_layout;

/// A rule that concerns every write and fails none of them.
const SLOW: &[(&str, &str)] =
    &[("rules", "version: 1\nrules: [ { name: slow, match: { ops: [write, fsync] }, do: { delay: 1ms } } ]")];

/// Another version.
struct Other {
    _directory: TempDir,
    fsi: PathBuf,
    layout: String,
}

impl Other {
    fn new() -> Self {
        let directory = scratch();
        let fsi = directory.path().join("fsi");
        let layout = other_layout::write(binary(), &fsi).expect("a program");
        Self { _directory: directory, fsi, layout }
    }
}

/// What the end of a container does to all that is in it.
fn end_container(driver: &Driver, volumes: &[&Path]) {
    let servers = volumes.iter().map(|place| driver.server_and_keeper(place)[0]).collect::<Vec<_>>();
    driver.kill_now();
    for server in servers {
        kill_process(server, Signal::KILL).expect("it runs");
    }
}

fn are_served(keeper: &NodeKeeper, layouts: &[&str]) {
    eventually("every volume has a server", || {
        let kept = keeper.kept();
        let served = |layout: &&&str| kept.lines().any(|line| line.contains("\tserved\t") && line.ends_with(**layout));
        kept.lines().count() == layouts.len() && layouts.iter().all(|layout| served(&layout))
    });
}

#[test]
fn an_upgrade_to_another_layout_and_back_is_a_pause() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let keeper = NodeKeeper::start(directory.path());
    let other = Other::new();
    let mut driver = Driver::kept_by(&keeper);
    let volume = driver.create("v", SLOW).expect("made");
    let target = driver.up(&volume, "pod");
    let layout = keeper.kept().lines().find_map(|line| Some(line.rsplit_once('\t')?.1.to_owned())).expect("a mount");
    assert_ne!(layout, other.layout);
    let stop = Stop::default();
    let (rounds, newer) = thread::scope(|scope| {
        let said = stop.at_end();
        let pod = scope.spawn(|| write_until(&stop, &target));
        thread::sleep(Duration::from_millis(1200));
        let stage = driver.stage_of("v");
        end_container(&driver, &[&stage]);
        driver.kill_and_replace(&other.fsi);
        are_served(&keeper, &[&layout]);
        let newer = driver.create("w", SLOW).expect("made");
        let newer = driver.up(&newer, "pod");
        are_served(&keeper, &[&layout, &other.layout]);
        eventually("both programs are kept", || driver.metric("fsi_csi_programs") > 1.5);
        thread::sleep(Duration::from_millis(1200));
        let stages = ["v", "w"].map(|id| driver.stage_of(id));
        end_container(&driver, &stages.each_ref().map(PathBuf::as_path));
        driver.kill_and_replace(binary());
        are_served(&keeper, &[&layout, &other.layout]);
        drop(said);
        (pod.join().expect("it goes well"), newer)
    });
    assert!(rounds > 0);
    assert_eq!(errno_of_write(&newer), None);
    driver.down("w", &newer);
    eventually("a program that nobody needs is removed", || driver.metric("fsi_csi_programs") < 1.5);
    driver.down("v", &target);
    for id in ["v", "w"] {
        driver.delete(id).expect("deleted");
    }
    driver.nothing_left();
}

#[test]
fn a_volume_of_which_the_program_is_lost_says_so_and_goes_on_when_it_is_back() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let keeper = NodeKeeper::start(directory.path());
    let other = Other::new();
    let api = Api::start();
    let mut driver = Driver::kept_in_cluster(&keeper, &api);
    let volume = inline_volume("csi-1", SLOW);
    let target = driver.publish(&volume, "pod").expect("published");
    eventually("the server was seen", || driver.metric("fsi_csi_interposers") > 0.0);
    let names_the_namespace = |driver: &Driver| {
        let [server, _keeper] = driver.server_and_keeper(&target);
        let command = fs::read(format!("/proc/{}/cmdline", server.as_raw_nonzero())).expect("it runs");
        String::from_utf8_lossy(&command).contains("\0--namespace\0default\0")
    };
    assert!(names_the_namespace(&driver));
    end_container(&driver, &[&target]);
    fs::remove_dir_all(driver.path("programs")).expect("it was there");
    driver.kill_and_replace(&other.fsi);
    eventually("it is told", || driver.metric("fsi_csi_unserved") > 0.5);
    eventually("the pod is told", || {
        let told = |event: &serde_json::Value| event["reason"] == "InterposerNotStarted";
        api.events().iter().any(told)
    });
    let note = api.events().iter().find_map(|event| event["note"].as_str().map(str::to_owned)).expect("a note");
    assert!(note.starts_with("no server takes over volume csi-1: it has the layout `fsi.serve "), "{note}");
    assert!(note.contains("of which no program is kept in") && note.contains("ENOTCONN after 300s"), "{note}");
    thread::scope(|scope| {
        let pod = scope.spawn(|| errno_of_write(&target));
        driver.kill_and_replace(binary());
        assert_eq!(pod.join().expect("it ends"), None, "the version that made it serves it");
    });
    eventually("it is served", || driver.metric("fsi_csi_unserved") < 0.5);
    assert!(!names_the_namespace(&driver), "a program of any version can take over");
    driver.unpublish("csi-1", &target).expect("unpublished");
    driver.nothing_left();
}

#[test]
fn that_many_volumes_have_no_server_is_told_at_once() {
    const VOLUMES: usize = 6;
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let keeper = NodeKeeper::start(directory.path());
    let other = Other::new();
    let api = Api::start();
    let mut driver = Driver::kept_in_cluster(&keeper, &api);
    let ids: Vec<_> = (0..VOLUMES).map(|number| format!("csi-{number}")).collect();
    let targets: Vec<_> =
        ids.iter().map(|id| driver.publish(&inline_volume(id, SLOW), "pod").expect("published")).collect();
    end_container(&driver, &targets.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    fs::remove_dir_all(driver.path("programs")).expect("it was there");
    driver.kill_and_replace(&other.fsi);
    // Each of them would let whoever asks wait for seconds.
    eventually("all are told", || {
        let told = |id: &String| {
            let is_told =
                |event: &serde_json::Value| event["note"].as_str().is_some_and(|note| note.contains(id.as_str()));
            api.events().iter().any(is_told)
        };
        ids.iter().all(told)
    });
    eventually("all are counted", || driver.metric("fsi_csi_unserved") > 5.5);
    driver.kill_and_replace(binary());
    eventually("all are served", || driver.metric("fsi_csi_interposers") > 5.5);
    for (id, target) in ids.iter().zip(&targets) {
        driver.unpublish(id, target).expect("unpublished");
    }
    driver.nothing_left();
}
