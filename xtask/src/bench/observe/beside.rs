//! Somebody else who is observed while the load runs.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const READY: Duration = Duration::from_secs(30);

/// An `fsi observe` of an idle process; both end with this.
#[derive(Debug)]
pub(super) struct Beside {
    children: Vec<Child>,
}

impl Beside {
    /// Returns when the hooks are attached.
    pub(super) fn start(fsi: &Path) -> Result<Self> {
        let mut beside = Self { children: Vec::new() };
        let idle = beside.spawn(Command::new("sleep").arg("3600"))?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("find a port")?;
        let listen = port.to_string();
        // The metrics are served once everything is attached: that is how one sees that it is.
        beside.spawn(Command::new(fsi).args(["observe", "--pid", &idle.to_string(), "--metrics-listen", &listen]))?;
        let deadline = Instant::now() + READY;
        while TcpStream::connect(port).is_err() {
            if Instant::now() > deadline {
                bail!("`fsi observe --pid` beside the load did not start");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(beside)
    }

    fn spawn(&mut self, command: &mut Command) -> Result<u32> {
        let program = command.get_program().to_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let pid = child.id();
        self.children.push(child);
        Ok(pid)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // It may have ended by itself.
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}
