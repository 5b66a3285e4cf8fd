//! A cluster of two nodes on this machine. The scripts of `tests/cluster` start it; all of its processes are below one cgroup, by
//! which they are found and ended, and everything else it made goes with them: mounts and links are in namespaces of theirs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::tools;
use xtask::workspace::Workspace;

use super::kubectl::Kubectl;
use crate::setup::{HELM, HELMFILE, KUBE};

/// Of all processes of a cluster, in every hierarchy.
pub(super) const CGROUP: &str = "fsi-e2e";
pub(super) const NODES: &str = "2";
const START: Duration = Duration::from_secs(240);
/// What is unmounted is written to the disk first.
const END: Duration = Duration::from_secs(180);
const PARTS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"];

/// Where a cluster keeps its files. One cluster at a time: its name is in cgroups, too.
pub(super) fn work() -> PathBuf {
    std::env::temp_dir().join(CGROUP)
}

/// A running one.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    work: PathBuf,
    pid: String,
}

impl Cluster {
    /// With the images of a folder on every node.
    pub(super) fn start(workspace: &Workspace, images: &Path) -> Result<Self> {
        let work = work();
        let bin = work.join("bin");
        fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
        for part in PARTS {
            symlink(KUBE.program(workspace), bin.join(part)).with_context(|| format!("link {part}"))?;
        }
        let log = work.join("control.log");
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new("setsid");
        command
            .args(["--fork", "unshare", "--net", "--mount", "--propagation", "private"])
            .arg(workspace.path("tests/cluster/control.sh"))
            .envs([("WORK", work.as_path()), ("BIN", &bin), ("IMAGES", images)])
            .env("NODES", NODES)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share a log")?)
            .stderr(file);
        let status = command.status().context("start setsid")?;
        if !status.success() {
            bail!("setsid: {status}");
        }
        let start = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.lines().any(|line| line == "UP") {
                break;
            }
            let is_over = start.elapsed() > Duration::from_secs(5) && processes()?.is_empty();
            if is_over || start.elapsed() > START {
                bail!("the cluster did not start:\n{said}\nits logs are in {}", keep_logs(&work)?.display());
            }
            thread::sleep(Duration::from_millis(200));
        }
        let pid = fs::read_to_string(work.join("pid")).context("read the cluster's pid")?.trim().to_owned();
        println!("  two nodes are ready in {:.0} s", start.elapsed().as_secs_f64());
        let cluster = Self { work, pid };
        cluster.write_entrance(workspace)?;
        Ok(cluster)
    }

    /// What a program of this machine is started with to reach the cluster.
    fn reach(&self) -> Vec<OsString> {
        ["nsenter", "--net", "--target", &self.pid].iter().map(OsString::from).collect()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.work.join("admin.conf")
    }

    pub(super) fn kubectl(&self) -> Kubectl {
        let mut command = self.reach();
        command.push(self.work.join("bin/kubectl").into());
        Kubectl::through(command, &self.kubeconfig())
    }

    /// A program that opens a shell in which kubectl, helm and ctr just work.
    fn write_entrance(&self, workspace: &Workspace) -> Result<()> {
        let (work, pid) = (self.work.display(), &self.pid);
        // What is for a person alone: the nodes have a ctr of their own.
        let tools = self.work.join("tools");
        fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
        for (name, tool) in [("helm", HELM), ("helmfile", HELMFILE)] {
            symlink(tool.program(workspace), tools.join(name)).with_context(|| format!("link {name}"))?;
        }
        let ctr = tools::on_path("ctr").context("no ctr")?;
        let on_each_node = format!(
            r#"# ctr, on one node after the other.
for pid in {work}/node-*/pid; do
    nsenter --mount --wd="$PWD" --target "$(cat "$pid")" {} "$@" || exit
done"#,
            ctr.display()
        );
        script(&tools.join("ctr"), &on_each_node)?;
        let enter = format!(
            r#"# A shell, or a command, in the network of the cluster.
export KUBECONFIG={work}/admin.conf PATH={work}/tools:{work}/bin:$PATH
# What Helm keeps of charts and repositories goes with the cluster.
export HELM_CACHE_HOME={work}/helm HELM_CONFIG_HOME={work}/helm HELM_DATA_HOME={work}/helm HELMFILE_CACHE_HOME={work}/helm
[ $# -gt 0 ] || set -- "${{SHELL:-/bin/sh}}"
exec nsenter --net --target {pid} -- "$@""#
        );
        script(&entrance(), &enter)
    }

    pub(super) fn explain(&self) {
        let work = self.work.display();
        println!("\nThe cluster goes on. Its API server is in a network of its own:");
        println!(
            "  {work}/enter                        # a shell in it, with KUBECONFIG={work}/admin.conf, kubectl and helm"
        );
        println!("  {work}/enter kubectl get pods -A    # or one command");
        println!("  cargo xtask e2e --down                    # ends it and leaves nothing");
    }
}

/// What a command of a person is started with.
pub(super) fn entrance() -> PathBuf {
    work().join("enter")
}

fn script(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, format!("#!/bin/sh\n{text}\n"))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("write {}", path.display()))
}

/// Ends every process of a cluster and removes what it kept; whether there was one.
pub(super) fn down() -> Result<bool> {
    let deadline = Instant::now() + END;
    let work = work();
    let was_there = work.exists() || !processes()?.is_empty();
    loop {
        let left = processes()?;
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            bail!("{} processes of the cluster do not end: {}", left.len(), left.join(" "));
        }
        // Some end by themselves meanwhile, of which kill would complain.
        Command::new("kill").arg("-KILL").args(&left).stderr(Stdio::null()).status().context("start kill")?;
        thread::sleep(Duration::from_millis(100));
    }
    for hierarchy in hierarchies()? {
        remove_cgroups(&hierarchy.join(CGROUP), deadline)?;
    }
    // Mounts end with the last process that saw them, a moment after it.
    while let Err(error) = fs::remove_dir_all(&work) {
        if error.kind() == ErrorKind::NotFound {
            break;
        }
        if Instant::now() > deadline {
            return Err(error).with_context(|| format!("remove {}", work.display()));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(was_there)
}

/// The logs of a cluster that is going to be removed, moved to where they stay.
fn keep_logs(work: &Path) -> Result<PathBuf> {
    let place = std::env::temp_dir().join("fsi-e2e-logs");
    fs::create_dir_all(&place).context("create a folder for logs")?;
    let folders = ["", "log", "node-1", "node-2"].map(|folder| work.join(folder));
    for file in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let path = file.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let folder = path.parent().and_then(Path::file_name).unwrap_or_default().display().to_string();
            fs::copy(&path, place.join(format!("{folder}-{}", file.file_name().display()))).context("copy a log")?;
        }
    }
    Ok(place)
}

/// Where cgroup hierarchies are mounted.
pub(super) fn hierarchies() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let cgroup = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        source.starts_with("cgroup").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    };
    Ok(table.lines().filter_map(cgroup).collect())
}

/// The pids below the cgroup, by any hierarchy.
fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        collect(&hierarchy.join(CGROUP), &mut found);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What vanishes on the way has no processes any more.
fn collect(cgroup: &Path, found: &mut Vec<String>) {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    found.extend(pids.lines().filter(|pid| *pid != "0").map(str::to_owned));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

/// Deepest first. One whose last process has just ended is busy for a moment.
fn remove_cgroups(cgroup: &Path, deadline: Instant) -> Result<()> {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path(), deadline)?;
        }
    }
    loop {
        match fs::remove_dir(cgroup) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("remove {}", cgroup.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
