//! `cargo xtask bench`: how fast it is, measured on this machine, beside what others need for the same.
//!
//! Never a test: the numbers depend on the machine and on who else works on it, which is why the same load against itself
//! (the A/A ratio) stands beside each of them.

mod counts;
mod kit;
mod modes;
mod observe;
mod parsers;
mod report;
mod rounds;
mod statistics;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use xtask::workspace::Workspace;

use self::kit::Kit;
use self::rounds::Rounds;
use crate::setup::{self, Purpose};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// What observing costs, and whether it counts exactly (about five minutes)
    Observe(ObserveOptions),
}

#[derive(Debug, Args)]
struct ObserveOptions {
    /// Rounds, the first of which is not counted
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Write the JSON document here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these lines, for example O1,O3 [default: all]
    #[arg(long, value_name = "LINES", value_delimiter = ',', ignore_case = true)]
    only: Vec<Line>,
}

/// What is measured, by the names of docs/BENCHMARKS.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Line {
    /// Speed of observed operations
    O1,
    /// Nanoseconds added
    O2,
    /// The peers
    O3,
    /// Exact counts
    O4,
    /// The ring
    O5,
    /// Export of spans
    S1,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    match &options.subject {
        Subject::Observe(options) => observe(workspace, options),
    }
}

fn observe(workspace: &Workspace, options: &ObserveOptions) -> Result<ExitCode> {
    if options.rounds < 2 {
        bail!("--rounds {}: the first round is not counted, so there must be 2 or more", options.rounds);
    }
    let lacking = setup::ensure(workspace, &[Purpose::Build, Purpose::Bench])?;
    if lacking.required.iter().any(|need| need != "fio") {
        bail!("the benchmarks need what is listed above: {}", lacking.required.join(", "));
    }
    if !setup::may_load_bpf() {
        bail!("loading eBPF probes needs root, or CAP_BPF and CAP_PERFMON: run the benchmarks as root");
    }
    let lines: BTreeSet<Line> = match options.only.as_slice() {
        [] => Line::value_variants().iter().copied().collect(),
        some => some.iter().copied().collect(),
    };
    let kit = Kit::prepare(workspace)?;
    let machine = machine();
    let rounds = Rounds::run(&kit, &lines, options.rounds, |text| println!("{text}"))?;
    let mut rows = observe::rows(&rounds, &lines);
    rows.extend(counts::rows(&kit, &lines, |text| println!("{text}"))?);
    rows.sort_by_key(|row| row.line);
    let remarks = report::remarks(&rows, rounds.rounds.len());

    println!("\n{}", report::table(&rows));
    remarks.iter().for_each(|remark| println!("{remark}"));
    let document = report::document(&rows, &remarks, rounds.raw(), machine);
    let ours = workspace.target_dir().join("bench/observe.json");
    for path in [Some(&ours), options.json.as_ref()].into_iter().flatten() {
        write(path, &document)?;
        println!("Every number: {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, document: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(document).context("write JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

/// What the numbers depend on.
fn machine() -> Value {
    let first_line = |path: &str| fs::read_to_string(path).ok().and_then(|text| Some(text.lines().next()?.to_owned()));
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()));
    json!({
        "kernel": first_line("/proc/sys/kernel/osrelease"),
        "cpu": model,
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
        "load": first_line("/proc/loadavg"),
    })
}
