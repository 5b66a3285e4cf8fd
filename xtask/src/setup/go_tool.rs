//! Programs built from the Go module proxy. A folder of `tests` pins the modules of those that need it, and a change to it is
//! another folder of the cache; the others are a package at a version.

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
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    source: Source,
    package: &'static str,
    /// What the linker is told besides to leave out the symbols.
    linked_in: &'static [&'static str],
    /// What is built, in words.
    label: &'static str,
    /// How long it takes and how large it is, measured on two cores.
    pub(super) costs: &'static str,
}

/// Where its modules are pinned.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// In a folder of `tests`, of which these files count.
    Folder(&'static str, &'static [&'static str]),
    /// By the version of its package alone, which has a go.mod without replacements.
    Version,
}

/// The OpenTelemetry Collector, with the few components that the tests use.
pub(crate) const OTELCOL: GoTool = GoTool {
    name: "otelcol",
    version: "0.155.0",
    source: Source::Folder("otelcol", &["go.mod", "go.sum", "main.go", "components.go"]),
    package: ".",
    linked_in: &[],
    label: "the OpenTelemetry Collector",
    costs: "1 to 3 minutes, 30 MB",
};

/// Jaeger 2, whole: its modules have no smaller one. Its web pages are not in them.
pub(crate) const JAEGER: GoTool = GoTool {
    name: "jaeger",
    version: "1.76.0",
    source: Source::Folder("jaeger", &["go.mod", "go.sum"]),
    package: "github.com/jaegertracing/jaeger/cmd/jaeger",
    linked_in: &[],
    label: "Jaeger",
    costs: "6 to 10 minutes, 85 MB, after 260 MB of sources",
};

/// All of Kubernetes that a cluster and who uses it run, in one program; the name it is called by picks the part.
pub(crate) const KUBE: GoTool = GoTool {
    name: "kube",
    version: "1.34.4",
    source: Source::Folder("cluster/kube", &["go.mod", "go.sum", "main.go"]),
    package: ".",
    linked_in: &[
        "-X k8s.io/component-base/version.gitVersion=v1.34.4",
        "-X k8s.io/component-base/version.gitMajor=1",
        "-X k8s.io/component-base/version.gitMinor=34",
    ],
    label: "Kubernetes",
    costs: "8 to 12 minutes, 170 MB",
};

/// Kubernetes' sidecar that makes volumes.
pub(crate) const CSI_PROVISIONER: GoTool = GoTool {
    name: "csi-provisioner",
    version: "5.3.0",
    source: Source::Folder("cluster/csi-provisioner", &["go.mod", "go.sum"]),
    package: "github.com/kubernetes-csi/external-provisioner/v5/cmd/csi-provisioner",
    linked_in: &["-X main.version=v5.3.0"],
    label: "the CSI provisioner",
    costs: "2 to 4 minutes, 60 MB",
};

/// Kubernetes' sidecar that has volumes grow.
pub(crate) const CSI_RESIZER: GoTool = GoTool {
    name: "csi-resizer",
    version: "2.3.0",
    source: Source::Version,
    package: "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
    linked_in: &["-X main.version=v2.3.0"],
    label: "the CSI resizer",
    costs: "1 to 5 minutes, 70 MB",
};

/// A storage provisioner that is not ours (Apache-2.0): folders of a node.
pub(crate) const LOCAL_PATH: GoTool = GoTool {
    name: "local-path-provisioner",
    version: "0.0.30",
    source: Source::Version,
    package: "github.com/rancher/local-path-provisioner",
    linked_in: &["-X main.VERSION=v0.0.30"],
    label: "local-path-provisioner",
    costs: "1 to 2 minutes, 40 MB",
};

/// Installs charts.
pub(crate) const HELM: GoTool = GoTool {
    name: "helm",
    version: "3.22.0",
    source: Source::Version,
    package: "helm.sh/helm/v3/cmd/helm",
    linked_in: &["-X helm.sh/helm/v3/internal/version.version=v3.22.0"],
    label: "Helm",
    costs: "1 to 3 minutes, 60 MB",
};

/// Holds manifests against schemas.
pub(crate) const KUBECONFORM: GoTool = GoTool {
    name: "kubeconform",
    version: "0.7.0",
    source: Source::Version,
    package: "github.com/yannh/kubeconform/cmd/kubeconform",
    linked_in: &[],
    label: "kubeconform",
    costs: "a few seconds, 10 MB",
};

/// Installs several charts that belong together.
pub(crate) const HELMFILE: GoTool = GoTool {
    name: "helmfile",
    version: "1.8.0",
    source: Source::Folder("cluster/helmfile", &["go.mod", "go.sum"]),
    package: "github.com/helmfile/helmfile",
    linked_in: &["-X go.szostok.io/version.version=1.8.0"],
    label: "helmfile",
    costs: "5 to 8 minutes, 180 MB",
};

/// csi-sanity, the tests of the Container Storage Interface.
pub(crate) const CSI_SANITY: GoTool = GoTool {
    name: "csi-sanity",
    version: "5.4.0",
    source: Source::Folder("csi-sanity", &["go.mod", "go.sum"]),
    package: "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
    linked_in: &[],
    label: "csi-sanity",
    costs: "half a minute, 16 MB",
};

impl GoTool {
    /// Where it is, or would be.
    pub(crate) fn program(&self, workspace: &Workspace) -> PathBuf {
        let version = match self.source {
            Source::Version => self.version.to_owned(),
            Source::Folder(folder, files) => {
                let dir = workspace.path("tests").join(folder);
                let inputs: Vec<_> = files.iter().map(|file| dir.join(file)).collect();
                // Unreadable sources have no build either.
                let digest = digest::of_files(workspace.root(), &inputs).unwrap_or_default();
                format!("{}-{digest:016x}", self.version)
            }
        };
        tool_dir(self.name, &version).join(self.name)
    }

    pub(super) fn build(&self, workspace: &Workspace) -> Result<()> {
        let program = self.program(workspace);
        let place = program.parent().context("a tool has a folder of its own")?;
        let linked_in = ["-s -w"].iter().chain(self.linked_in).copied().collect::<Vec<_>>().join(" ");
        let mut command = Command::new("go");
        command.envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOWORK", "off")]);
        // -v names each package, so that one sees it advance.
        match self.source {
            Source::Folder(folder, _) => {
                command.current_dir(workspace.path("tests").join(folder));
                command.args(["build", "-v", "-mod=readonly", "-trimpath", "-ldflags", &linked_in, "-o"]);
                command.arg(partial(place).join(self.name)).arg(self.package);
            }
            Source::Version => {
                command.args(["install", "-v", "-trimpath", "-ldflags", &linked_in]);
                command.arg(format!("{}@v{}", self.package, self.version)).env("GOBIN", partial(place));
            }
        }
        build_into(place, self.name, &format!("build {}", self.label), command)
    }
}
