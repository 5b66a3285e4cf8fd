//! The programs of the image, built for it: linked statically where the toolchain can, else with the libraries of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use xtask::cargo_env::forget_outer_package;
use xtask::workspace::Workspace;
use xtask::{other_layout, tools};

use super::libraries;
use crate::progress::run_logged;

/// The package and the program of each.
const ALL: [(&str, &str); 2] = [("fsi-agent", "fsi"), ("fsi-csi", "fsi-csi")];

/// Built.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) programs: Vec<PathBuf>,
    /// Of those that are not static.
    pub(crate) libraries: Vec<PathBuf>,
    pub(crate) packages: Vec<&'static str>,
    /// The target that they were built for; nothing: this machine.
    pub(crate) target: Option<String>,
}

impl Programs {
    /// Those of this checkout.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let ours: Vec<_> =
            ALL.into_iter().filter(|(package, _)| workspace.path(package).join("Cargo.toml").exists()).collect();
        let target = static_target();
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--profile", "image"]).current_dir(workspace.root());
        forget_outer_package(&mut command);
        for (package, program) in &ours {
            command.args(["--package", package, "--bin", program]);
        }
        let mut place = workspace.target_dir();
        if let Some(target) = &target {
            command.args(["--target", target]);
            place.push(target);
        }
        let names = ours.iter().map(|(_, program)| *program).collect::<Vec<_>>().join(" and ");
        run_logged(&format!("build {names} for an image"), command, &workspace.target_dir().join("image/build.log"))?;
        let programs: Vec<_> = ours.iter().map(|(_, program)| place.join("image").join(program)).collect();
        let mut needed = Vec::new();
        for program in &programs {
            if !program.is_file() {
                bail!("cargo built no {}", program.display());
            }
            needed.extend(libraries::of(program)?);
        }
        needed.sort();
        needed.dedup();
        Ok(Self { programs, libraries: needed, packages: ours.iter().map(|(package, _)| *package).collect(), target })
    }

    /// Those of a version with another layout, of which the `fsi` is written to a folder.
    pub(crate) fn of_other_layout(mut self, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        for program in self.programs.iter_mut().filter(|program| program.ends_with("fsi")) {
            let other = folder.join("fsi");
            other_layout::write(program, &other)?;
            *program = other;
        }
        Ok(self)
    }
}

fn target() -> String {
    format!("{}-unknown-linux-musl", env::consts::ARCH)
}

/// Where the standard library for static programs is, if it is here.
pub(crate) fn static_std() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", &target()]).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim())).filter(|place| place.is_dir())
}

/// The musl target of this machine, if its standard library and a C compiler for it are here.
fn static_target() -> Option<String> {
    let compiler = [format!("{}-linux-musl-gcc", env::consts::ARCH), "musl-gcc".to_owned()];
    (static_std().is_some() && compiler.iter().any(|name| tools::on_path(name).is_some())).then(target)
}
