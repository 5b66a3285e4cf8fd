//! Programs built from the Go module proxy. `tests/NAME` pins their modules; a change to it is another folder of the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::digest;
use xtask::tools::tool_dir;
use xtask::workspace::Workspace;

use super::install::{build_into, partial};

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GoTool {
    /// The program, and its folder in `tests`.
    name: &'static str,
    /// That of the modules in its go.mod.
    version: &'static str,
    /// What in its folder it is built from.
    inputs: &'static [&'static str],
    package: &'static str,
    /// What is built, in words.
    label: &'static str,
    /// How long it takes and how large it is, measured on two cores.
    pub(super) costs: &'static str,
}

/// The OpenTelemetry Collector, with the few components that the tests use.
pub(crate) const OTELCOL: GoTool = GoTool {
    name: "otelcol",
    version: "0.155.0",
    inputs: &["go.mod", "go.sum", "main.go", "components.go"],
    package: ".",
    label: "the OpenTelemetry Collector",
    costs: "1 to 3 minutes, 30 MB",
};

/// Jaeger 2, whole: its modules have no smaller one. Its web pages are not in them.
pub(crate) const JAEGER: GoTool = GoTool {
    name: "jaeger",
    version: "1.76.0",
    inputs: &["go.mod", "go.sum"],
    package: "github.com/jaegertracing/jaeger/cmd/jaeger",
    label: "Jaeger",
    costs: "6 to 10 minutes, 85 MB, after 260 MB of sources",
};

/// csi-sanity, the tests of the Container Storage Interface.
pub(crate) const CSI_SANITY: GoTool = GoTool {
    name: "csi-sanity",
    version: "5.4.0",
    inputs: &["go.mod", "go.sum"],
    package: "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
    label: "csi-sanity",
    costs: "half a minute, 16 MB",
};

impl GoTool {
    /// Where it is, or would be.
    pub(crate) fn program(&self, workspace: &Workspace) -> PathBuf {
        let dir = workspace.path("tests").join(self.name);
        let inputs: Vec<_> = self.inputs.iter().map(|file| dir.join(file)).collect();
        // Unreadable sources have no build either.
        let digest = digest::of_files(workspace.root(), &inputs).unwrap_or_default();
        tool_dir(self.name, &format!("{}-{digest:016x}", self.version)).join(self.name)
    }

    pub(super) fn build(&self, workspace: &Workspace) -> Result<()> {
        let program = self.program(workspace);
        let place = program.parent().context("a tool has a folder of its own")?;
        let mut command = Command::new("go");
        command
            // Names each package, so that one sees it advance.
            .args(["build", "-v", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"])
            .arg(partial(place).join(self.name))
            .arg(self.package)
            .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOWORK", "off")])
            .current_dir(workspace.path("tests").join(self.name));
        build_into(place, self.name, &format!("build {}", self.label), command)
    }
}
