//! What runs in the cluster, as archives that its nodes import: there is no registry.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask::tools;
use xtask::workspace::Workspace;

use crate::image::archive::{Image, Layer};
use crate::image::{self, Format, Programs, libraries};
use crate::setup::{CSI_PROVISIONER, CSI_RESIZER, JAEGER, LOCAL_PATH, OTELCOL};

/// The chart's.
const FSI: &str = "localhost/fsi:test";
/// The same of another version, of which servers cannot go on where those of this one were.
const OTHER_FSI: &str = "localhost/fsi:other";
/// What busybox is in pods.
const APPLETS: [&str; 24] = [
    "cat", "chmod", "cp", "date", "dd", "df", "echo", "env", "false", "grep", "ls", "mkdir", "mount", "mv", "rm", "sh",
    "sleep", "stat", "sync", "test", "touch", "true", "wc", "wget",
];

pub(super) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target_dir().join("e2e/images")
}

/// Builds those that are not there yet; the folder that they are in.
pub(super) fn build(workspace: &Workspace) -> Result<PathBuf> {
    println!("=== images");
    let folder = folder(workspace);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let programs = Programs::build(workspace)?;
    let size = image::write(workspace, FSI, &programs, Format::Docker, &folder.join("fsi.tar"))?;
    println!("  {FSI}: {} KiB compressed", size / 1024);
    let others = programs.of_other_layout(&workspace.target_dir().join("e2e/other"))?;
    image::write(workspace, OTHER_FSI, &others, Format::Docker, &folder.join("fsi-other.tar"))?;
    println!("  {OTHER_FSI}");
    let busybox = tools::on_path("busybox").context("no busybox")?;
    shell(&folder.join("pause.tar"), "localhost/pause:1", &busybox, &["/bin/sleep", "infinity"])?;
    shell(&folder.join("busybox.tar"), "localhost/busybox:1", &busybox, &["/bin/sh"])?;
    for (name, program) in [
        ("csi-provisioner", CSI_PROVISIONER.program(workspace)),
        ("csi-resizer", CSI_RESIZER.program(workspace)),
        ("local-path-provisioner", LOCAL_PATH.program(workspace)),
        ("jaeger", JAEGER.program(workspace)),
        ("otelcol", OTELCOL.program(workspace)),
        ("prometheus", tools::on_path("prometheus").context("no prometheus")?),
    ] {
        program_alone(&folder.join(format!("{name}.tar")), name, &program)?;
    }
    Ok(folder)
}

fn shell(out: &Path, name: &str, busybox: &Path, command: &[&str]) -> Result<()> {
    if is_newer(out, busybox) {
        return Ok(());
    }
    let mut layer = Layer::default();
    layer.copy(busybox, Path::new("bin/busybox"))?;
    for applet in APPLETS {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    layer.directory("tmp", 0o1777);
    write(out, name, layer, command)
}

fn program_alone(out: &Path, name: &str, program: &Path) -> Result<()> {
    if is_newer(out, program) {
        return Ok(());
    }
    let mut layer = Layer::default();
    let place = format!("/usr/bin/{name}");
    layer.copy(program, Path::new(&place))?;
    for library in libraries::of(program)? {
        layer.copy(&library, &library)?;
    }
    layer.directory("tmp", 0o1777);
    write(out, &format!("localhost/{name}:1"), layer, &[&place])
}

fn write(out: &Path, name: &str, layer: Layer, command: &[&str]) -> Result<()> {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    let image = Image { name: name.to_owned(), layers: vec![layer], command };
    image.write(Format::Docker, out)?;
    println!("  {name}");
    Ok(())
}

fn is_newer(out: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    matches!((time(out), time(than)), (Some(out), Some(than)) if out > than)
}
