//! What a person wants to know in ten seconds: which files, how often, how many bytes, how slow, what failed, what was lost.
//!
//! [`Summary`] is the content, with units in its field names; [`text`] and [`json`] show it, and show the same.

mod errno;
pub mod files;
pub(crate) mod format;
pub mod json;
pub mod listed;
mod lost;
mod operations;
pub(crate) mod table;
pub mod text;
pub mod tree;

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;
use serde::Serialize;

use crate::observe::{CommandEnd, Listing, ObserveConfig};
use crate::probe::options::Selection;
use files::{FileRow, FileTable, OtherFiles};
use listed::{ListedOperations, ListedRows};
pub use lost::Loss;
use operations::{FailureRow, OperationRow};

/// How human text may look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns of the terminal; nothing when it is none.
    pub width: Option<usize>,
    pub color: bool,
}

/// Everything a summary is made of.
#[derive(Debug)]
pub struct SummaryInput<'a> {
    pub config: &'a ObserveConfig,
    pub command: &'a CommandEnd,
    pub start_unix_ns: u64,
    pub duration: Duration,
    pub processes: u64,
    pub processes_running: u64,
    pub aggregates: Vec<(AggregateKey, AggregateValue)>,
    pub counters: [u64; Counter::COUNT as usize],
    pub spans: u64,
    pub files: FileTable,
    pub listed: ListedOperations,
    pub exports: Vec<Export>,
    pub lost: Vec<Loss>,
    pub notes: Vec<String>,
}

/// The summary of an observation.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What was observed, in words.
    pub subject: String,
    /// The command's exit code (128 + signal when it was killed).
    pub exit_code: Option<i32>,
    pub start_unix_ns: u64,
    pub duration_ns: u64,
    pub totals: Totals,
    pub operations: Vec<OperationRow>,
    /// Those that took most time first.
    pub files: Vec<FileRow>,
    pub other_files: OtherFiles,
    pub failures: Vec<FailureRow>,
    /// Slow or failed operations one by one, when asked for.
    pub listed: Option<ListedRows>,
    pub events: Events,
    pub exports: Vec<Export>,
    /// What is missing from the above; empty: nothing.
    pub lost: Vec<Loss>,
    /// What else went wrong, one sentence each.
    pub notes: Vec<String>,
}

/// Sums over all operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub operations: u64,
    pub failed: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Sum of all durations, in all threads.
    pub time_ns: u64,
    /// Different paths that were opened.
    pub files: u64,
    pub processes: u64,
    /// Processes that still ran at the end.
    pub processes_running: u64,
}

/// What became of the operations: `seen` = `spans` + `not_asked_for` + what was lost on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Events {
    pub seen: u64,
    pub not_asked_for: u64,
    pub sent: u64,
    pub spans: u64,
}

/// What an exporter did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Export {
    /// `otlp` or `spans_file`
    pub to: &'static str,
    /// `exported` or `written`: the outcome of `fsi_spans_total`.
    pub outcome: &'static str,
    pub spans: u64,
    pub error: Option<String>,
}

impl Summary {
    #[must_use]
    pub fn build(input: SummaryInput<'_>) -> Self {
        let (operations, mut failures) = operations::tables(&input.aggregates);
        for failure in &mut failures {
            failure.example_path = input.listed.example(failure.op, failure.errno).map(str::to_owned);
        }
        let (files, other_files) = input.files.into_rows();
        let mut totals = operations::totals(&input.aggregates);
        totals.files = u64::try_from(files.len()).unwrap_or(u64::MAX).saturating_add(other_files.files);
        totals.processes = input.processes;
        totals.processes_running = input.processes_running;
        let counter = |counter: Counter| input.counters[counter as usize];
        Self {
            subject: match &input.config.attach {
                Some((_socket, whom)) => format!("{}, through the agent", whom.words()),
                None => subject(input.config),
            },
            exit_code: exit_code(input.command),
            start_unix_ns: input.start_unix_ns,
            duration_ns: u64::try_from(input.duration.as_nanos()).unwrap_or(u64::MAX),
            totals,
            operations,
            files,
            other_files,
            failures,
            listed: match input.config.listing {
                Listing::Operations => Some(input.listed.into_rows()),
                Listing::Nothing => None,
            },
            events: Events {
                seen: counter(Counter::Seen),
                not_asked_for: counter(Counter::SampledOut),
                sent: counter(Counter::Sent),
                spans: input.spans,
            },
            exports: input.exports,
            lost: input.lost.into_iter().filter(|loss| loss.count > 0).collect(),
            notes: input.notes,
        }
    }
}

fn subject(config: &ObserveConfig) -> String {
    match &config.probe.selection {
        Selection::Command => {
            let words: Vec<_> = config.command.iter().map(|word| format::escaped(word.as_encoded_bytes())).collect();
            words.join(" ")
        }
        Selection::Pid(pid) => format!("process {pid} and its descendants"),
        Selection::Cgroups(paths) => {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("cgroup {}", paths.join(", "))
        }
        Selection::All => "all processes".to_owned(),
        Selection::Policies => "chosen cgroups".to_owned(),
    }
}

fn exit_code(command: &CommandEnd) -> Option<i32> {
    match command {
        CommandEnd::Ended(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
        CommandEnd::NoCommand | CommandEnd::Running(_) | CommandEnd::LeftBehind { .. } => None,
    }
}
