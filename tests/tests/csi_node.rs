//! What is mounted by the CSI driver under repetition, kills and many callers at once: what was asked for, and nothing left.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fsi_tests::csi::Driver;
use fsi_tests::csi::controller::Controller;
use fsi_tests::csi::requests::{FLAKY, errno_of_write};
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::binary;
use fsi_tests::mount::scratch;
use fsi_tests::need::{Need, has};
use rustix::process::{Signal, kill_process, test_kill_process};
use tonic::Code;

#[test]
fn nothing_asked_for_is_a_bind_mount_and_faults_are_an_interposer() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let plain = driver.create("plain", &[("traces", "enabled")]).expect("made");
    let target = driver.up(&plain, "pod");
    assert_eq!(errno_of_write(&target), None);
    assert_eq!(fs::read(driver.data("plain").join("file")).expect("in the pool"), b"content");
    assert_eq!(driver.mounts().len(), 2, "stage and target");
    driver.down("plain", &target);

    let flaky = driver.create("flaky", FLAKY).expect("made");
    let target = driver.up(&flaky, "pod");
    assert_eq!(errno_of_write(&target), Some(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(driver.mounts().len(), 2);
    assert_eq!(driver.delete("flaky").expect_err("in use").code(), Code::FailedPrecondition);
    driver.down("flaky", &target);
    for id in ["plain", "flaky", "plain"] {
        driver.delete(id).expect("deleted");
    }
    driver.nothing_left();
}

#[test]
fn a_kill_between_any_two_steps_leaves_nothing_behind() {
    if !has(&[Need::Mounts]) {
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
    driver.nothing_left();
}

/// `fsi`, which takes its time.
fn slow_server(directory: &Path) -> PathBuf {
    let script = directory.join("slow-fsi");
    fs::write(&script, format!("#!/bin/sh\nsleep 0.8\nexec {} \"$@\"\n", binary().display())).expect("a file");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a program");
    script
}

#[test]
fn a_kill_in_the_middle_of_a_stage_leaves_nothing_behind() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let mut driver = Driver::with_server(slow_server(directory.path()));
    let volume = driver.create("v", FLAKY).expect("made");
    let mut orphans = 0.0;
    for after in [0, 100, 200, 790, 810, 830] {
        thread::scope(|scope| {
            let staging = scope.spawn(|| driver.stage(&volume));
            thread::sleep(Duration::from_millis(after));
            driver.kill_now();
            // It may have been done before.
            drop(staging.join().expect("no panic"));
        });
        driver.kill_and_restart();
        driver.unstage("v").expect("unstaged");
        // What was still on its way comes to its end, and is taken away.
        thread::sleep(Duration::from_millis(1000));
        eventually("no mount is left", || driver.mounts().is_empty() && driver.servers().is_empty());
        driver.forgets_starts();
        // It is counted once all of it is gone.
        thread::sleep(Duration::from_millis(50));
        orphans += driver.metric("fsi_csi_orphans_removed_total");
    }
    assert!(orphans > 0.0, "none came late");
    driver.stage(&volume).expect("staged");
    driver.unstage("v").expect("unstaged");
    driver.nothing_left();
}

#[test]
fn the_first_process_of_a_container_leaves_no_zombies() {
    if !has(&[Need::Mounts, Need::Program("unshare")]) {
        return;
    }
    let driver = Driver::under(&["unshare", "--pid", "--fork", "--kill-child"]);
    let volume = driver.create("v", FLAKY).expect("made");
    driver.stage(&volume).expect("staged");
    let [_server, keeper] = driver.server_and_keeper(&driver.stage_of("v"));
    // By its number in the container: the driver is its parent there.
    assert!(keeper.as_raw_nonzero().get() < 100, "{keeper:?} is of the machine");
    let adopted = || children_of("fsi-csi");
    assert_eq!(adopted().len(), 1, "the keeper is the driver's child");
    driver.unstage("v").expect("unstaged");
    eventually("the driver takes note of its end", || adopted().is_empty());
    driver.nothing_left();
}

/// Processes, zombies too, whose parent has that name.
fn children_of(name: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("it is there").flatten().map(|entry| entry.path().join("stat"));
    let stats = entries.filter_map(|path| fs::read_to_string(path).ok());
    let is_child = |stat: &String| {
        let parent = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(1));
        let comm = parent.and_then(|parent| fs::read_to_string(format!("/proc/{parent}/comm")).ok());
        comm.is_some_and(|comm| comm.trim() == name)
    };
    stats.filter(is_child).collect()
}

#[test]
fn a_dead_interposer_is_unpublished_and_staged_anew() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let volume =
        driver.create("v", &[("rules", "version: 1\nrules: [{ match: { path: die }, do: { abort: true } }]\n")]);
    let volume = volume.expect("made");
    let target = driver.up(&volume, "pod");
    fs::write(target.join("die"), "x").expect_err("the connection ends");
    let gone = fs::metadata(target.join("x")).expect_err("nobody answers");
    assert_eq!(gone.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
    let stats = driver.stats("v", &target).expect("an answer");
    let condition = stats.volume_condition.expect("a condition");
    assert!(condition.abnormal && condition.message.contains("the interposer is gone"), "{}", condition.message);
    let second = driver.publish(&volume, "second").expect("the stage is made anew");
    fs::write(second.join("file"), "x").expect("it answers");
    driver.unpublish("v", &target).expect("unpublished");
    driver.down("v", &second);
    driver.delete("v").expect("deleted");
    driver.nothing_left();
}

#[test]
fn many_callers_at_once_get_one_mount_each() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let volumes: Vec<_> = (0..8)
        .map(|index| driver.create(&format!("v{index}"), if index % 2 == 0 { FLAKY } else { &[] }).expect("made"))
        .collect();
    let is_busy = |status: &tonic::Status| status.code() == Code::Aborted;
    thread::scope(|scope| {
        for (volume, pod) in volumes.iter().flat_map(|volume| ["a", "b", "b"].map(|pod| (volume, pod))) {
            let driver = &driver;
            scope.spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(60);
                loop {
                    match driver.stage(volume).and_then(|()| driver.publish(volume, pod)) {
                        Ok(_target) => return,
                        Err(status) if is_busy(&status) && Instant::now() < deadline => {
                            thread::sleep(Duration::from_millis(20));
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
    driver.nothing_left();
}

#[test]
fn the_kubelet_is_told_again_when_the_sockets_vanish() {
    if !has(&[Need::Mounts]) {
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
fn a_server_that_is_killed_is_replaced_and_counted() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let volume = driver.create("v", FLAKY).expect("made");
    let target = driver.up(&volume, "pod");
    let replaced = || driver.metric("fsi_csi_server_deaths_total{outcome=\"replaced\"}");
    // The driver has looked at it once, so that it knows what comes after.
    eventually("the server was seen", || driver.metric("fsi_csi_interposers") > 0.0);
    assert_eq!(replaced(), 0.0);
    driver.kill_server("v");
    eventually("the death is counted", || replaced() > 0.0);
    assert_eq!(errno_of_write(&target), Some(rustix::io::Errno::IO.raw_os_error()), "another one serves");
    assert_eq!(driver.metric("fsi_csi_server_deaths_total{outcome=\"aborted\"}"), 0.0);
    driver.down("v", &target);
    driver.nothing_left();
}

#[test]
fn a_mount_that_hangs_hangs_nobody() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let driver = Driver::start();
    let volume = driver.create("v", FLAKY).expect("made");
    let target = driver.up(&volume, "pod");
    let processes = driver.server_and_keeper(&driver.stage_of("v"));
    for pid in processes {
        kill_process(pid, Signal::STOP).expect("it runs");
    }
    let within = |limit, what: &dyn Fn()| {
        let started = Instant::now();
        what();
        assert!(started.elapsed() < Duration::from_secs(limit), "{:?}", started.elapsed());
    };
    within(10, &|| {
        let condition = driver.stats("v", &target).expect("an answer").volume_condition.expect("a condition");
        assert!(condition.abnormal && condition.message.contains("did not answer"), "{}", condition.message);
    });
    within(10, &|| {
        let status = driver.publish(&volume, "second").expect_err("it does not answer");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    });
    within(10, &|| driver.unpublish("v", &target).expect("unpublished"));
    within(10, &|| driver.unstage("v").expect("unstaged"));
    for pid in processes {
        kill_process(pid, Signal::CONT).expect("it is there");
    }
    eventually("both end by themselves", || processes.iter().all(|&pid| test_kill_process(pid).is_err()));
    driver.delete("v").expect("deleted");
    driver.nothing_left();
}

#[test]
fn the_controller_away_from_nodes_agrees_to_sizes_and_to_nothing_else() {
    let controller = Controller::start();
    eventually("it is ready", || controller.is_well("/readyz"));
    assert_eq!(controller.expand("v", 7 << 30).expect("agreed"), (7 << 30, true));
    assert_eq!(controller.expand("../v", 1).expect_err("refused").code(), Code::InvalidArgument);
    let status = controller.create("v").expect_err("there is no pool");
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.message(), "CreateVolume is answered by the driver on the node, not by the controller");
}
