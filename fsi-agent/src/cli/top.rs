//! `fsi top`: a live table of who is busy with files, or one table as text.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fsi_agent::attach::Whom;
use fsi_agent::probe::options::{GlobList, ProbeOptions, Selection};
use fsi_agent::selection::quantity;
use fsi_agent::top::{self, By, SortBy, TopConfig, TopError};

use super::options::{AttachArgs, FilterArgs, Filters, ProbeArgs, SelectionArgs, not_attached};
use super::{Failure, output};

/// Shows everything unless --pid, --cgroup or --container is given. Keys: o ops, r read, w written, e errors, t time,
/// l latency; arrows scroll; q quits.
#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// What a row stands for
    #[arg(long, value_enum, default_value_t = ByArg::File)]
    by: ByArg,
    /// What to sort by at first
    #[arg(long, value_enum, default_value_t = SortArg::Time)]
    sort: SortArg,
    /// Time between two tables (ms, s)
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = quantity::duration)]
    interval: Duration,
    /// Stop after this time (ms, s, m, h) [default: until q or Ctrl-C; with --once one interval]
    #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration)]
    duration: Option<Duration>,
    /// Print one table as text on stdout, over the time given with --for
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    attach: AttachArgs,
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    probe: ProbeArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ByArg {
    File,
    Process,
    Container,
    Op,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortArg {
    Ops,
    Read,
    Written,
    Errors,
    Time,
    Latency,
}

/// Redrawing faster than this shows nothing more.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn run(arguments: TopArgs) -> Result<ExitCode, Failure> {
    let once = arguments.once;
    if !once && !io::stdout().is_terminal() {
        let sentence = "top: stdout is no terminal; `fsi top --once --for 5s` prints one table as text";
        return Err(Failure::Usage(sentence.to_owned()));
    }
    let config = resolve(arguments)?;
    if once {
        let text = top::once(&config).map_err(failure)?;
        output::result(&text)?;
    } else {
        top::live(&config).map_err(failure)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(error: TopError) -> Failure {
    match error {
        TopError::Attach(error) => not_attached(error),
        TopError::Probe(_) | TopError::Signals(_) | TopError::Terminal(_) => Failure::Failed(error.into()),
    }
}

fn resolve(arguments: TopArgs) -> Result<TopConfig, Failure> {
    let TopArgs { by, sort, interval, duration, once: _, selection, attach, filters, probe } = arguments;
    if interval < LEAST_INTERVAL {
        return Err(Failure::Usage("--interval: write at least `100ms`".to_owned()));
    }
    let by = match by {
        ByArg::File => By::File,
        ByArg::Process => By::Process,
        ByArg::Container => By::Container,
        ByArg::Op => By::Operation,
    };
    let sort = match sort {
        SortArg::Ops => SortBy::Operations,
        SortArg::Read => SortBy::Read,
        SortArg::Written => SortBy::Written,
        SortArg::Errors => SortBy::Failed,
        SortArg::Time => SortBy::Time,
        SortArg::Latency => SortBy::Latency,
    };
    let attach = attach.resolve(&selection)?.map(|(socket, whom)| (socket, whom.unwrap_or(Whom::All)));
    let Filters { paths, processes, operations } = filters.resolve()?;
    let is_filtered = [&paths, &processes].iter().any(|list| **list != GlobList::default());
    if attach.is_some() && is_filtered && matches!(by, By::Container | By::Operation) {
        let sentence =
            "--attach: the agent counts by container and operation, not by path or process; use --by file or process";
        return Err(Failure::Usage(sentence.to_owned()));
    }
    // What an agent is asked for may be a pod or in another mount namespace.
    let selection = if attach.is_some() { Selection::All } else { selection.resolve()?.unwrap_or(Selection::All) };
    let events = by.events();
    let probe = ProbeOptions {
        selection,
        events,
        follow_files: events.every,
        follow_processes: events.every,
        interposed: false,
        paths,
        processes,
        operations,
        ring_bytes: probe.ring,
        debug: probe.debug_probes,
    };
    Ok(TopConfig { probe, attach, by, sort, interval, duration })
}
