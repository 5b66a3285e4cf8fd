//! What every measurement needs: the release binaries, a directory on a disk, and children that end when they must.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use xtask::cargo_env::forget_outer_cargo;
use xtask::tools;
use xtask::workspace::Workspace;

use crate::child::{self, Event};
use crate::mounts;

/// No single measurement takes longer; what does hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// What may be missing on a machine, and is then skipped by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Bpftrace,
    Perf,
    Strace,
    Fio,
    PassthroughLl,
    Bindfs,
}

impl Peer {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Perf => "perf",
            Self::Strace => "strace",
            Self::Fio => "fio",
            Self::PassthroughLl => "passthrough_ll",
            Self::Bindfs => "bindfs",
        }
    }

    pub(super) fn is_here(self) -> bool {
        match self {
            Self::PassthroughLl => tools::is_executable(&tools::passthrough_ll()),
            Self::Bpftrace | Self::Perf | Self::Strace | Self::Fio | Self::Bindfs => {
                tools::on_path(self.program()).is_some()
            }
        }
    }
}

/// Binaries and the directory; the directory is removed with it.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) fsi: PathBuf,
    pub(super) driver: PathBuf,
    pub(super) bench_loop: PathBuf,
    pub(super) fsi_csi: PathBuf,
    pub(super) bench_csi: PathBuf,
    /// Not on tmpfs, which knows no O_DIRECT: below the build output.
    work: PathBuf,
}

impl Kit {
    pub(super) fn prepare(workspace: &Workspace) -> Result<Self> {
        build(workspace)?;
        let release = workspace.target_dir().join("release");
        let work = workspace.target_dir().join("bench").join("work");
        mounts::clear(&work)?;
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("empty {}", work.display()))?;
        }
        fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
        Ok(Self {
            fsi: release.join("fsi"),
            driver: release.join("examples/bench_driver"),
            bench_loop: release.join("bench_loop"),
            fsi_csi: release.join("fsi-csi"),
            bench_csi: release.join("bench_csi"),
            work,
        })
    }

    /// Puts the files that the loops use into a directory.
    pub(super) fn fill(&self, directory: &Path) -> Result<()> {
        self.lines(self.loops_in(directory, &[("prepare", 1)])).map(drop)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.work
    }

    /// A file in the directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    pub(super) fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// `bench_loop` and its arguments.
    pub(super) fn loop_words(&self, loops: &[(&str, u64)]) -> Vec<String> {
        let mut words = vec![self.bench_loop.display().to_string(), self.work.display().to_string()];
        words.extend(loops.iter().map(|(name, iterations)| format!("{name}={iterations}")));
        words
    }

    /// `bench_loop` in another directory.
    pub(super) fn loops_in(&self, directory: &Path, loops: &[(&str, u64)]) -> Command {
        let mut command = Command::new(&self.bench_loop);
        command.arg(directory).args(loops.iter().map(|(name, iterations)| format!("{name}={iterations}")));
        command
    }

    /// Runs to the end; everything that was printed. A failure is told with the last of it.
    pub(super) fn lines(&self, command: Command) -> Result<Vec<String>> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut lines = Vec::new();
        let ended = child::stream(command, LIMIT, |event| {
            if let Event::Line(line) = event {
                lines.push(line.to_owned());
            }
        })?;
        if !ended.is_success() {
            let last = lines.iter().rev().take(5).rev().cloned().collect::<Vec<_>>().join("\n  ");
            bail!("{program}: {ended}\n  {last}");
        }
        Ok(lines)
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        // What is still mounted must not be emptied; what stays is emptied by the next run.
        if mounts::clear(&self.work).is_err() {
            return;
        }
        fs::remove_dir_all(&self.work).unwrap_or_default();
    }
}

/// All in one go: cargo would build what they share anew for each.
fn build(workspace: &Workspace) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--package", "fsi-agent", "--bin", "fsi", "--example", "bench_driver"]);
    command.args(["--package", "fsi-tests", "--bin", "bench_loop", "--bin", "bench_csi"]);
    command.args(["--package", "fsi-csi", "--bin", "fsi-csi"]).current_dir(workspace.root());
    // Else some dependencies are built anew each time a build from the shell and this one alternate.
    forget_outer_cargo(&mut command);
    command.env("CARGO_TARGET_DIR", workspace.target_dir());
    let status = command.status().context("start cargo")?;
    if !status.success() {
        bail!("building what is measured failed ({status}); cargo's words are above");
    }
    Ok(())
}

/// A tracing program of the kernel's tracefs, which need not be mounted: it is for this child alone.
pub(super) fn with_tracefs<W: AsRef<OsStr>>(words: &[W]) -> Command {
    const SCRIPT: &str =
        r#"test -d /sys/kernel/tracing/events || mount -t tracefs nodev /sys/kernel/tracing; exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).args(words);
    command
}
