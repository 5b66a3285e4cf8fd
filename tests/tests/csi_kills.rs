//! SIGKILL to the CSI driver at random moments of every call: what was asked for comes about when it is asked for again, and nothing is left.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fsi_csi::proto::csi::Volume;
use fsi_tests::csi::Driver;
use fsi_tests::csi::pod::write_until;
use fsi_tests::csi::requests::{FLAKY, errno_of_write, inline_volume};
use fsi_tests::eventually::eventually;
use fsi_tests::mount::scratch;
use fsi_tests::need::{Need, has};
use fsi_tests::node_keeper::NodeKeeper;
use fsi_tests::stop::Stop;
use rustix::process::{Signal, kill_process};
use tonic::Status;

/// A rule that concerns every write and fails none of them.
const SLOW: &[(&str, &str)] =
    &[("rules", "version: 1\nrules: [ { name: slow, match: { ops: [write] }, do: { delay: 1ms } } ]")];
/// Volumes that live and die in each test; each is about seven kills.
const LIVES: usize = 10;
/// The kubelet asks for longer.
const ASKS_FOR: Duration = Duration::from_secs(30);

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What dies with the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dies {
    Alone,
    /// As all that is in a container.
    WithItsServers,
}

/// A driver that is killed, and what was done to it.
struct Struck {
    driver: Driver,
    dies: Dies,
    numbers: Numbers,
    kills: usize,
    /// Calls that were under way when it died.
    interrupted: usize,
}

impl Struck {
    fn new(driver: Driver, dies: Dies) -> Self {
        Self { driver, dies, numbers: Numbers(7), kills: 0, interrupted: 0 }
    }

    /// Kills the driver some time into a call, and starts another one.
    fn strike<T: Send>(&mut self, call: impl Fn(&Driver) -> Result<T, Status> + Sync) {
        // Some calls take a millisecond and some a hundred.
        let longest = 1_000 << self.numbers.below(7);
        let after = Duration::from_micros(self.numbers.below(longest));
        let driver = &self.driver;
        let is_interrupted = thread::scope(|scope| {
            let under_way = scope.spawn(|| call(driver).is_err());
            thread::sleep(after);
            driver.kill_now();
            if self.dies == Dies::WithItsServers {
                for server in driver.servers() {
                    // It may have ended with the driver.
                    kill_process(server, Signal::KILL).ok();
                }
            }
            under_way.join().expect("no panic")
        });
        self.kills += 1;
        self.interrupted += usize::from(is_interrupted);
        self.driver.kill_and_restart();
    }

    /// Asks again and again, as the kubelet does.
    fn ask<T>(&self, call: impl Fn(&Driver) -> Result<T, Status>) -> T {
        let begin = Instant::now();
        loop {
            let answer = call(&self.driver);
            if answer.is_ok() || begin.elapsed() > ASKS_FOR {
                return answer.expect("it is done");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// One call, struck, and then asked for again; or not, as when the pod was deleted meanwhile.
    fn step<T: Send>(&mut self, call: impl Fn(&Driver) -> Result<T, Status> + Sync) -> Option<T> {
        self.strike(&call);
        (self.numbers.below(3) > 0).then(|| self.ask(&call))
    }

    fn claim(&mut self, id: &str, parameters: &[(&str, &str)]) {
        let made = self.step(|driver| driver.create(id, parameters));
        if let Some(volume) = made {
            let staged = self.step(|driver| driver.stage(&volume)).is_some();
            if staged {
                self.publish(&volume, parameters);
            }
            self.strike(|driver| driver.unstage(id));
            self.ask(|driver| driver.unstage(id));
        }
        self.strike(|driver| driver.delete(id));
        self.ask(|driver| driver.delete(id));
    }

    fn publish(&mut self, volume: &Volume, parameters: &[(&str, &str)]) {
        let id = volume.volume_id.as_str();
        let target = self.driver.target_of(id, "pod");
        if self.step(|driver| driver.publish(volume, "pod")).is_some() {
            self.serves(&target, parameters);
            if self.step(|driver| driver.expand(id, &target, 128 << 20)).is_some() {
                self.serves(&target, parameters);
            }
        }
        self.unpublish(id, &target);
    }

    fn inline(&mut self, id: &str, attributes: &[(&str, &str)]) {
        let volume = inline_volume(id, attributes);
        let target = self.driver.target_of(id, "pod");
        if self.step(|driver| driver.publish(&volume, "pod")).is_some() {
            self.serves(&target, attributes);
        }
        self.unpublish(id, &target);
    }

    fn unpublish(&mut self, id: &str, target: &Path) {
        self.strike(|driver| driver.unpublish(id, target));
        self.ask(|driver| driver.unpublish(id, target));
        assert!(!target.exists(), "the target is removed");
    }

    /// The pod sees what it should, after a pause at the most.
    fn serves(&self, target: &Path, parameters: &[(&str, &str)]) {
        let expected = (parameters == FLAKY).then(|| rustix::io::Errno::IO.raw_os_error());
        assert_eq!(errno_of_write(target), expected, "{}", target.display());
    }

    fn nothing_left(&self) {
        let driver = &self.driver;
        eventually("no mount is left", || driver.mounts().is_empty());
        eventually("no server is left", || driver.servers().is_empty());
        let records: Vec<_> = files(&driver.path("run/csi/mounts"));
        assert_eq!(records, Vec::<PathBuf>::new());
        driver.forgets_starts();
        for folder in ["pool/volumes", "pool/new", "pool/gone"] {
            let left: Vec<_> = files(&driver.path(folder)).into_iter().filter(|path| !is_half_written(path)).collect();
            assert_eq!(left, Vec::<PathBuf>::new());
        }
        assert!(self.interrupted * 5 > self.kills, "only {} of {} kills struck a call", self.interrupted, self.kills);
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Swept by the driver that starts a minute later.
fn is_half_written(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".new-"))
}

/// A pod writes to its volume all the while, and takes no error for an answer.
fn live_and_die(struck: &mut Struck) {
    let steady = struck.driver.create("steady", SLOW).expect("it is made");
    let target = struck.driver.up(&steady, "pod");
    let stop = Stop::default();
    let rounds = thread::scope(|scope| {
        let said = stop.at_end();
        let pod = scope.spawn(|| write_until(&stop, &target));
        for life in 0..LIVES {
            let parameters: &[(&str, &str)] = if life % 3 == 2 { &[] } else { FLAKY };
            struck.claim(&format!("v{life}"), parameters);
            struck.inline(&format!("csi-{life}"), parameters);
        }
        drop(said);
        pod.join().expect("it goes well")
    });
    assert!(rounds > 0);
    struck.ask(|driver| driver.unpublish("steady", &target));
    struck.ask(|driver| driver.unstage("steady"));
    struck.ask(|driver| driver.delete("steady"));
    struck.nothing_left();
}

#[test]
fn the_driver_is_killed_in_the_middle_of_every_call() {
    if !has(&[Need::Mounts]) {
        return;
    }
    live_and_die(&mut Struck::new(Driver::start(), Dies::Alone));
}

#[test]
fn the_driver_is_killed_with_its_servers_in_the_middle_of_every_call() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let keeper = NodeKeeper::start(directory.path());
    live_and_die(&mut Struck::new(Driver::kept_by(&keeper), Dies::WithItsServers));
    eventually("nothing is kept", || keeper.kept().is_empty());
}

/// A request that a server has taken is given back by nobody, not even to a caller that is killed: without an answer to it the driver
/// could not end, and without its end no other one comes to start servers.
#[test]
fn a_driver_that_waits_for_a_server_can_be_killed_together_with_it() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let directory = scratch();
    let keeper = NodeKeeper::start(directory.path());
    let mut driver = Driver::kept_by(&keeper);
    let rules = "version: 1\nrules: [{ name: hangs, match: { ops: [statfs] }, when: { skip: 1, limit: 1 }, do: { delay: 1h } }]";
    let volume = driver.create("v", &[("rules", rules)]).expect("it is made");
    driver.stage(&volume).expect("it is staged");
    // Asks whether the stage is well.
    let target = driver.publish(&volume, "pod").expect("it is published");
    let servers = driver.servers();
    assert_eq!(servers.len(), 1);
    thread::scope(|scope| {
        let asked = scope.spawn(|| driver.stats("v", &target));
        thread::sleep(Duration::from_millis(500));
        for server in &servers {
            kill_process(*server, Signal::STOP).expect("it runs");
        }
        driver.kill_now();
        for server in &servers {
            kill_process(*server, Signal::KILL).expect("it is stopped");
        }
        assert!(asked.join().expect("no panic").is_err(), "nobody answers");
    });
    let begin = Instant::now();
    driver.kill_and_restart();
    assert!(begin.elapsed() < ASKS_FOR, "it ended and another started after {:?}", begin.elapsed());
    assert_eq!(errno_of_write(&target), None, "another server serves");
    driver.down("v", &target);
    driver.delete("v").expect("deleted");
    driver.nothing_left();
}
