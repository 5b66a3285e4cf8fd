//! A mount of one test: a SOURCE on a real disk, a TARGET, and `fsi mount` between them. When it is over nothing of it may be
//! left, neither mount nor process.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::fsi::{binary, fsi, output, succeed, text, wrapped};

/// Every process of a mount inherits it, whatever becomes of its arguments; the value is the TARGET.
const MARK: &str = "FSI_TEST_MOUNT";

/// What a mount is to be.
#[derive(Debug)]
pub struct Mount {
    directory: TempDir,
    options: Vec<String>,
    /// Where its control socket is, and the agent's; none: the usual place.
    run: Option<PathBuf>,
    /// Runs `fsi` as its last arguments.
    wrapper: Vec<String>,
}

/// One that answers.
#[derive(Debug)]
pub struct Mounted {
    mount: Mount,
}

/// A process of a mount.
#[derive(Debug)]
struct Process {
    pid: i32,
    parent: i32,
}

impl Mount {
    /// Without rules.
    #[must_use]
    pub fn plain() -> Self {
        let directory = scratch();
        for name in ["source", "target"] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        Self { directory, options: Vec::new(), run: None, wrapper: Vec::new() }
    }

    /// With these rules.
    #[must_use]
    pub fn with_rules(rules: &str) -> Self {
        let mount = Self::plain();
        let file = mount.directory.path().join("rules.yaml");
        fs::write(&file, rules).expect("a file");
        mount.option("--rules").option(file.to_str().expect("a plain path"))
    }

    /// With that option too.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// With another `$FSI_RUN_DIR`.
    #[must_use]
    pub fn run_in(mut self, run: PathBuf) -> Self {
        self.run = Some(run);
        self
    }

    /// Run by a program that sets something up and then runs its last arguments.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With `--fault-log`, for `Mounted::fault_log`.
    #[must_use]
    pub fn logged(self) -> Self {
        let log = self.log_file().to_str().expect("a plain path").to_owned();
        self.option("--fault-log").option(&log)
    }

    /// What is mounted: the backing directory.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// Where.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn command(&self) -> Command {
        let mut command = match self.wrapper.split_first() {
            None => self.fsi("mount"),
            Some((program, arguments)) => {
                let mut command = wrapped(program);
                command.args(arguments).arg(binary()).arg("mount");
                command
            }
        };
        command.args(&self.options).arg(self.source()).arg(self.target()).env(MARK, self.target());
        command
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("faults.jsonl")
    }

    /// `fsi` with a command about this mount.
    fn fsi(&self, command: &str) -> Command {
        let mut command = fsi([command]);
        if let Some(run) = &self.run {
            command.env("FSI_RUN_DIR", run);
        }
        command
    }

    /// `fsi mount`, which returns when the mount answers.
    #[must_use]
    pub fn mount(self) -> Mounted {
        let mut command = self.command();
        let mounted = Mounted { mount: self };
        succeed(&mut command);
        assert!(is_mounted(&mounted.target()), "fsi mount said that it is done");
        mounted
    }

    /// `fsi mount` that is refused; what it said.
    #[must_use]
    pub fn refused(&self) -> Output {
        let mut command = self.command();
        let output = output(&mut command);
        assert!(!output.status.success(), "{command:?}");
        assert!(!is_mounted(&self.target()), "refused and mounted");
        output
    }
}

impl Mounted {
    /// The backing directory.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.mount.source()
    }

    /// The root of the mount.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        self.mount.target()
    }

    /// `fsi ctl TARGET ...`, which must succeed; what it answered.
    pub fn ctl<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> String {
        text(&succeed(self.mount.fsi("ctl").arg(self.target()).args(arguments)).stdout)
    }

    /// The log of injected faults.
    #[must_use]
    pub fn fault_log(&self) -> String {
        fs::read_to_string(self.mount.log_file()).unwrap_or_default()
    }

    /// The process that serves; none while one dies and the next is not there.
    #[must_use]
    pub fn server(&self) -> Option<Pid> {
        let processes = processes(&self.target());
        let child = processes.iter().find(|process| processes.iter().any(|other| other.pid == process.parent))?;
        Pid::from_raw(child.pid)
    }

    /// The process that holds what must outlive a server.
    #[must_use]
    pub fn keeper(&self) -> Option<Pid> {
        let processes = processes(&self.target());
        let parent = processes.iter().find(|process| processes.iter().any(|other| other.parent == process.pid))?;
        Pid::from_raw(parent.pid)
    }

    /// SIGKILL to the server, and that it is gone; the next one may be there already.
    pub fn kill_server(&self) {
        self.kill_server_timed();
    }

    /// The same; how long it took to die: one that waits for the disk has to.
    pub fn kill_server_timed(&self) -> Duration {
        let mut killed = None;
        eventually("there is a server to kill", || {
            killed = self.server();
            killed.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
        });
        let begun = Instant::now();
        eventually("the killed server is gone", || self.server() != killed);
        begun.elapsed()
    }

    /// `fsi umount`, as it ends.
    #[must_use]
    pub fn try_unmount(&self) -> Output {
        output(self.mount.fsi("umount").arg(self.target()))
    }

    /// Unmounts, and mounts the same again.
    pub fn remount(&self) {
        self.unmount();
        succeed(&mut self.mount.command());
    }

    fn unmount(&self) {
        let target = self.target();
        let output = self.try_unmount();
        assert!(output.status.success(), "{}\nbusy: {}", text(&output.stderr), busy(&target).join(", "));
        assert!(!is_mounted(&target), "fsi umount said that it is done");
        eventually("no process of the mount is left", || processes(&target).is_empty());
    }

    /// However it is.
    fn tear_down(&self) {
        let target = self.target();
        // The test has failed and says so; what it leaves must not fail the next one.
        let aborted = abort(&target);
        let detached = Command::new("umount").arg("--lazy").arg(&target).output();
        for process in processes(&target) {
            if let Some(pid) = Pid::from_raw(process.pid) {
                kill_process(pid, Signal::KILL).unwrap_or_default();
            }
        }
        drop((aborted, detached));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let target = self.target();
        if std::thread::panicking() {
            self.tear_down();
            return;
        }
        if is_mounted(&target) {
            self.unmount();
        }
        eventually("no process of the mount is left", || processes(&target).is_empty());
    }
}

/// A directory on a real disk, which `/tmp` often is not.
#[must_use]
pub fn scratch() -> TempDir {
    const TMPFS: i64 = 0x0102_1994;
    let is_disk = |path: &Path| rustix::fs::statfs(path).is_ok_and(|fs| i128::from(fs.f_type) != i128::from(TMPFS));
    let beside = std::env::current_exe().expect("this test has a path");
    let beside = beside.parent().expect("it is in a directory");
    let place = [Path::new("/var/tmp"), beside].into_iter().find(|path| is_disk(path)).expect("a disk");
    tempfile::Builder::new().prefix("fsi-tests-").tempdir_in(place).expect("a directory")
}

/// Whether something is mounted there, alive or not.
#[must_use]
pub fn is_mounted(target: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("every process has one");
    mounts.lines().any(|line| line.split(' ').nth(4) == target.to_str())
}

/// Who stands on it or has a file of it open, as `name (pid): where`.
#[must_use]
pub fn busy(target: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for pid in pids() {
        let own = PathBuf::from(format!("/proc/{pid}"));
        let descriptors = fs::read_dir(own.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let places = [own.join("cwd"), own.join("root")].into_iter().chain(descriptors);
        let name = fs::read_to_string(own.join("comm")).unwrap_or_default();
        let of_it = places.filter_map(|place| fs::read_link(place).ok()).filter(|path| path.starts_with(target));
        all.extend(of_it.map(|path| format!("{} ({pid}): {}", name.trim(), path.display())));
    }
    all
}

/// Ends the connection by force, so that nobody waits for it any more.
fn abort(target: &Path) -> Option<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(4) == target.to_str())?;
    let minor = line.split(' ').nth(2)?.split_once(':')?.1.to_owned();
    fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1").ok()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Those that carry the mark of that mount and are not dead.
fn processes(target: &Path) -> Vec<Process> {
    let mark = format!("{MARK}={}", target.display());
    let is_ours = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; after it come the state and the parent.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        (fields.next()? != "Z").then_some(())?;
        fields.next()?.parse().ok()
    };
    pids().filter(|pid| is_ours(*pid)).filter_map(|pid| Some(Process { pid, parent: parent(pid)? })).collect()
}
