//! A real OpenTelemetry Collector on loopback, OTLP in by gRPC and HTTP, a file of JSON lines out.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::spans::Spans;

/// The program: `$FSI_OTELCOL`, or what `cargo xtask setup` left in its cache.
#[must_use]
pub fn program() -> Option<PathBuf> {
    if let Some(path) = env::var_os("FSI_OTELCOL") {
        return Some(path.into()).filter(|path: &PathBuf| path.is_file());
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let tools = fs::read_dir(cache.join("fsi/tools")).ok()?.filter_map(Result::ok);
    let ours = tools.filter(|entry| entry.file_name().to_string_lossy().starts_with("otelcol-"));
    let mut programs: Vec<_> =
        ours.flat_map(|entry| [entry.path().join("otelcol"), entry.path().join("bin/otelcol")]).collect();
    programs.retain(|path| path.is_file());
    programs.pop()
}

/// A port of loopback that nobody listens on.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    directory: TempDir,
    pub grpc: u16,
    pub http: u16,
}

impl Collector {
    /// Started, and listening on free ports.
    #[must_use]
    pub fn start(program: &Path) -> Self {
        Self::start_at(program, free_port(), free_port())
    }

    /// Started, and listening on these ports.
    #[must_use]
    pub fn start_at(program: &Path, grpc: u16, http: u16) -> Self {
        Self::start_with(program, grpc, http, "")
    }

    /// The same, with more settings of both receivers, each after a comma.
    #[must_use]
    pub fn start_with(program: &Path, grpc: u16, http: u16, receiver: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("config.yaml");
        fs::write(&config, configuration(grpc, http, receiver, &directory.path().display().to_string()))
            .expect("a file");
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let log = fs::File::create(directory.path().join("log")).expect("a file");
        let mut child = command.stderr(log).spawn().expect("the collector starts");
        for port in [grpc, http] {
            eventually("the collector listens", || {
                let ended = child.try_wait().expect("it is ours to wait for");
                assert!(ended.is_none(), "the collector ended: {ended:?}");
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
        }
        Self { child, directory, grpc, http }
    }

    /// Ends it; what it received, also as it wrote it.
    #[must_use]
    pub fn received(mut self) -> (Spans, String) {
        self.end();
        let file = self.directory.path().join("spans");
        (Spans::read(&file), fs::read_to_string(&file).expect("it is text"))
    }
}

impl Collector {
    /// Ends it; the metrics it received, a request on each line.
    #[must_use]
    pub fn metrics(mut self) -> String {
        self.end();
        fs::read_to_string(self.directory.path().join("metrics")).expect("it is text")
    }

    fn end(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the collector runs");
        assert!(self.child.wait().expect("it ends").success(), "the collector ends well");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // After a failed test it still runs; else it is gone, which is just as well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn configuration(grpc: u16, http: u16, receiver: &str, directory: &str) -> String {
    format!(
        "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{grpc}'{receiver} }}, http: {{ endpoint: '127.0.0.1:{http}'{receiver} }} }} }} }}
exporters: {{ file/spans: {{ path: '{directory}/spans' }}, file/metrics: {{ path: '{directory}/metrics' }} }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [file/spans] }}
    metrics: {{ receivers: [otlp], exporters: [file/metrics] }}
"
    )
}
