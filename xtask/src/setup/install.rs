//! Carries out a plan. What is built goes to a folder beside its place and is renamed when complete: Ctrl-C in the middle
//! leaves no half tool behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Context as _, Result};
use xtask::cargo_env::forget_outer_cargo;
use xtask::tools::{self, BPF_LINKER_VERSION, Crate, tool_dir};
use xtask::workspace::Workspace;

use super::catalogue::{Get, LLVM};
use super::plan::Plan;
use super::postgres::{POSTGRES, WithoutCluster};
use super::schemas;
use crate::progress::run_logged;

/// Does everything that it can: a Collector that fails to build does not stop the linker. What failed has been shown,
/// and is missing when the caller looks again.
pub(super) fn carry_out(workspace: &Workspace, plan: &Plan<'_>) -> Result<()> {
    let mut failed = Vec::new();
    if !plan.apt.is_empty()
        && let Err(error) = apt(&plan.apt)
    {
        failed.push(error);
    }
    for need in &plan.build {
        let done = match need.get {
            Get::RustupComponent(component) => rustup_component(component),
            Get::BpfLinker => bpf_linker(),
            Get::Crate(program) => build_crate(program),
            Get::Go(tool) => tool.build(workspace),
            Get::Schemas => schemas::fetch(),
            Get::OlderKernel => fetch_older_kernel(),
            Get::PassthroughLl => build_passthrough_ll(),
            Get::Apt(_) | Get::ByHand => Ok(()),
        };
        failed.extend(done.err());
    }
    for error in failed {
        println!("  {error:#}");
    }
    Ok(())
}

pub(super) fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn apt(packages: &[&str]) -> Result<()> {
    run_logged("apt-get update", apt_get(&["update"]), &log("apt-update"))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    let mut rehearsal = apt_get(&["install", "--assume-no", "--no-install-recommends"]);
    let rehearsal = rehearsal.args(packages).stdin(Stdio::null()).output().context("start apt-get")?;
    for line in sizes(&String::from_utf8_lossy(&rehearsal.stdout)) {
        println!("  {line}");
    }
    let _configured = packages.contains(&POSTGRES).then(WithoutCluster::begin).transpose()?;
    let mut command = apt_get(&install);
    command.args(packages);
    run_logged(
        &format!("apt-get install of {} packages and what they need", packages.len()),
        command,
        &log("apt-install"),
    )
}

/// What apt-get says about the download and the disk.
fn sizes(rehearsal: &str) -> impl Iterator<Item = &str> {
    rehearsal.lines().filter(|line| line.starts_with("Need to get") || line.starts_with("After this operation"))
}

fn rustup_component(component: &str) -> Result<()> {
    let mut command = Command::new("rustup");
    command.args(["component", "add", component]);
    run_logged(&format!("rustup component add {component}"), command, &log(component))
}

fn bpf_linker() -> Result<()> {
    let place = tool_dir("bpf-linker", BPF_LINKER_VERSION);
    // By name: rustup's own, where there is one, also fixes the toolchain for every rustc below it.
    let mut command = Command::new("cargo");
    forget_outer_cargo(&mut command);
    command
        .args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER_VERSION])
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(partial(&place))
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"));
    build_into(&place, "bpf-linker", "build bpf-linker", command)
}

fn build_crate(program: &Crate) -> Result<()> {
    let place = program.place();
    let mut command = Command::new("cargo");
    forget_outer_cargo(&mut command);
    command
        .args(["install", program.name, "--locked", "--version", program.version, "--root"])
        .arg(partial(&place))
        // They wait for system calls: their own speed matters less than that of their build.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    build_into(&place, program.name, &format!("build {}", program.name), command)
}

/// The image of the kernel that the tests boot beside this one.
pub(crate) fn older_kernel() -> PathBuf {
    tool_dir("older-kernel", "debian").join("vmlinuz")
}

/// Takes the image out of Debian's package; the package itself is never installed.
const FETCH_KERNEL: &str = r#"set -e
package() { apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: //p' | head -n 1; }
[ -n "$(package)" ] || apt-get update
apt-get download "$(package)"
dpkg-deb --extract ./*.deb package
mv package/boot/vmlinuz-* vmlinuz
rm -r package ./*.deb"#;

fn fetch_older_kernel() -> Result<()> {
    by_script(&older_kernel(), "older-kernel", "fetch Debian's kernel", FETCH_KERNEL)
}

/// Takes the source out of Debian's package: an image without documentation has the package without its examples.
const BUILD_PASSTHROUGH_LL: &str = r#"set -e
apt-get download libfuse3-dev
dpkg-deb --extract ./*.deb package
gcc -O2 -o passthrough_ll package/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c $(pkg-config --cflags --libs fuse3)
rm -r package ./*.deb"#;

fn build_passthrough_ll() -> Result<()> {
    by_script(&tools::passthrough_ll(), "passthrough_ll", "build passthrough_ll", BUILD_PASSTHROUGH_LL)
}

/// Has a script make `program` in the folder it runs in.
pub(super) fn by_script(program: &Path, name: &str, label: &str, script: &str) -> Result<()> {
    let place = program.parent().context("a tool has a folder of its own")?;
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(partial(place));
    build_into(place, name, label, command)
}

/// Runs a command that fills `partial(place)` and puts the result in place.
pub(super) fn build_into(place: &Path, name: &str, label: &str, command: Command) -> Result<()> {
    let partial = partial(place);
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    let built = run_logged(label, command, &log(name)).and_then(|()| {
        if place.exists() {
            // One that is there but was found wanting, or that another set-up finished first.
            fs::remove_dir_all(place).with_context(|| format!("remove {}", place.display()))?;
        }
        fs::rename(&partial, place).with_context(|| format!("rename {} into place", partial.display()))
    });
    if built.is_err() && partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    built
}

pub(super) fn partial(place: &Path) -> PathBuf {
    let mut path = place.as_os_str().to_owned();
    path.push(format!(".partial-{}", process::id()));
    path.into()
}

pub(super) fn log(name: &str) -> PathBuf {
    tools::cache_dir().join("logs").join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_are_apts_own_words() {
        let rehearsal = "Reading package lists...\nNeed to get 304 MB of archives.\nAfter this operation, 1922 MB of \
                         additional disk space will be used.\nDo you want to continue? [Y/n] N\nAbort.\n";
        let sizes: Vec<_> = sizes(rehearsal).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes[1].contains("1922 MB"));
    }
}
