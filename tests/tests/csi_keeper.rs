//! The CSI driver with the keeper of the node: whatever ends the driver ends its servers as well, as a container's end does, and pods see a
//! pause.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use fsi_tests::csi::Driver;
use fsi_tests::csi::api::Api;
use fsi_tests::csi::pod::write_until;
use fsi_tests::csi::requests::{FLAKY, errno_of_write, for_a_pod, map};
use fsi_tests::eventually::eventually;
use fsi_tests::mount::scratch;
use fsi_tests::need::{Need, has};
use fsi_tests::node_keeper::NodeKeeper;
use fsi_tests::stop::Stop;
use rustix::process::{Pid, Signal, kill_process};

/// A rule that concerns every write and fails none of them.
const SLOW: &[(&str, &str)] =
    &[("rules", "version: 1\nrules: [ { name: slow, match: { ops: [write] }, do: { delay: 1ms } } ]")];

fn server(driver: &Driver, id: &str) -> Pid {
    let [server, _keeper] = driver.server_and_keeper(&driver.stage_of(id));
    server
}

/// What the end of a container does to all that is in it.
fn end_container(driver: &mut Driver, server: Pid) {
    driver.kill_now();
    kill_process(server, Signal::KILL).expect("it runs");
    // One that waits for the disk is there until the disk has answered.
    let stat = format!("/proc/{}/stat", server.as_raw_nonzero());
    eventually("it has ended", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
}

#[test]
fn the_end_of_the_driver_with_its_servers_is_a_pause() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let mut keeper = NodeKeeper::start(directory.path());
    let mut driver = Driver::kept_by(&keeper);
    let volume = driver.create("v", SLOW).expect("made");
    let target = driver.up(&volume, "pod");
    let stop = Stop::default();
    let rounds = thread::scope(|scope| {
        let said = stop.at_end();
        let pod = scope.spawn(|| write_until(&stop, &target));
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(1200));
            let before = server(&driver, "v");
            end_container(&mut driver, before);
            driver.kill_and_restart();
            eventually("another server serves", || keeper.kept().contains("\tserved\t"));
            assert_ne!(server(&driver, "v"), before);
            keeper.kill();
            keeper.start_again();
            eventually("the next keeper has it", || keeper.kept().contains("\tserved\t"));
        }
        drop(said);
        pod.join().expect("it goes well")
    });
    assert!(rounds > 0);
    assert_eq!(driver.mounts().len(), 2, "{:?}", driver.mounts());
    driver.down("v", &target);
    eventually("nothing is kept", || keeper.kept().is_empty());
    driver.delete("v").expect("deleted");
    driver.nothing_left();
}

#[test]
fn a_server_alone_is_replaced_within_a_second() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let keeper = NodeKeeper::start(directory.path());
    let driver = Driver::kept_by(&keeper);
    let volume = driver.create("v", FLAKY).expect("made");
    let target = driver.up(&volume, "pod");
    eventually("the server was seen", || driver.metric("fsi_csi_interposers") > 0.0);
    driver.kill_server("v");
    let begin = Instant::now();
    assert_eq!(errno_of_write(&target), Some(rustix::io::Errno::IO.raw_os_error()), "another one serves");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let replaced = || driver.metric("fsi_csi_server_deaths_total{outcome=\"replaced\"}");
    eventually("the death is counted", || replaced() > 0.0);
    driver.down("v", &target);
    driver.nothing_left();
}

#[test]
fn when_keeper_and_server_are_gone_files_say_so_and_the_volume_can_be_had_again() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let mut keeper = NodeKeeper::start(directory.path());
    let driver = Driver::kept_by(&keeper);
    let volume = driver.create("v", SLOW).expect("made");
    let target = driver.up(&volume, "pod");
    eventually("the server was seen", || driver.metric("fsi_csi_interposers") > 0.0);
    keeper.kill();
    driver.kill_server("v");
    eventually("the files say so", || {
        fs::read_dir(&target).is_err_and(|error| error.kind() == std::io::ErrorKind::NotConnected)
    });
    keeper.start_again();
    eventually("it is told", || driver.metric("fsi_csi_server_deaths_total{outcome=\"aborted\"}") > 0.0);
    driver.down("v", &target);
    let target = driver.up(&volume, "pod");
    assert_eq!(errno_of_write(&target), None);
    driver.down("v", &target);
    driver.nothing_left();
}

#[test]
fn a_driver_is_ready_when_the_kubelet_knows_it_and_what_was_there_is_served() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let mut keeper = NodeKeeper::start(directory.path());
    let mut driver = Driver::kept_by(&keeper);
    eventually("it tells that the kubelet is missing", || driver.page("/readyz").contains("kubelet"));
    assert!(driver.is_well("/healthz"));
    driver.registration(true);
    eventually("it is ready", || driver.is_well("/readyz"));
    let volume = driver.create("v", SLOW).expect("made");
    let target = driver.up(&volume, "pod");

    keeper.kill();
    driver.kill_and_restart();
    driver.registration(true);
    eventually("it tells that a volume waits", || driver.page("/readyz").contains("no server yet: 1"));
    assert!(!driver.is_well("/readyz") && driver.is_well("/healthz"));
    keeper.start_again();
    eventually("it is ready", || driver.is_well("/readyz"));

    // From then on a server that ends is an event of its volume, not of the driver.
    driver.kill_server("v");
    assert!(driver.is_well("/readyz"));
    assert_eq!(errno_of_write(&target), None);
    driver.down("v", &target);
    driver.nothing_left();
}

/// What events of the pod say, by their reason.
fn told(api: &Api, reason: &str) -> Vec<String> {
    let events = api.events().into_iter().filter(|event| event["reason"] == reason);
    let about = |event: &serde_json::Value| {
        assert_eq!(
            (event["regarding"]["kind"].as_str(), event["regarding"]["name"].as_str()),
            (Some("Pod"), Some("pod"))
        );
        event["note"].as_str().expect("a sentence").to_owned()
    };
    events.map(|event| about(&event)).collect()
}

/// As on a node that runs out of memory: whoever comes next knows only what is written down.
#[test]
fn when_keeper_server_and_driver_are_killed_at_once_the_pod_is_told_and_can_come_back() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let (directory, api) = (scratch(), Api::start());
    let mut keeper = NodeKeeper::start(directory.path());
    let mut driver = Driver::kept_in_cluster(&keeper, &api);
    let volume = for_a_pod(driver.create("v", SLOW).expect("made"));
    let target = driver.up(&volume, "pod");
    eventually("the server was seen", || driver.metric("fsi_csi_interposers") > 0.0);
    let server = server(&driver, "v");
    keeper.kill();
    end_container(&mut driver, server);
    keeper.start_again();
    driver.kill_and_restart();
    eventually("the pod is told", || !told(&api, "InterposerGone").is_empty());
    let sentence = &told(&api, "InterposerGone")[0];
    assert!(sentence.contains("delete the pod") && sentence.contains("ENOTCONN"), "{sentence}");
    let gone = fs::read_dir(&target).expect_err("nobody serves it");
    assert_eq!(gone.kind(), std::io::ErrorKind::NotConnected, "never the bare folder");
    assert_eq!(driver.metric("fsi_csi_server_deaths_total{outcome=\"aborted\"}"), 1.0);
    assert_eq!(driver.metric("fsi_csi_interposers"), 0.0);
    let condition = driver.stats("v", &target).expect("an answer").volume_condition.expect("a condition");
    assert!(condition.abnormal && condition.message.contains("started anew"), "{}", condition.message);
    // The pod that comes next has it while the first one is not gone yet.
    let next = driver.publish(&volume, "next").expect("the stage is made anew");
    assert_eq!(errno_of_write(&next), None);
    assert!(errno_of_write(&target).is_some(), "what is gone stays gone");
    driver.unpublish("v", &target).expect("unpublished");
    driver.down("v", &next);
    assert_eq!(told(&api, "InterposerGone").len(), 1, "told once: {:?}", api.events());
    driver.delete("v").expect("deleted");
    driver.nothing_left();
}

#[test]
fn servers_that_ended_with_the_driver_are_told_and_counted() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let (directory, api) = (scratch(), Api::start());
    let keeper = NodeKeeper::start(directory.path());
    let mut driver = Driver::kept_in_cluster(&keeper, &api);
    let volume = for_a_pod(driver.create("v", SLOW).expect("made"));
    let target = driver.up(&volume, "pod");
    let before = server(&driver, "v");
    end_container(&mut driver, before);
    driver.kill_and_restart();
    eventually("the pod is told", || !told(&api, "InterposerReplaced").is_empty());
    assert_eq!(driver.metric("fsi_csi_server_deaths_total{outcome=\"replaced\"}"), 1.0);
    assert_eq!(errno_of_write(&target), None);
    driver.down("v", &target);
    driver.nothing_left();
}

/// A process that outlives its pod and stays where it is.
struct Straggler(Child);

impl Straggler {
    fn start(place: &Path) -> Self {
        Self(Command::new("sleep").arg("600").current_dir(place).spawn().expect("it starts"))
    }

    /// Where it is.
    fn place(&self) -> PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join("cwd")
    }
}

impl Drop for Straggler {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }
}

#[test]
fn a_volume_can_be_staged_again_while_its_old_mount_is_in_use() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let keeper = NodeKeeper::start(directory.path());
    let mut driver = Driver::kept_by(&keeper);
    for restarts in [false, true] {
        let mut volume = driver.create("v", SLOW).expect("made");
        let target = driver.up(&volume, "pod");
        assert_eq!(errno_of_write(&target), None);
        let straggler = Straggler::start(&driver.stage_of("v"));
        let before = server(&driver, "v");
        driver.down("v", &target);
        if restarts {
            end_container(&mut driver, before);
            driver.kill_and_restart();
        }
        volume.volume_context = map(FLAKY);
        let target = driver.up(&volume, "pod");
        assert_ne!(server(&driver, "v"), before);
        assert_eq!(errno_of_write(&target), Some(rustix::io::Errno::IO.raw_os_error()), "the new rules hold");
        if !restarts {
            assert_eq!(errno_of_write(&straggler.place()), None, "the old ones hold where they did");
        }
        driver.kill_server("v");
        assert_eq!(errno_of_write(&target), Some(rustix::io::Errno::IO.raw_os_error()), "another one serves");
        drop(straggler);
        driver.down("v", &target);
        driver.delete("v").expect("deleted");
        driver.nothing_left();
    }
    eventually("nothing is kept", || keeper.kept().is_empty());
}
