//! `fsi observe`: options to a plain configuration, one call, and the summary in words or as JSON.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use fsi_agent::observe::{self, CommandEnd, Listing, ObserveConfig, ObserveError, TreeDrawing};
use fsi_agent::probe::options::{EventPolicy, ProbeOptions, Selection};
use fsi_agent::selection::quantity;
use fsi_agent::summary::{Summary, json, text};

use super::options::{AttachArgs, EventArgs, FilterArgs, Filters, ProbeArgs, SelectionArgs, not_attached};
use super::{Failure, output};

/// `fsi observe [options] -- CMD...` runs CMD and observes it and all its descendants; with --pid, --cgroup, --container
/// or --all what already runs, until Ctrl-C or for --for.
#[derive(Args, Debug)]
pub(super) struct ObserveArgs {
    /// The command to run and observe, and its arguments, after `--`
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    attach: AttachArgs,
    /// Stop observing after this time (ms, s, m, h), for example 30s [default: until the command ends, or Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    events: EventArgs,
    #[command(flatten)]
    outputs: OutputArgs,
    #[command(flatten)]
    probe: ProbeArgs,
}

/// Where results go.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The summary as one JSON document on stdout instead of as text on stderr
    #[arg(long)]
    json: bool,
    /// Draw processes, files and operations as a tree on stderr
    #[arg(long)]
    tree: bool,
    /// Send spans to an OpenTelemetry collector: grpc://HOST:4317 or http://HOST:4318 (grpcs, https)
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Longest time to wait for the collector at the end (ms, s)
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = quantity::duration)]
    otlp_deadline: Duration,
    /// Write spans to this file, as OTLP/JSON lines
    #[arg(long, value_name = "FILE")]
    spans: Option<PathBuf>,
    /// Write metrics to this file, as Prometheus text: every 5 s and at the end, each time as a whole
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Serve /metrics over HTTP while observing, for example 127.0.0.1:9464; port 0 takes a free one and says which
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<SocketAddr>,
}

pub(super) fn run(arguments: ObserveArgs) -> Result<ExitCode, Failure> {
    let as_json = arguments.outputs.json;
    let config = resolve(arguments)?;
    let listening = |addr| output::say(&format!("fsi: metrics at http://{addr}/metrics"));
    let observation = observe::run(&config, listening).map_err(failure)?;
    let look = output::look();
    if let Some(tree) = &observation.tree {
        output::say(&tree.render(&look));
    }
    let told = if as_json {
        document(&observation.summary)
    } else {
        output::say(&format!("\n{}", text::render(&observation.summary, &look)));
        Ok(())
    };
    let told = match (told, &observation.command) {
        // The exit code is the command's, whatever became of our document.
        (Err(Failure::Failed(error)), CommandEnd::Ended(_) | CommandEnd::Running(_)) => {
            output::say(&format!("fsi: {error}"));
            Ok(())
        }
        (told, _) => told,
    };
    told?;
    match observation.command {
        CommandEnd::NoCommand => Ok(ExitCode::SUCCESS),
        CommandEnd::Ended(status) => Ok(passed_on(status)),
        CommandEnd::LeftBehind { pid } => {
            output::say(&format!("fsi: the command still runs as process {pid}"));
            Ok(ExitCode::from(INTERRUPTED))
        }
        // The time given with --for is over; the exit code is the command's all the same.
        CommandEnd::Running(mut child) => {
            let status =
                child.wait().map_err(|error| Failure::Failed(anyhow::anyhow!("wait for the command: {error}")))?;
            Ok(passed_on(status))
        }
    }
}

fn document(summary: &Summary) -> Result<(), Failure> {
    let document = json::document(summary).map_err(|error| Failure::Failed(error.into()))?;
    output::result(&document)
}

/// What a shell reports for Ctrl-C.
const INTERRUPTED: u8 = 130;

/// The command's exit code, or 128 + signal, as shells report it.
fn passed_on(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

fn failure(error: ObserveError) -> Failure {
    match error {
        ObserveError::Attach(error) => not_attached(error),
        error => other_failure(error),
    }
}

fn other_failure(error: ObserveError) -> Failure {
    match &error {
        ObserveError::NotFound { .. } => Failure::Code(127, error.into()),
        ObserveError::NotExecutable { .. } => Failure::Code(126, error.into()),
        ObserveError::Probe(_)
        | ObserveError::Attach(_)
        | ObserveError::Spawn { .. }
        | ObserveError::Wait(_)
        | ObserveError::Signals(_)
        | ObserveError::Output(_)
        | ObserveError::Gone { .. } => Failure::Failed(error.into()),
        ObserveError::Otlp(_) => Failure::usage("--otlp", error),
    }
}

fn resolve(arguments: ObserveArgs) -> Result<ObserveConfig, Failure> {
    let ObserveArgs { command, selection, attach, duration, filters, events, outputs, probe } = arguments;
    let attach = match attach.resolve(&selection)? {
        None => None,
        Some(_) if !command.is_empty() => {
            let sentence = "--attach: a command is observed from its first operation on, with probes of its own; leave out --attach, or the command";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        Some((_, None)) => {
            let sentence = "--attach: say whom to observe: --cgroup, --container, --pod, --namespace, or --all that the agent looks at";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        Some((socket, Some(whom))) => Some((socket, whom)),
    };
    // What an agent is asked for may be a pod or in another mount namespace.
    let chosen = if attach.is_some() { Some(Selection::All) } else { selection.resolve()? };
    let selection = match (chosen, command.is_empty()) {
        (Some(selection), true) => selection,
        (None, false) => Selection::Command,
        (Some(_), false) => {
            let sentence = "a command excludes --pid, --cgroup, --container and --all; give one of them";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        (None, true) => {
            let sentence = "say whom to observe: `fsi observe -- CMD...`, or --pid, --cgroup, --container or --all";
            return Err(Failure::Usage(sentence.to_owned()));
        }
    };
    let Filters { paths, processes, operations } = filters.resolve()?;
    let OutputArgs { json: _, tree, otlp, otlp_deadline, spans, metrics, metrics_listen } = outputs;
    let wants_spans = tree || otlp.is_some() || spans.is_some();
    // Files are known by their operations alone where the kernel's totals belong to the agent.
    let events = policy(&events, wants_spans || attach.is_some())?;
    Ok(ObserveConfig {
        probe: ProbeOptions {
            selection,
            events,
            follow_files: true,
            follow_processes: true,
            interposed: false,
            paths,
            processes,
            operations,
            ring_bytes: probe.ring,
            debug: probe.debug_probes,
        },
        attach,
        command,
        duration,
        tree: if tree { TreeDrawing::Draw } else { TreeDrawing::Omit },
        listing: if events.slower.is_some() || events.failed { Listing::Operations } else { Listing::Nothing },
        otlp,
        otlp_deadline,
        spans,
        metrics,
        metrics_listen,
    })
}

/// Events cost; they are asked for only when something shows them.
fn policy(events: &EventArgs, wants_spans: bool) -> Result<EventPolicy, Failure> {
    let EventArgs { slower, failed, sample } = *events;
    if sample.is_some() && !wants_spans {
        let sentence = "--sample chooses what goes to --tree, --spans or --otlp; give one of these too";
        return Err(Failure::Usage(sentence.to_owned()));
    }
    let narrowed = slower.is_some() || failed || sample.is_some();
    Ok(EventPolicy { every: wants_spans && !narrowed, slower, failed, sample })
}
