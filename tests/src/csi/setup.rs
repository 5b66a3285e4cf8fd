//! How the driver is started, the first time and after each kill.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::{binary, socket};
use crate::collector::free_port;
use crate::fsi;

/// What it is started with.
#[derive(Debug)]
pub(super) struct Setup {
    /// The port of its pages.
    pub(super) metrics: u16,
    /// Runs it as its last arguments.
    pub(super) wrapper: Vec<String>,
    /// The program that it runs as `fsi`.
    pub(super) server: PathBuf,
    /// The access to the API; none: there is no Kubernetes.
    pub(super) kubeconfig: Option<PathBuf>,
    /// The socket of the node's keeper.
    pub(super) keeper: Option<PathBuf>,
}

impl Setup {
    pub(super) fn new() -> Self {
        Self {
            metrics: free_port(),
            wrapper: Vec::new(),
            server: fsi::binary().clone(),
            kubeconfig: None,
            keeper: None,
        }
    }

    /// A driver with these folders.
    pub(super) fn spawn(&self, directory: &Path) -> Child {
        let Self { metrics, wrapper, server, kubeconfig, keeper } = self;
        let log = File::options().create(true).append(true).open(directory.join("log")).expect("a log");
        let mut command = match wrapper.split_first() {
            None => fsi::wrapped(binary()),
            Some((program, arguments)) => {
                let mut command = fsi::wrapped(program);
                command.args(arguments).arg(binary());
                command
            }
        };
        command.arg("node").arg("--endpoint").arg(format!("unix://{}", socket(directory).display()));
        for (option, place) in
            [("--kubelet-dir", "kubelet"), ("--pool", "pool"), ("--registration-dir", "registry"), ("--run-dir", "run")]
        {
            command.arg(option).arg(directory.join(place));
        }
        command.arg("--metrics").arg(format!("127.0.0.1:{metrics}"));
        match kubeconfig {
            Some(access) => command.envs([("POD_NAMESPACE", "fsi"), ("POD_NAME", "driver")]).env("KUBECONFIG", access),
            None => command.arg("--no-kubernetes"),
        };
        command.args(["--node-id", "test-node"]).arg("--fsi").arg(server);
        if let Some(keeper) = keeper {
            command.arg("--keeper").arg(keeper).arg("--programs").arg(directory.join("programs"));
        }
        command.env("RUST_LOG", "debug").stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}
