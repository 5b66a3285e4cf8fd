//! `cargo xtask e2e`: FSI on a real Kubernetes cluster, installed as a user installs it.
//!
//! `cluster` starts two nodes on this machine and ends them, `images` makes what they run, `install` is helmfile's turn, `cases` are
//! what is tested. With `--kubeconfig` the cases run on a cluster that is there, with what is installed there.

mod cases;
mod cluster;
mod images;
mod install;
mod kubectl;
mod leftovers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use xtask::workspace::Workspace;

use self::cases::{Case, Outcome, Setting};
use self::cluster::Cluster;
use self::kubectl::Kubectl;
use self::leftovers::Machine;
use crate::setup::{self, Purpose};
use crate::test::tally::Tally;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only the cases whose name contains one of these
    cases: Vec<String>,
    /// Leave the cluster running, and say how to use it
    #[arg(long, conflicts_with = "kubeconfig")]
    keep: bool,
    /// End a cluster that was kept, or that an interrupted run left
    #[arg(long, conflicts_with_all = ["keep", "kubeconfig", "cases"])]
    down: bool,
    /// Run the cases on the cluster of this file, on which FSI is installed in the namespace fsi
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// List the cases and end
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if options.list {
        for case in cases::ALL {
            println!("{:<24} {}", case.name, case.shows);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if options.down {
        let ended = cluster::down()?;
        println!("{}", if ended { "The cluster is gone." } else { "There was no cluster." });
        return Ok(ExitCode::SUCCESS);
    }
    let is_wanted =
        |case: &&Case| options.cases.is_empty() || options.cases.iter().any(|part| case.name.contains(part));
    let wanted: Vec<&Case> = cases::ALL.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        bail!("no case is called so; `cargo xtask e2e --list` has them");
    }
    let mut tally = Tally::default();
    match &options.kubeconfig {
        Some(file) => {
            let setting = Setting::theirs(Kubectl::with(file));
            run_cases(&setting, &wanted, &mut tally);
        }
        None => on_own_cluster(workspace, options, &wanted, &mut tally)?,
    }
    print!("{tally}");
    Ok(if tally.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn on_own_cluster(workspace: &Workspace, options: &Options, wanted: &[&Case], tally: &mut Tally) -> Result<()> {
    println!("=== tools");
    let lacking = setup::ensure(workspace, &[Purpose::Build, Purpose::Cluster])?;
    let reason = match (setup::is_root(), lacking.required.as_slice(), lacking.optional.as_slice()) {
        (false, _, _) => Some("a cluster on this machine takes root".to_owned()),
        (true, [], []) => None,
        (true, [], [(need, reason), ..]) => Some(format!("{need}: {reason}")),
        (true, [need, ..], _) => Some(format!("{need} is missing")),
    };
    if let Some(reason) = reason {
        for case in wanted {
            tally.skip(case.name, &reason);
        }
        return Ok(());
    }
    let (wanted, alone): (Vec<_>, Vec<_>) = wanted.iter().copied().partition(|case| case.takes_cluster());
    run_cases(&Setting::tools(workspace), &alone, tally);
    if wanted.is_empty() {
        return Ok(());
    }
    if cluster::down()? {
        println!("A cluster of an earlier run was there; it is gone.");
    }
    let before = Machine::look()?;
    let started = images::build(workspace).and_then(|images| {
        println!("=== cluster");
        let cluster = Cluster::start(workspace, &images)?;
        install::sync(workspace, &cluster)?;
        Ok(cluster)
    });
    match started {
        Ok(cluster) => {
            let setting = Setting::ours(workspace, &cluster);
            run_cases(&setting, &wanted, tally);
            if options.keep {
                cluster.explain();
                return Ok(());
            }
        }
        Err(error) => tally.fail(&format!("start: {error:#}")),
    }
    println!("=== taking it down");
    cluster::down()?;
    match before.compare(&Machine::look()?).as_slice() {
        [] => tally.pass(),
        left => tally.fail(&format!("left behind: {}", left.join(", "))),
    }
    Ok(())
}

fn run_cases(setting: &Setting, wanted: &[&Case], tally: &mut Tally) {
    for case in wanted {
        println!("=== {}: {}", case.name, case.shows);
        let start = Instant::now();
        let outcome = cases::run(setting, case);
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(Outcome::Held) => {
                println!("  holds, {seconds:.1} s");
                tally.pass();
            }
            Ok(Outcome::CannotRun(reason)) => {
                println!("  skipped: {reason}");
                tally.skip(case.name, &reason);
            }
            Err(error) => {
                println!("  FAILED after {seconds:.1} s: {error:#}");
                tally.fail(&format!("{}: {error:#}", case.name));
            }
        }
    }
}
