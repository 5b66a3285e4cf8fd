//! `cargo xtask image OUT`: FSI's container image as an archive, made without a container engine.
//!
//! `programs` builds what goes in, `sbom` lists what that is made of, `archive` writes layers, configuration and manifest. The same
//! programs give the same bytes: no times, no owners, sorted names.

pub(crate) mod archive;
pub(crate) mod libraries;
mod programs;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use xtask::workspace::Workspace;

use self::archive::{Image, Layer};
pub(crate) use self::programs::{Programs, static_std};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What a node loads at most before it watches or serves; bytes, compressed.
const MOST: u64 = 20 << 20;
/// Certificates that a collector's is checked with where the configuration names none.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The archive to write
    out: PathBuf,
    /// What it is for: `docker load`, or what reads OCI image layouts (`skopeo`, `podman`, `ctr`)
    #[arg(long, value_enum, default_value_t = Format::Oci)]
    load_format: Format,
    /// Name and tag of the image
    #[arg(long, default_value_t = format!("fsi:{VERSION}"))]
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Docker,
    Oci,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let size = build(workspace, &options.name, options.load_format, &options.out)?;
    println!("{}: {} ({:.1} MiB compressed)", options.out.display(), options.name, mib(size));
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs and writes the image; returns the size of its layers.
pub(crate) fn build(workspace: &Workspace, name: &str, format: Format, out: &Path) -> Result<u64> {
    write(workspace, name, &Programs::build(workspace)?, format, out)
}

/// Writes the image of these programs; returns the size of its layers.
pub(crate) fn write(workspace: &Workspace, name: &str, programs: &Programs, format: Format, out: &Path) -> Result<u64> {
    let size = fsi(workspace, name, programs)?.write(format, out)?;
    ensure!(size <= MOST, "{name} has {:.1} MiB compressed, and may have {:.0} MiB", mib(size), mib(MOST));
    Ok(size)
}

fn fsi(workspace: &Workspace, name: &str, programs: &Programs) -> Result<Image> {
    let mut base = Layer::default();
    base.directory("tmp", 0o1777);
    for directory in ["run", "var/lib"] {
        base.directory(directory, 0o755);
    }
    if let Ok(authorities) = fs::read(AUTHORITIES) {
        base.file(AUTHORITIES, 0o644, authorities);
    }
    for library in &programs.libraries {
        base.copy(library, library)?;
    }
    let mut ours = Layer::default();
    for program in &programs.programs {
        let file = program.file_name().context("a program has a name")?;
        ours.copy(program, &Path::new("usr/bin").join(file))?;
    }
    ours.file("usr/share/doc/fsi/sbom.spdx.json", 0o644, sbom::spdx(workspace, programs)?);
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        ours.copy(&workspace.path(license), &Path::new("usr/share/doc/fsi").join(license))?;
    }
    Ok(Image { name: name.to_owned(), layers: vec![base, ours], command: vec!["/usr/bin/fsi".to_owned()] })
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
