//! A running agent of a node, with a place, a socket and a port of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::collector::free_port;
use crate::eventually::eventually;
use crate::fsi::{fsi, succeed};
use crate::http;
use crate::prom::Metrics;

/// The agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl Agent {
    /// Started, and its probes attached. `rest` are further lines of its configuration.
    #[must_use]
    pub fn start(rest: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_port();
        fs::create_dir(directory.path().join("run")).expect("a directory");
        fs::write(directory.path().join("agent.yaml"), configuration(&directory, port, rest)).expect("a file");
        let log = fs::File::create(directory.path().join("log")).expect("a file");
        let mut command = fsi(["agent", "--config"]);
        command.arg(directory.path().join("agent.yaml")).stdout(Stdio::null()).stderr(log).env_remove("RUST_LOG");
        command.env("FSI_RUN_DIR", directory.path().join("run"));
        let child = command.spawn().expect("the agent starts");
        let mut agent = Self { child, directory, port };
        eventually("the agent is ready", || {
            let ended = agent.child.try_wait().expect("it is ours to wait for");
            assert!(ended.is_none(), "the agent ended: {ended:?}\n{}", agent.log());
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() && http::is_well(port, "/readyz")
        });
        agent
    }

    /// `$FSI_RUN_DIR` of mounts that are to report to it.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Where those who watch attach.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_directory().join("agent-control.sock")
    }

    /// What `fsi ctl agent show` says.
    #[must_use]
    pub fn shown(&self) -> Value {
        let mut show = fsi(["ctl", "agent", "show", "--json"]);
        let shown = succeed(show.env("FSI_RUN_DIR", self.run_directory()));
        serde_json::from_slice(&shown.stdout).expect("it is JSON")
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&http::get(self.port, "/metrics"))
    }

    /// The most memory it ever had, in KiB.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// What it said on stderr.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Writes another configuration and has it read.
    pub fn reload(&self, rest: &str) {
        let reloads = |metrics: &Metrics| metrics.total("fsi_config_reloads_total");
        let before = reloads(&self.metrics());
        fs::write(self.directory.path().join("agent.yaml"), configuration(&self.directory, self.port, rest))
            .expect("a file");
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("it runs");
        eventually("the configuration is read again", || reloads(&self.metrics()) == before + 1);
    }

    /// SIGTERM; it tells what is still on its way and ends well.
    pub fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}\n{}", self.log());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // After a failed test it still runs; else it is gone, which is just as well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn configuration(directory: &TempDir, port: u16, rest: &str) -> String {
    let run = directory.path().join("run");
    format!(
        "version: 1\nmounts: {{ socket: '{}/agent.sock' }}\nmetrics: {{ listen: '127.0.0.1:{port}', max_series: 20000 }}\n{rest}",
        run.display()
    )
}
