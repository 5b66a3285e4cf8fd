//! Options that commands share: whom to look at, and which operations.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fsi_agent::attach::client::AttachError;
use fsi_agent::attach::{Whom, agent_socket};
use fsi_agent::probe::options::{GlobList, Selection};
use fsi_agent::selection::glob::{self, GlobStyle};
use fsi_agent::selection::{container, quantity};
use fsi_common::op::OpKind;

use super::Failure;

/// Who is observed.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Whom to observe")]
pub(super) struct SelectionArgs {
    /// A running process, its threads and its descendants
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// Everything in this cgroup directory and below, for example /sys/fs/cgroup/system.slice (repeatable)
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
    /// A container by its id, which may be cut short (repeatable)
    #[arg(long, value_name = "ID")]
    pub container: Vec<String>,
    /// Every process but fsi itself
    #[arg(long)]
    pub all: bool,
}

impl SelectionArgs {
    /// What was chosen; nothing when none was.
    pub(super) fn resolve(&self) -> Result<Option<Selection>, Failure> {
        let Self { pid, cgroup, container, all } = self;
        let cgroups = !cgroup.is_empty() || !container.is_empty();
        if usize::from(pid.is_some()) + usize::from(cgroups) + usize::from(*all) > 1 {
            let sentence = "--pid, --cgroup/--container and --all exclude each other; give one of them";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        if let Some(pid) = pid {
            return Ok(Some(Selection::Pid(*pid)));
        }
        if *all {
            return Ok(Some(Selection::All));
        }
        if !cgroups {
            return Ok(None);
        }
        let mut directories = Vec::new();
        for path in cgroup {
            if !path.join("cgroup.procs").exists() {
                return Err(no_cgroup(path));
            }
            directories.push(path.clone());
        }
        for id in container {
            directories.extend(container::find(id).map_err(|error| Failure::Failed(error.into()))?);
        }
        Ok(Some(Selection::Cgroups(directories)))
    }
}

/// Watching through an agent.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Through the agent")]
pub(super) struct AttachArgs {
    /// Attach to the agent that runs, and load no probes [default SOCKET: agent-control.sock in $FSI_RUN_DIR or /run/fsi]
    #[arg(long, value_name = "SOCKET", num_args = 0..=1)]
    pub attach: Option<Option<PathBuf>>,
    /// The pods whose name matches this glob; needs --attach
    #[arg(long, value_name = "NAME", requires = "attach")]
    pub pod: Option<String>,
    /// The pods of the namespaces whose name matches this glob; needs --attach
    #[arg(long, value_name = "NS", requires = "attach")]
    pub namespace: Option<String>,
}

impl AttachArgs {
    /// The agent and whom to watch, if through an agent; `None` stands for nobody chosen.
    pub(super) fn resolve(&self, selection: &SelectionArgs) -> Result<Option<(PathBuf, Option<Whom>)>, Failure> {
        let Self { attach, pod, namespace } = self;
        let Some(socket) = attach else { return Ok(None) };
        let socket = socket.clone().unwrap_or_else(agent_socket);
        let SelectionArgs { pid, cgroup, container, all } = selection;
        if pid.is_some() {
            let sentence =
                "--attach: the agent tells cgroups apart, not processes; give --cgroup, or leave out --attach";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        let (by_pod, by_cgroup) = (pod.is_some() || namespace.is_some(), !cgroup.is_empty() || !container.is_empty());
        if usize::from(by_pod) + usize::from(by_cgroup) + usize::from(*all) > 1 {
            let sentence = "--cgroup/--container, --pod/--namespace and --all exclude each other; give one of them";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        if by_pod {
            return Ok(Some((socket, Some(Whom::Pods { pod: pod.clone(), namespace: namespace.clone() }))));
        }
        if by_cgroup {
            let canonical = |path: &PathBuf| {
                let path = path
                    .canonicalize()
                    .map_err(|error| Failure::usage(&format!("--cgroup {}", path.display()), error))?;
                if path.join("cgroup.procs").exists() { Ok(path) } else { Err(no_cgroup(&path)) }
            };
            let directories = cgroup.iter().map(canonical).collect::<Result<_, _>>()?;
            return Ok(Some((socket, Some(Whom::Cgroups { directories, containers: container.clone() }))));
        }
        Ok(Some((socket, all.then_some(Whom::All))))
    }
}

fn no_cgroup(path: &Path) -> Failure {
    let path = path.display();
    Failure::Usage(format!(
        "--cgroup {path}: is no cgroup directory (it has no cgroup.procs); give one below /sys/fs/cgroup"
    ))
}

/// An agent that is not there says how to do without.
pub(super) fn not_attached(error: AttachError) -> Failure {
    match &error {
        AttachError::NoAgent(_) => {
            Failure::Failed(anyhow::anyhow!("{error}; leave out --attach to watch with probes of our own"))
        }
        _ => Failure::Failed(error.into()),
    }
}

/// Which operations are looked at.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Which operations")]
pub(super) struct FilterArgs {
    /// Only operations on paths that match: `*`, `**`, `?`, `[a-z]`, `{a,b}`; without a leading `/` at any depth (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub path: Vec<String>,
    /// No operations on paths that match; wins over --path (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub not_path: Vec<String>,
    /// Only processes whose command name (at most 15 bytes) matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub process: Vec<String>,
    /// No processes whose command name matches; wins over --process (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub not_process: Vec<String>,
    /// Only these operations, with commas between them, for example `read,write,fsync` [default: all]
    #[arg(long, value_name = "LIST", value_parser = OpList::parse)]
    pub op: Option<OpList>,
}

/// A list of operations; its own type because clap reads a `Vec` as one value each.
#[derive(Clone, Debug)]
pub(super) struct OpList(pub Vec<OpKind>);

impl OpList {
    fn parse(text: &str) -> Result<Self, quantity::QuantityError> {
        quantity::operations(text).map(Self)
    }
}

/// The filters as the probe takes them, proved to compile.
#[derive(Debug)]
pub(super) struct Filters {
    pub paths: GlobList,
    pub processes: GlobList,
    pub operations: Vec<OpKind>,
}

impl FilterArgs {
    pub(super) fn resolve(self) -> Result<Filters, Failure> {
        let Self { path, not_path, process, not_process, op } = self;
        let paths = GlobList { include: path, exclude: not_path };
        let processes = GlobList { include: process, exclude: not_process };
        glob::compile(&paths, GlobStyle::Path).map_err(|error| Failure::usage("--path or --not-path", error))?;
        glob::compile(&processes, GlobStyle::Name)
            .map_err(|error| Failure::usage("--process or --not-process", error))?;
        Ok(Filters { paths, processes, operations: op.map(|list| list.0).unwrap_or_default() })
    }
}

/// Which operations are reported one by one.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Which operations are reported one by one (counts and totals always hold all)")]
pub(super) struct EventArgs {
    /// Those that took at least this long (ns, us, ms, s), for example 1ms
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub slower: Option<Duration>,
    /// Those that failed
    #[arg(long)]
    pub failed: bool,
    /// One in N, for example 1/100
    #[arg(long, value_name = "1/N", value_parser = quantity::sample)]
    pub sample: Option<NonZeroU32>,
}

/// How the probe works.
#[derive(Args, Debug)]
#[command(next_help_heading = "Probes")]
pub(super) struct ProbeArgs {
    /// Size of the buffer between kernel and fsi: a power of two, at least 4KiB (KiB, MiB, GiB)
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = quantity::ring)]
    pub ring: u32,
    /// Show the kernel side's own debug log on stderr
    #[arg(long)]
    pub debug_probes: bool,
}
