//! `cargo xtask demo`: real programs, watched by `fsi observe` and broken by `fsi mount`, on a machine that need not be prepared.
//!
//! Everything it writes is in one fresh directory, which it names at the end and leaves.

mod breaking;
mod spans;
mod stage;

use std::env;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use xtask::cargo_env::forget_outer_package;
use xtask::workspace::Workspace;

use self::breaking::Shown;
use self::stage::{Stage, Watched};
use crate::child::{self, Event};
use crate::setup::{self, Purpose};

/// How much of a program's report is shown: its head, and its end, where totals stand. The rest is in a file.
const HEAD_LINES: usize = 40;
const TAIL_LINES: usize = 30;

/// The longest of the programs takes seconds.
const LIMIT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where spans, metrics and reports are left (emptied first if a demo made it)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    println!("== What this needs");
    let lacking = setup::ensure(workspace, &[Purpose::Build, Purpose::Demo])?;
    if !lacking.required.is_empty() {
        bail!("the demo needs what is listed above: {}", lacking.required.join(", "));
    }
    if !setup::may_load_bpf() {
        bail!("loading eBPF probes needs root, or CAP_BPF and CAP_PERFMON: run the demo as root");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!("this kernel has no BTF (/sys/kernel/btf/vmlinux), which the probes read its layout from");
    }

    println!("\n== Building fsi (release; a few minutes the first time)");
    let fsi = build(workspace)?;
    let out = match &options.out {
        Some(dir) => std::path::absolute(dir).with_context(|| format!("find {}", dir.display()))?,
        None => workspace.target_dir().join("demo"),
    };
    let stage = Stage::prepare(workspace, &out)?;

    let mut failed = Vec::new();
    for watched in stage.programs() {
        println!("\n== {}\n{}\n", watched.name, watched.about);
        if !observe(&fsi, &stage, &watched)? {
            failed.push(watched.name);
        }
    }
    println!(
        "\n== Breaking it on purpose\nfsi mount shows a directory in another place. Rules say what goes wrong there.\n"
    );
    let shown_broken = breaking::show(&fsi, &out, stage.python())?;
    if let Shown::LeftOut(why) = &shown_broken {
        println!("Left out: {why}.");
    }
    println!("\n== What is left in {}", out.display());
    println!("  NAME.spans.jsonl  the spans, one OTLP/JSON request a line, as a Collector's file receiver reads them");
    println!("  NAME.prom         the metrics, as Prometheus reads them");
    println!("  NAME.txt          the reports above in full");
    println!("  for NAME in {}", stage.programs().map(|watched| watched.name).join(", "));
    if let Shown::Well | Shown::Badly(_) = &shown_broken {
        println!("  mount/            the rules, the fault log, the spans and the metrics of the mount");
    }
    println!("To watch a program of your own: {} observe --tree -- COMMAND", shown(&fsi));
    println!("To break one: {} mount --rules RULES DIRECTORY MOUNTPOINT (docs/RULES.md has the rules)", shown(&fsi));
    if let Shown::Badly(what) = shown_broken {
        bail!("breaking did not go as it should: {what}");
    }
    if !failed.is_empty() {
        bail!("not watched to the end: {}", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// The agent, by a cargo that talks to the terminal itself: its progress bar is the best there is.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--package", "fsi-agent", "--bin", "fsi"]).current_dir(workspace.root());
    forget_outer_package(&mut command);
    let status = command.status().context("start cargo")?;
    if !status.success() {
        bail!("building fsi failed ({status}); cargo's words are above");
    }
    Ok(workspace.target_dir().join("release/fsi"))
}

/// Runs one program under fsi, shows what fits a screen and keeps the rest. Whether it went well.
fn observe(fsi: &Path, stage: &Stage, watched: &Watched) -> Result<bool> {
    let Watched { name, about: _, command: words } = watched;
    let file = |extension: &str| stage.out().join(format!("{name}.{extension}"));
    let mut command = Command::new(fsi);
    // Cargo sets it for what it runs, and every program would look there first: a hundred misses that are not its own.
    command.env_remove("LD_LIBRARY_PATH");
    command.args(["observe", "--tree", "--spans"]).arg(file("spans.jsonl")).arg("--metrics").arg(file("prom"));
    command.arg("--").args(words).current_dir(stage.work());
    println!("$ fsi observe --tree --spans {name}.spans.jsonl --metrics {name}.prom -- {}\n", quoted(words));

    let report = file("txt");
    let mut report_file =
        BufWriter::new(File::create(&report).with_context(|| format!("create {}", report.display()))?);
    let mut lines = Vec::new();
    let ended = child::stream(command, LIMIT, |event| {
        if let Event::Line(line) = event {
            // A full disk shows in the next create; what is on the screen matters more.
            writeln!(report_file, "{line}").unwrap_or_default();
            lines.push(line.to_owned());
        }
    })?;
    report_file.flush().with_context(|| format!("write {}", report.display()))?;
    print_ends(&lines, &report);
    if !ended.is_success() {
        println!("{name} under fsi: {ended}");
        return Ok(false);
    }
    let written = ["spans.jsonl", "prom"].map(file);
    Ok(written.iter().all(|path| {
        let is_there = fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        if !is_there {
            println!("fsi left nothing in {}", path.display());
        }
        is_there
    }))
}

fn print_ends(lines: &[String], report: &Path) {
    let (head, tail) = ends(lines);
    head.iter().for_each(|line| println!("{line}"));
    let left_out = lines.len() - head.len() - tail.len();
    if left_out > 0 {
        println!("    ... {left_out} lines more in {} ...", report.display());
    }
    tail.iter().for_each(|line| println!("{line}"));
}

fn ends<T>(lines: &[T]) -> (&[T], &[T]) {
    if lines.len() <= HEAD_LINES + TAIL_LINES {
        return (lines, &[]);
    }
    (&lines[..HEAD_LINES], &lines[lines.len() - TAIL_LINES..])
}

/// As one would type it: only for reading.
fn quoted(words: &[String]) -> String {
    let quote = |word: &String| match word.contains([' ', '\n', ';', '&', '\'']) {
        true => format!("'{word}'"),
        false => word.clone(),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Relative to where the person stands, if it is below.
fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_report_is_shown_from_both_ends() {
        let lines: Vec<usize> = (0..1000).collect();
        let (head, tail) = ends(&lines);
        assert_eq!((head.first(), head.len()), (Some(&0), HEAD_LINES));
        assert_eq!((tail.last(), tail.len()), (Some(&999), TAIL_LINES));
        assert_eq!(ends(&lines[..5]), (&lines[..5], &[][..]));
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted(&["sh".into(), "-c".into(), "a && b".into()]), "sh -c 'a && b'");
    }
}
