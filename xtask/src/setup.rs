//! `cargo xtask setup`: what building, the demo and the tests need, found or installed.
//!
//! `catalogue` lists the needs, `machine` reads what this machine is, `plan` decides what can be done about what is
//! missing, `install` does it. The demo and the tests call `ensure` first, so nobody has to run this by hand.

mod catalogue;
mod go_tool;
mod install;
mod machine;
mod plan;
mod postgres;
pub(crate) mod schemas;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use xtask::workspace::Workspace;

use self::catalogue::{Need, State, Weight};
pub(crate) use self::go_tool::{
    CSI_PROVISIONER, CSI_RESIZER, CSI_SANITY, GoTool, HELM, HELMFILE, JAEGER, KUBE, KUBECONFORM, LOCAL_PATH, OTELCOL,
};
pub(crate) use self::install::older_kernel;
use self::machine::Machine;
pub(crate) use self::machine::{is_root, may_load_bpf, python};
use self::plan::Plan;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only list what is there and what is missing; exit 1 when something required is missing
    #[arg(long)]
    check: bool,
    /// What it is for; default: build, demo and test
    #[arg(long = "for", value_name = "PURPOSE", value_delimiter = ',')]
    purposes: Vec<Purpose>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    Build,
    Demo,
    Test,
    /// A cluster on this machine, for `cargo xtask e2e`
    Cluster,
    /// Peers to compare with
    Bench,
}

/// What is still not there after everything possible was done.
#[derive(Debug, Default)]
pub(crate) struct Lacking {
    /// Without these there is no result.
    pub(crate) required: Vec<String>,
    /// (need, why it stays away); tests that need it skip.
    pub(crate) optional: Vec<(String, String)>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let purposes = match options.purposes.as_slice() {
        [] => &[Purpose::Build, Purpose::Demo, Purpose::Test],
        named => named,
    };
    let lacking = match options.check {
        true => {
            let lacking = check(workspace, purposes);
            if options.purposes.is_empty() {
                println!("\nFor `cargo xtask e2e`, which gets what is missing by itself:");
                list(workspace, &[Purpose::Cluster]);
            }
            lacking
        }
        false => ensure(workspace, purposes)?,
    };
    Ok(if lacking.required.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Installs what is missing for `purposes`, as far as this machine lets us, and says so before.
pub(crate) fn ensure(workspace: &Workspace, purposes: &[Purpose]) -> Result<Lacking> {
    let missing = missing(workspace, purposes);
    if missing.is_empty() {
        println!("Everything needed is here (`cargo xtask setup --check` lists it).");
        return Ok(Lacking::default());
    }
    let plan = Plan::new(&missing, &Machine::read());
    if plan.does_something() {
        plan.announce();
        install::carry_out(workspace, &plan)?;
    }
    // What could not be done just now is a person's turn.
    Ok(report(&self::missing(workspace, purposes), &Machine::default()))
}

fn needs(purposes: &[Purpose]) -> impl Iterator<Item = &'static Need> {
    catalogue::needs().filter(move |need| need.serves.iter().any(|served| purposes.contains(served)))
}

fn missing(workspace: &Workspace, purposes: &[Purpose]) -> Vec<&'static Need> {
    needs(purposes).filter(|need| matches!((need.state)(workspace), State::Missing)).collect()
}

fn check(workspace: &Workspace, purposes: &[Purpose]) -> Lacking {
    list(workspace, purposes);
    report(&missing(workspace, purposes), &Machine::read())
}

fn list(workspace: &Workspace, purposes: &[Purpose]) {
    for need in needs(purposes) {
        let (mark, detail) = match ((need.state)(workspace), need.weight) {
            (State::Present(place), _) => ("ok", place),
            (State::Missing, Weight::Required) => ("MISSING", need.why.to_owned()),
            (State::Missing, Weight::Optional) => ("missing", format!("{} (optional)", need.why)),
        };
        println!("{mark:<8} {:<22} {detail}", need.name);
    }
}

/// Says what is missing and what to do about it, `machine` being what we can still do about it.
fn report(missing: &[&Need], machine: &Machine) -> Lacking {
    let plan = Plan::new(missing, machine);
    let mut lacking = Lacking::default();
    for need in missing {
        match need.weight {
            Weight::Required => lacking.required.push(need.name.to_owned()),
            Weight::Optional => lacking.optional.push((need.name.to_owned(), format!("missing; {}", need.by_hand))),
        }
    }
    if missing.is_empty() {
        println!("Nothing is missing.");
        return lacking;
    }
    println!("\nMissing: {}.", missing.iter().map(|need| need.name).collect::<Vec<_>>().join(", "));
    if plan.does_something() {
        println!("`cargo xtask setup` will get: {}.", plan.names().join(", "));
    }
    for need in &plan.by_hand {
        println!("To get {}: {}.", need.name, need.by_hand);
    }
    if let Some(command) = plan.apt_by_hand() {
        println!("On Debian, as root, all of them that are packages: {command}");
    }
    lacking
}
