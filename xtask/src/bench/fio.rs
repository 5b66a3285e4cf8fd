//! fio as every measurement starts it, and what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::kit::Kit;
use super::parsers;

/// One read or write, as fio's log tells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Done {
    /// Which of fio's jobs did it.
    pub(super) job: usize,
    /// Unix time at its end, in whole milliseconds.
    pub(super) at_ms: f64,
    pub(super) took_ns: f64,
    pub(super) bytes: f64,
}

/// A fio of so many seconds that neither drops the page cache nor makes a map of what it has done.
pub(super) fn command(seconds: u32, options: &[&str]) -> Command {
    let mut command = Command::new("fio");
    command.args(["--name=j", "--ioengine=psync", "--time_based", "--invalidate=0", "--randrepeat=0"]);
    command.args(["--norandommap", "--output-format=json"]).arg(format!("--runtime={seconds}")).args(options);
    command
}

/// Runs it; nanoseconds of one of its reads or writes.
pub(super) fn ns(kit: &Kit, command: Command) -> Result<f64> {
    ns_of(&parsers::document(&kit.lines(command)?).context("fio printed no JSON")?)
}

fn ns_of(document: &Value) -> Result<f64> {
    let iops = |direction: &str| document.pointer(&format!("/jobs/0/{direction}/iops")).and_then(Value::as_f64);
    let sum = iops("read").unwrap_or(0.0) + iops("write").unwrap_or(0.0);
    if sum > 0.0 { Ok(1e9 / sum) } else { bail!("fio did nothing") }
}

/// Runs it, and keeps what it says of every single read or write; in the order of their ends.
pub(super) fn log(kit: &Kit, mut command: Command, name: &str, jobs: usize) -> Result<Vec<Done>> {
    let prefix = kit.file(name);
    command.args(["--disable_slat=1", "--disable_clat=1", "--log_unix_epoch=1"]);
    command.arg(format!("--write_lat_log={}", prefix.display())).arg(format!("--numjobs={jobs}"));
    kit.lines(command)?;
    let mut all = Vec::new();
    for job in 1..=jobs {
        let path = PathBuf::from(format!("{}_lat.{job}.log", prefix.display()));
        let text = read(&path)?;
        all.extend(text.lines().filter_map(|line| done(job, line)));
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    if all.is_empty() {
        bail!("fio's log is empty");
    }
    all.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
    Ok(all)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// `time (ms), latency (ns), direction, bytes, ...`
fn done(job: usize, line: &str) -> Option<Done> {
    let mut fields = line.split(',').map(|field| field.trim().parse::<f64>().ok());
    let (at_ms, took_ns, _direction, bytes) = (fields.next()??, fields.next()??, fields.next()??, fields.next()??);
    Some(Done { job, at_ms, took_ns, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fio_did_in_a_second_is_the_time_of_one() {
        let document = serde_json::json!({ "jobs": [{ "read": { "iops": 0.0 }, "write": { "iops": 250_000.0 } }] });
        assert!((ns_of(&document).unwrap() - 4000.0).abs() < 0.001);
        assert!(ns_of(&Value::Null).is_err());
    }

    #[test]
    fn a_line_of_the_log_is_one_operation() {
        let expected = Done { job: 2, at_ms: 1_795_548_878_783.0, took_ns: 16_771.0, bytes: 4096.0 };
        assert_eq!(done(2, "1795548878783, 16771, 1, 4096, 0"), Some(expected));
        assert_eq!(done(2, "fio: nonsense"), None);
    }
}
