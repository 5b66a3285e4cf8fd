//! Options that commands share: whom to look at, and which operations.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
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
                let path = path.display();
                return Err(Failure::Usage(format!(
                    "--cgroup {path}: is no cgroup directory (it has no cgroup.procs); give one below /sys/fs/cgroup"
                )));
            }
            directories.push(path.clone());
        }
        for id in container {
            directories.extend(container::find(id).map_err(|error| Failure::Failed(error.into()))?);
        }
        Ok(Some(Selection::Cgroups(directories)))
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
