//! FSI and its backends, installed with the helmfile that users have; only charts and images of the backends are local ones. Beside them
//! local-path-provisioner, whose volumes ours wrap.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::workspace::Workspace;

use super::cluster::{Cluster, entrance};
use crate::progress::run_logged;
use crate::setup::{HELM, HELMFILE};

pub(super) fn sync(workspace: &Workspace, cluster: &Cluster) -> Result<()> {
    let path = workspace.path("tests/cluster/local-path.yaml");
    let other = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    cluster.kubectl().apply(&other)?;
    let mut command = Command::new(entrance());
    command.arg(HELMFILE.program(workspace));
    command.arg("--helm-binary").arg(HELM.program(workspace));
    command.arg("--file").arg(workspace.path("helm/helmfile.yaml.gotmpl")).args(["--environment", "test"]);
    let has_driver = workspace.path("fsi-csi/Cargo.toml").exists();
    command.args(["--state-values-set", &format!("interposer={has_driver}")]);
    command.args(["sync", "--skip-deps"]);
    run_logged("install FSI and its backends", command, &workspace.target_dir().join("e2e/helmfile.log"))
}
