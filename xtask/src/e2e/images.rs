//! What runs in the cluster, as archives that its nodes import: there is no registry.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask::tools;
use xtask::workspace::Workspace;

use crate::image::archive::{Image, Layer};
use crate::image::{self, Format, Programs, libraries};
use crate::setup::{CSI_PROVISIONER, CSI_RESIZER, GoTool, JAEGER, LOCAL_PATH, OTELCOL};

/// Of pods that are to do something, here and on a user's cluster.
pub(super) const BUSYBOX: &str = "docker.io/library/busybox:1.36";
/// What the nodes run first.
const FSI: &str = "docker.io/library/fsi:test";
/// The same of another version, of which servers cannot go on where those of this one were.
pub(super) const OTHER_FSI: &str = "docker.io/library/fsi:other";
/// What holds a pod together.
const PAUSE: &str = "localhost/pause:1";
/// What busybox is in pods.
const APPLETS: [&str; 24] = [
    "cat", "chmod", "cp", "date", "dd", "df", "echo", "env", "false", "grep", "ls", "mkdir", "mount", "mv", "rm", "sh",
    "sleep", "stat", "sync", "test", "touch", "true", "wc", "wget",
];

pub(super) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target_dir().join("e2e/images")
}

/// Builds those that are not there yet, and removes others; the folder that they are in.
pub(super) fn build(workspace: &Workspace) -> Result<PathBuf> {
    println!("=== images");
    let folder = folder(workspace);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let archive = |image: &str| folder.join(format!("{}.tar", image.replace(['/', ':'], "_")));
    let mut archives = BTreeSet::new();
    let mut fsi = |name: &str, programs: &Programs| {
        let out = archive(name);
        let size = image::write(workspace, name, programs, Format::Docker, &out)?;
        println!("  {name}: {} KiB compressed", size / 1024);
        archives.insert(out);
        Ok::<_, anyhow::Error>(())
    };
    let programs = Programs::build(workspace)?;
    fsi(FSI, &programs)?;
    fsi(OTHER_FSI, &programs.of_other_layout(&workspace.target_dir().join("e2e/other"))?)?;
    let busybox = tools::on_path("busybox").context("no busybox")?;
    for (name, command) in [(PAUSE, ["/bin/sleep", "infinity"].as_slice()), (BUSYBOX, &["/bin/sh"])] {
        let out = archive(name);
        if !is_newer(&out, &busybox) {
            write(&out, name, shell(&busybox)?, command)?;
        }
        archives.insert(out);
    }
    // As the chart names them: a version that is not the chart's would not be found.
    let sidecar = |tool: &GoTool| {
        let image = format!("registry.k8s.io/sig-storage/{}:v{}", tool.name, tool.version);
        (tool.name, image, tool.program(workspace))
    };
    let local = |name: &'static str, program| (name, format!("localhost/{name}:1"), program);
    for (name, image, program) in [
        sidecar(&CSI_PROVISIONER),
        sidecar(&CSI_RESIZER),
        local("local-path-provisioner", LOCAL_PATH.program(workspace)),
        local("jaeger", JAEGER.program(workspace)),
        local("otelcol", OTELCOL.program(workspace)),
        local("prometheus", tools::on_path("prometheus").context("no prometheus")?),
    ] {
        let out = archive(&image);
        if !is_newer(&out, &program) {
            let place = format!("/usr/bin/{name}");
            write(&out, &image, program_alone(&program, &place)?, &[&place])?;
        }
        archives.insert(out);
    }
    for entry in fs::read_dir(&folder).context("list the images")? {
        let path = entry.context("list the images")?.path();
        if !archives.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(folder)
}

fn shell(busybox: &Path) -> Result<Layer> {
    let mut layer = Layer::default();
    layer.copy(busybox, Path::new("bin/busybox"))?;
    for applet in APPLETS {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    layer.directory("tmp", 0o1777);
    Ok(layer)
}

fn program_alone(program: &Path, place: &str) -> Result<Layer> {
    let mut layer = Layer::default();
    layer.copy(program, Path::new(place))?;
    for library in libraries::of(program)? {
        layer.copy(&library, &library)?;
    }
    layer.directory("tmp", 0o1777);
    Ok(layer)
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
