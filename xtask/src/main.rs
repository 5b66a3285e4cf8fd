//! FSI's project commands, as `cargo xtask COMMAND`. Each is a file of its own; this one only tells them apart.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "talking to the person at the terminal is the job")]

mod bench;
mod child;
mod demo;
mod e2e;
mod image;
mod mounts;
mod progress;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::build_ebpf::{self, Arch, Outcome};
use xtask::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "FSI's project commands", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or install what building and testing need
    Setup(setup::Options),
    /// Build the eBPF programs, if anything changed (cargo build does this by itself)
    BuildEbpf,
    /// Watch four real programs with fsi, break three, and show what it saw
    Demo(demo::Options),
    /// Run every check and test, and count them
    Test(test::Options),
    /// Measure how fast it is, beside others
    Bench(bench::Options),
    /// Install FSI on a real Kubernetes cluster and try everything, on two nodes that this machine makes and takes down
    E2e(e2e::Options),
    /// Make the container image without a container engine
    Image(image::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Setup(options) => setup::run(&workspace, &options),
        Command::BuildEbpf => build_ebpf(&workspace),
        Command::Demo(options) => demo::run(&workspace, &options),
        Command::Test(options) => test::run(&workspace, &options),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::E2e(options) => e2e::run(&workspace, &options),
        Command::Image(options) => image::run(&workspace, &options),
    }
}

fn build_ebpf(workspace: &Workspace) -> Result<ExitCode> {
    let object = build_ebpf::build(workspace, Arch::of_this_build()?)?;
    match object.outcome {
        Outcome::UpToDate => println!("{} is up to date", object.path.display()),
        Outcome::Built(compiler) => println!("built {} with {compiler}", object.path.display()),
    }
    Ok(ExitCode::SUCCESS)
}
