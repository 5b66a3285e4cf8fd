//! Builds fsi-ebpf to one eBPF object, by whichever compiler this machine has, and only when something changed.
//!
//! It has a target directory of its own: called from fsi-agent's build script, it runs while the outer cargo holds the
//! lock of the usual one.

mod route;
mod stamp;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt};

use anyhow::{Context as _, Result, bail};

pub use self::route::{Compiler, Found, Missing, Route};
use self::stamp::Stamp;
use crate::cargo_env::forget_outer_cargo;
use crate::digest;
use crate::workspace::Workspace;

const TARGET: &str = "bpfel-unknown-none";

/// What the object is made of, besides the compiler, relative to the checkout: what a build script has to watch.
/// Cargo.toml has the profile, Cargo.lock the dependencies.
pub const INPUTS: [&str; 4] = ["Cargo.toml", "Cargo.lock", "fsi-common", "fsi-ebpf"];

/// The object, and whether it had to be built.
#[derive(Debug)]
pub struct Object {
    pub path: PathBuf,
    pub outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    UpToDate,
    Built(Compiler),
}

/// The machine whose registers the programs read: `pt_regs` differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The target of the build script that calls, or this machine.
    pub fn of_this_build() -> Result<Self> {
        let name = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
        Self::named(&name)
    }

    fn named(name: &str) -> Result<Self> {
        match name {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => bail!("FSI's eBPF programs know the registers of x86_64 and aarch64, not of {other}"),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

/// Brings the object up to date.
pub fn build(workspace: &Workspace, arch: Arch) -> Result<Object> {
    let target_dir = workspace.target_dir().join("ebpf");
    let path = target_dir.join(TARGET).join("bpf/fsi-ebpf");
    let stamp_path = target_dir.join("fsi-ebpf.stamp");
    let inputs = digest::of_files(workspace.root(), &INPUTS.map(|input| workspace.path(input)))
        .context("read the sources of fsi-ebpf")?;
    if let Ok(stored) = fs::read_to_string(&stamp_path)
        && stamp::is_current(&stored, &arch.to_string(), inputs, &path)
    {
        return Ok(Object { path, outcome: Outcome::UpToDate });
    }

    let route = Found::on_this_machine().route()?;
    forget_own_crates(&target_dir)?;
    let mut command = route.cargo();
    command.current_dir(workspace.root());
    forget_outer_cargo(&mut command);
    route.apply(&mut command);
    command.env("CARGO_ENCODED_RUSTFLAGS", rustflags(arch, &route.linker));
    command.args(["build", "--package", "fsi-ebpf", "--bin", "fsi-ebpf", "--profile", "bpf", "--target", TARGET]);
    command.args(route.extra_arguments()).arg("--target-dir").arg(&target_dir);
    run(&mut command)?;

    let stamp = Stamp::new(&arch.to_string(), inputs, &[route.rustc(), &route.linker], &path)
        .with_context(|| format!("read the object {}", path.display()))?;
    fs::write(&stamp_path, stamp.to_string()).with_context(|| format!("write {}", stamp_path.display()))?;
    Ok(Object { path, outcome: Outcome::Built(route.compiler) })
}

/// Cargo compares times. In a target directory that was copied from, or has served, another checkout it takes that one's
/// object for ours; we know by content that something changed, so it must not be asked about our own crates.
fn forget_own_crates(target_dir: &Path) -> Result<()> {
    let fingerprints = target_dir.join(TARGET).join("bpf/.fingerprint");
    let Ok(entries) = fs::read_dir(&fingerprints) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("fsi-")) {
        fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("start {}", program.display()))?;
    if !status.success() {
        bail!("compiling fsi-ebpf for {TARGET} failed ({status}); the compiler's words are above");
    }
    Ok(())
}

/// Cargo's form of several flags in one variable: separated by 0x1f, so that a path may hold blanks.
fn rustflags(arch: Arch, linker: &Path) -> std::ffi::OsString {
    let mut flags: std::ffi::OsString =
        format!("--cfg=bpf_target_arch=\"{arch}\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clinker=").into();
    flags.push(linker);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keep_a_blank_in_the_linker_path_apart() {
        let flags = rustflags(Arch::Aarch64, Path::new("/a b/bpf-linker"));
        let flags: Vec<_> = flags.to_str().expect("ASCII").split('\x1f').collect();
        assert_eq!(
            flags,
            ["--cfg=bpf_target_arch=\"aarch64\"", "-Cdebuginfo=2", "-Clink-arg=--btf", "-Clinker=/a b/bpf-linker"]
        );
    }

    #[test]
    fn an_unknown_machine_is_named() {
        let error = Arch::named("riscv64").expect_err("not supported").to_string();
        assert_eq!(error, "FSI's eBPF programs know the registers of x86_64 and aarch64, not of riscv64");
    }
}
