//! One program seen by FSI and by strace at once.

use std::path::Path;
use std::process::Command;

use crate::fsi::{fsi, succeed, text};
use crate::prom::Metrics;
use crate::strace::StraceLog;

/// Runs a program under strace under `fsi observe`, and demands that both saw the same: operations, errnos, bytes.
pub fn compare(directory: &Path, program: &[&str]) {
    let scratch = tempfile::tempdir().expect("a directory for the results");
    let (metrics, log) = (scratch.path().join("metrics"), scratch.path().join("log"));
    let mut command = fsi(["observe", "--not-process", "strace", "--metrics"]);
    command.arg(&metrics).args(["--", "strace", "-f", "-yy", "-o"]).arg(&log).args(program);
    succeed(command.current_dir(directory));
    agree(&Metrics::read(&metrics), &StraceLog::read(&log));
}

/// Fails with every difference.
fn agree(metrics: &Metrics, log: &StraceLog) {
    assert!(log.unclear.is_empty(), "strace's log cannot be read: {:#?}", log.unclear);
    assert!(log.cut.is_empty(), "operations without a result: {:#?}", log.cut);
    let fsi = metrics.counts();
    let differences = fsi.differences(&log.counts, "fsi", "strace");
    assert!(differences.is_empty(), "{}\nlost: {:?}", differences.join("\n"), metrics.losses());
    assert!(fsi.total() > 0, "nothing was seen");
    assert!(metrics.losses().is_empty(), "lost: {:?}", metrics.losses());
}

/// The Python interpreter itself, where `python3` on the path may be a script that starts it.
#[must_use]
pub fn python() -> String {
    let output = succeed(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]));
    text(&output.stdout).trim().to_owned()
}
