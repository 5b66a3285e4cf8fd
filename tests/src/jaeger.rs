//! A real Jaeger on loopback: OTLP by gRPC in, traces in memory, its query API.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::collector::free_port;
use crate::eventually::eventually;
use crate::http;

/// A running Jaeger.
#[derive(Debug)]
pub struct Jaeger {
    child: Child,
    directory: TempDir,
    grpc: u16,
    query: u16,
}

impl Jaeger {
    /// Started, on free ports; it takes spans and answers.
    #[must_use]
    pub fn start(program: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (grpc, query) = (free_port(), free_port());
        let config = directory.path().join("config.yaml");
        fs::write(&config, configuration(grpc, query, free_port())).expect("a file");
        let log = fs::File::create(directory.path().join("log")).expect("a file");
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("Jaeger starts");
        let mut jaeger = Self { child, directory, grpc, query };
        eventually("Jaeger answers", || {
            let ended = jaeger.child.try_wait().expect("it is ours to wait for");
            assert!(ended.is_none(), "Jaeger ended: {ended:?}\n{}", jaeger.log());
            let listens = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            listens(grpc) && listens(query) && http::is_well(query, "/api/services")
        });
        jaeger
    }

    /// Where it takes spans.
    #[must_use]
    pub fn url(&self) -> String {
        format!("grpc://127.0.0.1:{}", self.grpc)
    }

    /// The ids of a service's traces that have an operation with this tag. The time has no bounds; what is newer than a hundred others
    /// is found.
    #[must_use]
    pub fn traces(&self, service: &str, operation: &str, tag: (&str, &str)) -> Vec<String> {
        let (key, value) = tag;
        let path = format!(
            "/api/traces?service={service}&operation={operation}&limit=100&tags=%7B%22{key}%22:%22{value}%22%7D"
        );
        let answer = self.ask(&path);
        let traces = answer["data"].as_array().into_iter().flatten();
        traces.filter_map(|trace| trace["traceID"].as_str()).map(str::to_owned).collect()
    }

    /// A trace as OTLP/JSON.
    #[must_use]
    pub fn trace(&self, id: &str) -> Value {
        self.ask(&format!("/api/v3/traces/{id}"))["result"].take()
    }

    fn ask(&self, path: &str) -> Value {
        serde_json::from_str(&http::get(self.query, path)).expect("it answers in JSON")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // What it holds is in memory and not wanted any more.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Every port is named: those that are not are open to the world.
fn configuration(grpc: u16, query: u16, query_grpc: u16) -> String {
    format!(
        "service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{ receivers: [otlp], exporters: [jaeger_storage_exporter] }}
  telemetry: {{ metrics: {{ level: none }} }}
extensions:
  jaeger_storage: {{ backends: {{ memory: {{ memory: {{ max_traces: 10000 }} }} }} }}
  jaeger_query:
    enable_tracing: false
    storage: {{ traces: memory }}
    http: {{ endpoint: '127.0.0.1:{query}' }}
    grpc: {{ endpoint: '127.0.0.1:{query_grpc}' }}
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{grpc}' }} }} }} }}
exporters: {{ jaeger_storage_exporter: {{ trace_storage: memory }} }}
"
    )
}
