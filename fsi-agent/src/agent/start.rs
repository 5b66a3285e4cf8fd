//! From a configuration to a running agent; everything that can be refused is refused before the probes are loaded.

use std::env;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing_subscriber::EnvFilter;

use super::AgentError;
use super::attached::Attached;
use super::chores::Chores;
use super::cost::Cost;
use super::mounts::Mounts;
use super::names::Whose;
use super::outputs::{Choice, Collectors, Outputs};
use super::pages::{AgentPages, gather};
use super::policies::Wanted;
use super::taps::Taps;
use super::watch::Watcher;
use crate::attach::service::AttachServer;
use crate::attribution::kubernetes::Kubernetes;
use crate::attribution::{self, Attribution};
use crate::clock::Clock;
use crate::config::{Config, Enabled, Endpoint, Log, LogFormat, Spool};
use crate::observe::Signals;
use crate::observe::scrape::ScrapeDesk;
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::probe::Probe;
use crate::probe::options::{EventPolicy, GlobList, ProbeOptions, Selection};
use crate::reports::ReportsServer;
use crate::selection::container;
use crate::telemetry::metrics::exemplars::Exemplars;
use crate::telemetry::metrics::node::NodeCounts;
use crate::telemetry::serve::{Condition, serve};

/// Messages of mounts that may wait, each with at most 512 reports; mounts wait when it is full, and then drop.
const MAX_MESSAGES: usize = 64;

/// Questions that may wait; the agent looks every few milliseconds.
const MAX_ASKS: usize = 64;

/// Where the agent logs to from here on: stderr.
pub(super) fn log(log: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_none| {
        // What went wrong with a watch is said by who watches.
        EnvFilter::new(format!("{},kube_runtime=error", log.level.name()))
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // One that is set already stays.
    drop(set);
}

pub(super) fn watcher(path: &Path, config: Config) -> Result<Watcher, AgentError> {
    warn_of_cgroups(&config.observe.cgroups);
    let signals = Signals::listen().map_err(AgentError::Signals)?;
    let (sender, from_mounts) = crossbeam_channel::bounded(MAX_MESSAGES);
    let reports = ReportsServer::listen(&config.mounts.socket, sender)?;
    let desk = ScrapeDesk::default();
    let exemplars = config.metrics.exemplars.then(|| Arc::new(Exemplars::new(config.metrics.max_series)));
    let condition = Arc::new(Mutex::new(Condition::Unwell("the agent starts".to_owned())));
    let pages = AgentPages { desk: desk.clone(), exemplars: exemplars.clone(), condition: Arc::clone(&condition) };
    let server = config.metrics.listen.map(|addr| serve(addr, pages)).transpose()?;
    let kubernetes = kubernetes(path, &config)?;
    let attribution = Attribution::start(attribution::Config {
        kubelet: Some(config.kubernetes.kubelet_root.clone()),
        kubernetes,
        ..attribution::Config::default()
    })?;
    let cluster = config.cluster.clone().unwrap_or_default();
    let whose = Arc::new(Whose::new(Arc::clone(&attribution), &config.node_name(), cluster));
    let (asks, asked) = crossbeam_channel::bounded(MAX_ASKS);
    let attached = AttachServer::listen(&config.control.socket, asks, Arc::clone(&attribution));
    let attached = Attached::new(attached.map_err(AgentError::Control)?, asked);
    let collectors = Collectors::open(&config, &whose, &gather(&desk))?;
    let outputs = Outputs::new(collectors, Choice::new(&config, None)?, &whose, exemplars.clone());
    let probe = Probe::load(&ProbeOptions {
        selection: Selection::Policies,
        events: EventPolicy::default(),
        follow_files: false,
        follow_processes: true,
        interposed: true,
        paths: GlobList::default(),
        processes: GlobList::default(),
        operations: Vec::new(),
        ring_bytes: config.observe.ring_bytes,
        debug: false,
    })?;
    if !probe.joins() {
        tracing::warn!(
            "the kernel does not tell which operation sent a request to a mount (`join` of `fsi doctor` says why): what mounts do is told apart from operations"
        );
    }
    let options = PipelineOptions { max_open: config.spans.max_open, joins: true, ..PipelineOptions::default() };
    Ok(Watcher {
        path: path.to_owned(),
        numbers: NodeCounts::new(config.metrics.max_series),
        pipeline: Pipeline::new(options, Clock::measure()),
        config,
        probe,
        taps: Taps::new(outputs, Arc::clone(&whose)),
        attached,
        whose,
        attribution,
        from_mounts,
        reports,
        mounts: Mounts::default(),
        signals,
        desk,
        exemplars,
        condition,
        server,
        cost: Cost::new(),
        chores: Chores::new(),
        wanted: Wanted::default(),
        seen: None,
        forget_again: false,
        hangups: 0,
        reloads: [0; 2],
        ring_records: 0,
        complaints: std::collections::BTreeSet::new(),
        before: super::before::Before::default(),
    })
}

/// How to ask the API, if it is to be asked.
fn kubernetes(path: &Path, config: &Config) -> Result<Option<Kubernetes>, AgentError> {
    let in_cluster = env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let kubeconfig = config.kubernetes.kubeconfig.clone();
    let wanted = match config.kubernetes.enabled {
        Enabled::No => false,
        Enabled::Auto => in_cluster || kubeconfig.is_some(),
        Enabled::Yes if !in_cluster && kubeconfig.is_none() => {
            let reason = "the agent is not in a pod, and kubernetes.kubeconfig names no file".to_owned();
            return Err(AgentError::Kubernetes { path: path.to_owned(), reason });
        }
        Enabled::Yes => true,
    };
    Ok(wanted.then(|| Kubernetes { node: config.node_name(), kubeconfig }))
}

/// Says which of the configured cgroups will not be looked at: those that are not there, or lie in another hierarchy than the one whose
/// ids the kernel side reports.
pub(super) fn warn_of_cgroups(directories: &[PathBuf]) {
    let Some(root) = container::hierarchies().ok().and_then(|found| found.into_iter().next()) else {
        tracing::warn!("no hierarchy of cgroups is mounted here: nothing is looked at");
        return;
    };
    for directory in directories {
        let (path, hierarchy) = (directory.display(), root.display());
        match directory.canonicalize() {
            Ok(found) if found.starts_with(&root) => {}
            Ok(_elsewhere) => {
                tracing::warn!(%path, %hierarchy, "observe.cgroups: it lies in another hierarchy of cgroups, and is not looked at; give its path in this one");
            }
            Err(error) => {
                tracing::warn!(%path, %error, "observe.cgroups: it is not there, and is looked at once it is")
            }
        }
    }
}

/// Ids of cgroup directories that exist; one that does not has none.
pub(super) fn cgroup_ids(directories: &[PathBuf]) -> Vec<u64> {
    let id = |directory: &PathBuf| std::fs::metadata(directory).ok().map(|metadata| metadata.ino());
    directories.iter().filter_map(id).collect()
}

/// What another configuration says that only a new start can do.
pub(super) fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let changed = [
        ("observe.ring", before.observe.ring_bytes != after.observe.ring_bytes),
        ("spans.max_open", before.spans.max_open != after.spans.max_open),
        ("metrics.exemplars", before.metrics.exemplars != after.metrics.exemplars),
        ("metrics.listen", before.metrics.listen != after.metrics.listen),
        ("kubernetes", before.kubernetes != after.kubernetes),
        ("mounts.socket", before.mounts != after.mounts),
        ("control.socket", before.control != after.control),
        ("node", before.node != after.node),
        ("cluster", before.cluster != after.cluster),
        ("log", before.log != after.log),
        ("otlp and spool", is_spooled(before, after) && collectors(before) != collectors(after)),
    ];
    changed.into_iter().filter_map(|(what, changed)| changed.then_some(what)).collect()
}

/// Whether the collectors are others. What is in a spool is one agent's at a time, so they are not changed while there is one.
pub(super) fn has_other_collectors(before: &Config, after: &Config) -> bool {
    !is_spooled(before, after) && collectors(before) != collectors(after)
}

/// What holds of collectors with a spool until the next start.
pub(super) fn keep_spooled(before: &Config, after: &mut Config) {
    if is_spooled(before, after) {
        after.otlp.clone_from(&before.otlp);
        after.spool.clone_from(&before.spool);
    }
}

const fn is_spooled(before: &Config, after: &Config) -> bool {
    before.spool.is_some() || after.spool.is_some()
}

const fn collectors(config: &Config) -> (&Vec<Endpoint>, &Option<Spool>) {
    (&config.otlp, &config.spool)
}
