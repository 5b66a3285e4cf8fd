//! A keeper that cannot have a server: how long it tries, and what is left when it gives up.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fsi_tests::cgroup::Cgroup;
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{binary, fsi, load, output, succeed, text};
use fsi_tests::mount::{Mount, Mounted, scratch};
use fsi_tests::need::{self, Need, has};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A mount whose keeper writes to a log.
struct Kept {
    mounted: Mounted,
    directory: TempDir,
}

impl Kept {
    fn with_deadline(deadline: &str) -> Option<Self> {
        if !has(&[Need::Mounts]) {
            return None;
        }
        let directory = scratch();
        let log = directory.path().join("log");
        let mount = Mount::plain().option("--deadline").option(deadline);
        let mounted = mount.option("--log").option(log.to_str().expect("a plain path")).mount();
        fs::write(mounted.target().join("file"), "x").expect("a file");
        Some(Self { mounted, directory })
    }

    fn keeper(&self) -> Pid {
        self.mounted.keeper().expect("there is one")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("the keeper writes it")
    }

    /// A helper that stands in for another `fsi`; `layout` is what it says it can take over.
    fn other(&self, layout: Option<&[u8]>) -> PathBuf {
        let other = self.directory.path().join("other");
        fs::copy(load(), &other).expect("a copy");
        if let Some(layout) = layout {
            fs::write(other.with_extension("layout"), layout).expect("a file");
        }
        other
    }

    fn is_served(&self) {
        assert_eq!(fs::read(self.mounted.target().join("file")).expect("it is served"), b"x");
    }

    /// The connection ends within a time that leaves the keeper its deadline, and nothing shows through.
    fn is_given_up(&self) {
        eventually("the mount is aborted", || errno(fs::metadata(self.mounted.target().join("file"))).is_some());
        assert_eq!(errno(fs::read_dir(self.mounted.target())), Some(Errno::NOTCONN), "nothing shows");
    }
}

fn errno<T>(result: Result<T, Error>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

/// A cgroup in which no process can be made until `pids.max` is `max` again; the keeper moves in.
fn without_forks(kept: &Kept) -> Option<Cgroup> {
    let hierarchy = Path::new("/sys/fs/cgroup/pids");
    let Some(cgroup) = Cgroup::below(hierarchy) else {
        need::skip(&format!("no cgroup can be made below {}", hierarchy.display()));
        return None;
    };
    cgroup.set("cgroup.procs", &kept.keeper().as_raw_nonzero().to_string());
    cgroup.set("pids.max", "1");
    Some(cgroup)
}

#[test]
fn a_server_that_cannot_be_started_is_tried_again() {
    let Some(kept) = Kept::with_deadline("20s") else { return };
    let Some(cgroup) = without_forks(&kept) else { return };
    kept.mounted.kill_server();
    thread::scope(|scope| {
        let reader = scope.spawn(|| kept.is_served());
        eventually("it cannot be started", || kept.log().contains("a server cannot be started: "));
        thread::sleep(Duration::from_millis(300));
        assert!(!reader.is_finished(), "it waits");
        cgroup.set("pids.max", "max");
        reader.join().expect("it is served");
    });
    assert_eq!(kept.log().matches("cannot be started").count(), 1, "it is told once");
    assert!(kept.mounted.ctl(["show"]).contains("2 servers so far"));
    // Its processes are to be gone before their cgroup is.
    drop((kept, cgroup));
}

#[test]
fn one_that_cannot_be_started_by_the_deadline_ends_the_mount() {
    let Some(kept) = Kept::with_deadline("3s") else { return };
    let Some(cgroup) = without_forks(&kept) else { return };
    let begun = Instant::now();
    kept.mounted.kill_server();
    kept.is_given_up();
    assert!(begun.elapsed() >= Duration::from_secs(3), "after the deadline: {:?}", begun.elapsed());
    eventually("the keeper says why", || kept.log().contains("run a server: "));
    // Its processes are to be gone before their cgroup is.
    drop((kept, cgroup));
}

/// Stops the next server before it can answer, as far as that can be seen from outside; whether there was one.
fn stops_the_next(keeper: Pid, before: Pid) -> Option<Pid> {
    let keeper = keeper.as_raw_nonzero();
    let children = format!("/proc/{keeper}/task/{keeper}/children");
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let children = fs::read_to_string(&children).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw) {
            // Its keeper waits for the exec: one that is stopped before would stop the keeper, too.
            let command = fs::read(format!("/proc/{}/cmdline", child.as_raw_nonzero())).unwrap_or_default();
            if child != before && command.starts_with(b"fsi\0serve") && kill_process(child, Signal::STOP).is_ok() {
                return Some(child);
            }
        }
    }
    None
}

#[test]
fn a_server_that_is_not_ready_by_the_deadline_ends_the_mount() {
    let Some(kept) = Kept::with_deadline("3s") else { return };
    let keeper = kept.keeper();
    // One that was ready before it was stopped goes unnoticed; then another one is tried.
    for _ in 0..10 {
        let before = kept.mounted.server().expect("there is one");
        let stopped = thread::scope(|scope| {
            let stopper = scope.spawn(|| stops_the_next(keeper, before));
            kill_process(before, Signal::KILL).expect("it lives");
            stopper.join().expect("it does not panic").expect("another one is started")
        });
        thread::sleep(Duration::from_secs(5));
        if kept.log().contains("no server was ready for 3 s; the mount was aborted") {
            kept.is_given_up();
            return;
        }
        kill_process(stopped, Signal::KILL).unwrap_or_default();
        kept.is_served();
    }
    panic!("no server was stopped in time: {}", kept.log());
}

#[test]
fn an_upgrade_to_what_says_nothing_is_refused() {
    let Some(kept) = Kept::with_deadline("10s") else { return };
    let server = kept.mounted.server();
    let hangs = kept.other(None);
    let refused = output(fsi(["ctl", "--timeout", "15s"]).arg(kept.mounted.target()).arg("upgrade").arg(hangs));
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("it did not say within 3 s what it can take over"), "{said}");
    kept.is_served();
    assert_eq!(kept.mounted.server(), server, "the old one serves on");
}

#[test]
fn an_upgrade_to_what_is_never_ready_is_taken_back() {
    let Some(kept) = Kept::with_deadline("2s") else { return };
    let layout = succeed(&mut fsi(["serve", "--layout"])).stdout;
    let hangs = kept.other(Some(&layout));
    let begun = Instant::now();
    let refused = output(fsi(["ctl", "--timeout", "15s"]).arg(kept.mounted.target()).arg("upgrade").arg(hangs));
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("it did not take over"), "{}", text(&refused.stderr));
    kept.is_served();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it had half of the deadline: {:?}", begun.elapsed());
    assert!(kept.log().contains("the new binary did not take over: it was not ready in time"), "{}", kept.log());
    let server = kept.mounted.server().expect("there is one").as_raw_nonzero();
    let program = fs::read_link(format!("/proc/{server}/exe")).expect("it runs");
    assert_eq!(&program, binary(), "the old program serves");
}
