//! `cargo xtask bench`: how fast it is, measured on this machine, beside what others need for the same.
//!
//! Never a test: the numbers depend on the machine and on who else works on it, which is why the same load against itself
//! (the A/A ratio) stands beside each of them.

mod csi;
mod fio;
mod interpose;
mod kit;
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
use self::report::Row;
use crate::setup::{self, Purpose};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// What observing costs, and whether it counts exactly (about five minutes)
    Observe(Choice),
    /// What a mount costs and whether it keeps to its rules (about ten minutes)
    Interpose(Choice),
    /// How long the kubelet waits for a volume of the CSI driver (half a minute)
    Csi(Choice),
}

#[derive(Debug, Args)]
struct Choice {
    /// Rounds, the first of which is not counted
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Write the JSON document here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these lines, for example O1,O3 or I1,I5 or C2 [default: all of the subject]
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
    /// Speed of files that no rule concerns
    I1,
    /// FUSE requests of their reads and writes
    I2,
    /// FUSE requests of other operations
    I3,
    /// Speed of files that a rule concerns
    I4,
    /// Delays and errors
    I5,
    /// Throttles
    I6,
    /// Calls for volumes that are bind-mounted
    C1,
    /// Calls for volumes that are interposed
    C2,
}

impl Subject {
    const fn name(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Interpose(_) => "interpose",
            Self::Csi(_) => "csi",
        }
    }

    const fn choice(&self) -> &Choice {
        match self {
            Self::Observe(choice) | Self::Interpose(choice) | Self::Csi(choice) => choice,
        }
    }

    const fn lines(&self) -> &'static [Line] {
        match self {
            Self::Observe(_) => &[Line::O1, Line::O2, Line::O3, Line::O4, Line::O5, Line::S1],
            Self::Interpose(_) => &[Line::I1, Line::I2, Line::I3, Line::I4, Line::I5, Line::I6],
            Self::Csi(_) => &[Line::C1, Line::C2],
        }
    }

    /// The lines that were asked for.
    fn chosen(&self) -> Result<BTreeSet<Line>> {
        let only = &self.choice().only;
        if let Some(other) = only.iter().find(|line| !self.lines().contains(line)) {
            bail!("--only {other:?}: `bench {}` measures {:?}", self.name(), self.lines());
        }
        let lines = if only.is_empty() { self.lines() } else { only.as_slice() };
        Ok(lines.iter().copied().collect())
    }
}

/// What a subject measured.
#[derive(Debug)]
struct Measured {
    rows: Vec<Row>,
    counted_rounds: usize,
    /// Every number of every round.
    raw: Value,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let subject = &options.subject;
    let Choice { rounds, json, only: _ } = subject.choice();
    if *rounds < 2 {
        bail!("--rounds {rounds}: the first round is not counted, so there must be 2 or more");
    }
    let lines = subject.chosen()?;
    let lacking = setup::ensure(workspace, &[Purpose::Build, Purpose::Bench])?;
    if lacking.required.iter().any(|need| need != "fio") {
        bail!("the benchmarks need what is listed above: {}", lacking.required.join(", "));
    }
    match subject {
        Subject::Observe(_) => observe::may_run()?,
        Subject::Interpose(_) => interpose::may_run()?,
        Subject::Csi(_) => csi::may_run()?,
    }
    let kit = Kit::prepare(workspace)?;
    let machine = machine();
    let say = |text: &str| println!("{text}");
    let Measured { mut rows, counted_rounds, raw } = match subject {
        Subject::Observe(_) => observe::measure(&kit, &lines, *rounds, say)?,
        Subject::Interpose(_) => interpose::measure(&kit, &lines, *rounds, say)?,
        Subject::Csi(_) => csi::measure(&kit, &lines, *rounds, say)?,
    };
    rows.sort_by_key(|row| row.line);
    let remarks = report::remarks(&rows, counted_rounds);

    println!("\n{}", report::table(&rows));
    remarks.iter().for_each(|remark| println!("{remark}"));
    let document = report::document(&rows, &remarks, raw, machine);
    let ours = workspace.target_dir().join(format!("bench/{}.json", subject.name()));
    for path in [Some(&ours), json.as_ref()].into_iter().flatten() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(only: &[Line]) -> Choice {
        Choice { rounds: 9, json: None, only: only.to_vec() }
    }

    #[test]
    fn a_subject_measures_its_own_lines() {
        assert_eq!(Subject::Interpose(choice(&[])).chosen().unwrap().len(), 6);
        assert_eq!(Subject::Observe(choice(&[Line::O4])).chosen().unwrap(), BTreeSet::from([Line::O4]));
        let refused = Subject::Observe(choice(&[Line::O1, Line::I2])).chosen().unwrap_err();
        assert_eq!(refused.to_string(), "--only I2: `bench observe` measures [O1, O2, O3, O4, O5, S1]");
    }
}
