//! The keeper of a node, as a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::eventually::eventually;
use crate::fsi::{fsi, output, succeed, text};

/// One that listens.
#[derive(Debug)]
pub struct NodeKeeper {
    socket: PathBuf,
    child: Child,
}

impl NodeKeeper {
    /// With its socket and its log in a directory.
    #[must_use]
    pub fn start(directory: &Path) -> Self {
        let socket = directory.join("keeper.sock");
        let child = start(&socket);
        Self { socket, child }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Another one, after [`Self::kill`].
    pub fn start_again(&mut self) {
        self.child = start(&self.socket);
    }

    /// What it says it keeps.
    #[must_use]
    pub fn kept(&self) -> String {
        text(&succeed(fsi(["keeper", "--list", "--socket"]).arg(&self.socket)).stdout)
    }
}

impl Drop for NodeKeeper {
    fn drop(&mut self) {
        // A test may have killed it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn start(socket: &Path) -> Child {
    let log = File::options().append(true).create(true).open(socket.with_extension("log")).expect("a file");
    let child = fsi(["keeper", "--socket"]).arg(socket).stderr(log).spawn().expect("the keeper starts");
    eventually("the keeper listens", || output(fsi(["keeper", "--list", "--socket"]).arg(socket)).status.success());
    child
}
