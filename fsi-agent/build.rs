//! Builds the kernel side if needed and tells the compiler where it is (`FSI_EBPF_OBJECT`), so that the agent carries it; makes the
//! services from their .proto files.

#![expect(clippy::print_stderr, reason = "a build script that fails tells people why on stderr")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context as _, Result};
use xtask::build_ebpf::{self, Arch, Missing};
use xtask::workspace::Workspace;

const CONTROL: &str = "control.proto";
const AGENT: &str = "agent.proto";
/// What `fsi ctl agent show --json` writes.
const SHOWN: [&str; 8] = ["ShowReply", "Mount", "Policy", "Collector", "Kubernetes", "Loss", "Cost", "Watcher"];

fn main() -> ExitCode {
    match embed().and_then(|()| services()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Missing>() => {
            // Cargo prints this line and nothing around it.
            println!("cargo::error={error}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Failing makes cargo print our stderr, where the compiler's words are.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<()> {
    let workspace = Workspace::find()?;
    for input in build_ebpf::INPUTS {
        // Relative to this package: cargo may find this output in a target directory that has served another checkout.
        println!("cargo::rerun-if-changed=../{input}");
    }
    let built = build_ebpf::build(&workspace, Arch::of_this_build()?)?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR for build scripts")?);
    let object = out_dir.join("fsi-ebpf");
    copy_if_changed(&built.path, &object)?;
    println!("cargo::rustc-env=FSI_EBPF_OBJECT={}", object.display());
    Ok(())
}

fn services() -> Result<()> {
    println!("cargo::rerun-if-changed=proto");
    for file in [CONTROL, "reports.proto", AGENT] {
        let mut compiler = protox::Compiler::new(["proto"]).context("open proto")?;
        compiler.open_file(file).with_context(|| format!("compile proto/{file}"))?;
        let mut builder = tonic_prost_build::configure();
        if file != CONTROL {
            // What another file imports of it is made once.
            builder = builder.extern_path(".fsi.control.v1", "crate::control::generated");
        }
        if file == AGENT {
            for message in SHOWN {
                builder = builder.message_attribute(format!("fsi.agent.v1.{message}"), "#[derive(serde::Serialize)]");
            }
        }
        builder.compile_fds(compiler.file_descriptor_set()).with_context(|| format!("make code from proto/{file}"))?;
    }
    Ok(())
}

/// An untouched copy keeps the agent from being compiled again for the same bytes.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}
