//! `fsi observe` run once, with everything it says: its exit, its summary, metrics and spans.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::fsi::{fsi, output, text};
use crate::prom::Metrics;
use crate::spans::Spans;

/// Stands in the file for the spans until fsi empties it; no line is so short.
const NOT_YET: &str = "-";

/// An observation to be made. It always writes the summary as JSON, metrics and spans.
#[derive(Debug)]
pub struct Observe {
    options: Vec<OsString>,
    directory: Option<PathBuf>,
    results: TempDir,
}

/// What came of it.
#[derive(Debug)]
pub struct Observation {
    pub output: Output,
    pub metrics: Metrics,
    pub spans: Spans,
}

/// One that goes on until it is told to stop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    results: TempDir,
}

impl Observe {
    /// With these options.
    pub fn with<I: AsRef<OsStr>>(options: impl IntoIterator<Item = I>) -> Self {
        let options = options.into_iter().map(|option| option.as_ref().to_owned()).collect();
        Self { options, directory: None, results: tempfile::tempdir().expect("a directory for the results") }
    }

    /// In that working directory.
    #[must_use]
    pub fn within(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The command line up to `--`.
    fn command(&self) -> Command {
        let mut command = fsi(["observe", "--metrics"]);
        command.arg(self.results.path().join("metrics")).arg("--spans").arg(self.results.path().join("spans"));
        command.args(&self.options);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    /// Observes a command that must succeed.
    pub fn run<I: AsRef<OsStr>>(self, program: impl IntoIterator<Item = I>) -> Observation {
        let observation = self.run_to_any_end(program);
        let Output { status, stderr, stdout: _ } = &observation.output;
        assert!(status.success(), "{status}\n{}", text(stderr));
        observation
    }

    /// Observes a command however it ends.
    pub fn run_to_any_end<I: AsRef<OsStr>>(self, program: impl IntoIterator<Item = I>) -> Observation {
        let output = output(self.command().arg("--").args(program));
        Observation::of(output, &self.results)
    }

    /// Starts to observe what already runs; returns when the kernel side is in place.
    #[must_use]
    pub fn start(self) -> Running {
        let spans = self.results.path().join("spans");
        // fsi empties it after the probes are attached and before anything is told, and leaves it alone until then.
        std::fs::write(&spans, NOT_YET).expect("a file");
        let mut command = self.command();
        command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("fsi starts");
        eventually("the observation begins", || {
            let ended = child.try_wait().expect("fsi is ours to wait for");
            assert!(ended.is_none(), "fsi ended: {ended:?}");
            std::fs::metadata(&spans).is_ok_and(|file| file.len() != NOT_YET.len() as u64)
        });
        Running { child, results: self.results }
    }
}

impl Running {
    /// The process of `fsi`.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ctrl-C, and what came of it.
    pub fn stop(self) -> Observation {
        kill_process(self.pid(), Signal::INT).expect("fsi runs");
        self.end()
    }

    /// Waits for the end that it finds by itself.
    pub fn end(self) -> Observation {
        let Self { child, results } = self;
        let output = child.wait_with_output().expect("fsi ends");
        assert!(output.status.success(), "{}\n{}", output.status, text(&output.stderr));
        Observation::of(output, &results)
    }

    /// SIGKILL.
    pub fn kill(self) {
        let Self { mut child, results } = self;
        child.kill().expect("fsi runs");
        child.wait().expect("fsi ends");
        drop(results);
    }
}

impl Observation {
    fn of(output: Output, results: &TempDir) -> Self {
        let (metrics, spans) = (results.path().join("metrics"), results.path().join("spans"));
        let said = || text(&output.stderr);
        assert!(metrics.exists() && spans.exists(), "no results: {}\n{}", output.status, said());
        Self { metrics: Metrics::read(&metrics), spans: Spans::read(&spans), output }
    }

    /// The summary, where `--json` was given.
    #[must_use]
    pub fn summary(&self) -> Value {
        serde_json::from_slice(&self.output.stdout).expect("the summary is JSON")
    }

    /// Fails unless every operation seen is a span, was not asked for, or is a named loss; and every span made is in the file
    /// or is a named loss. Returns (seen, spans, sampled out, lost).
    pub fn balances(&self) -> [u64; 4] {
        let metrics = &self.metrics;
        let seen = metrics.total("fsi_operations_total") + metrics.lost("probe", "aggregate_full");
        let made = metrics.sum("fsi_spans_total", "outcome", "made");
        let sampled_out = metrics.sum("fsi_spans_total", "outcome", "sampled_out");
        let lost = metrics.lost("ring", "operation") + metrics.sum("fsi_lost_total", "stage", "decode");
        assert_eq!(seen, made + sampled_out + lost, "spans {made}, sampled out {sampled_out}, lost {lost}");
        let written = metrics.sum("fsi_spans_total", "outcome", "written");
        assert_eq!(self.spans.all.len() as u64, written, "the file holds what is said to be in it");
        let not_written = metrics.sum("fsi_lost_total", "stage", "spans_file");
        let in_file = self.spans.operations().count() as u64;
        assert!(in_file <= made && made <= in_file + not_written, "{in_file} of {made}, {not_written} not written");
        [seen, made, sampled_out, lost]
    }
}
