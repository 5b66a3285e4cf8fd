//! The ways the same load is run: alone, beside an observation, under ours, under the peers'.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::Line;
use super::super::kit::{Kit, Peer, with_tracefs};
use super::super::parsers;
use super::super::rounds::{self, Sample};
use super::beside::Beside;

/// Iterations of the loops; about a quarter of a second each.
const CALLS: [(&str, u64); 2] = [("pread", 300_000), ("getppid", 500_000)];
const FILES: [(&str, u64); 4] = [("randread", 150_000), ("direct", 3000), ("create", 8000), ("open", 50_000)];
const READS: [(&str, u64); 1] = [("pread", 300_000)];
/// Of those who need tens of microseconds for each.
const SLOW_READS: [(&str, u64); 1] = [("pread", 10_000)];

const HISTOGRAM: &str = "tracepoint:syscalls:sys_enter_pread64 { @start[tid] = nsecs; } \
    tracepoint:syscalls:sys_exit_pread64 /@start[tid]/ { @ns[comm] = hist(nsecs - @start[tid]); delete(@start[tid]); }";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Bare,
    /// The same again, for the A/A ratio.
    BareAgain,
    /// Not selected: somebody else is observed.
    Beside,
    /// Sums in the kernel, as the node agent has them.
    Sums,
    /// `fsi observe`, which follows files for its table.
    Observe,
    /// Every operation crosses the ring, nobody looks at it.
    Events,
    /// `fsi observe --spans`: every operation becomes a span.
    Spans,
    Bpftrace,
    PerfTrace,
    Strace,
}

impl rounds::Mode for Mode {
    const BARE: Self = Self::Bare;
    const BARE_AGAIN: Self = Self::BareAgain;

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareAgain => "bare_again",
            Self::Beside => "beside",
            Self::Sums => "sums",
            Self::Observe => "observe",
            Self::Events => "events",
            Self::Spans => "spans",
            Self::Bpftrace => "bpftrace",
            Self::PerfTrace => "perf_trace",
            Self::Strace => "strace",
        }
    }

    fn peer(self) -> Option<Peer> {
        match self {
            Self::Bpftrace => Some(Peer::Bpftrace),
            Self::PerfTrace => Some(Peer::Perf),
            Self::Strace => Some(Peer::Strace),
            Self::Bare | Self::BareAgain | Self::Beside | Self::Sums | Self::Observe | Self::Events | Self::Spans => {
                None
            }
        }
    }
}

/// Which modes the lines compare.
pub(super) fn compared(lines: &BTreeSet<Line>) -> Vec<Mode> {
    let of = |line: Line| -> &[Mode] {
        match line {
            Line::O1 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Observe],
            Line::O2 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Observe, Mode::Spans, Mode::Beside],
            Line::O3 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Bpftrace, Mode::PerfTrace, Mode::Strace],
            Line::O5 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Events],
            _without_rounds => &[],
        }
    };
    lines.iter().flat_map(|line| of(*line)).copied().collect::<BTreeSet<_>>().into_iter().collect()
}

impl Mode {
    /// Iterations of the one-byte read in this mode.
    pub(super) fn reads(self) -> u64 {
        match self {
            Self::PerfTrace | Self::Strace => SLOW_READS[0].1,
            _fast => READS[0].1,
        }
    }

    fn loops(self, lines: &BTreeSet<Line>) -> Vec<(&'static str, u64)> {
        match self {
            Self::Bare | Self::BareAgain | Self::Sums | Self::Observe if lines.contains(&Line::O1) => {
                CALLS.iter().chain(&FILES).copied().collect()
            }
            Self::Bare | Self::BareAgain | Self::Sums | Self::Observe | Self::Beside => CALLS.to_vec(),
            Self::Events | Self::Spans | Self::Bpftrace => READS.to_vec(),
            Self::PerfTrace | Self::Strace => SLOW_READS.to_vec(),
        }
    }

    /// Runs the load once.
    pub(super) fn run(self, kit: &Kit, lines: &BTreeSet<Line>) -> Result<Sample> {
        let words = kit.loop_words(&self.loops(lines));
        let report = kit.file("report").display().to_string();
        let beside = if self == Self::Beside { Some(Beside::start(&kit.fsi)?) } else { None };
        let command = match self {
            Self::Bare | Self::BareAgain | Self::Beside => command(&words[0], &[], &words[1..]),
            Self::Sums => command(&kit.driver, &["sums", &report], &words),
            Self::Events => command(&kit.driver, &["events", "1048576", &report], &words),
            Self::Observe => command(&kit.fsi, &["observe", "--"], &words),
            Self::Spans => command(&kit.fsi, &["observe", "--spans", "/dev/null", "--"], &words),
            Self::Bpftrace => with_tracefs(&["bpftrace", "-c", &words.join(" "), "-e", HISTOGRAM]),
            Self::PerfTrace => {
                let mut command = with_tracefs(&["perf", "trace", "-s", "-o", &report, "--"]);
                command.args(&words);
                command
            }
            Self::Strace => command("strace", &["-f", "-c", "-o", &report], &words),
        };
        let printed = kit.lines(command).with_context(|| format!("measure {}", rounds::Mode::name(self)))?;
        drop(beside);
        let ns = parsers::loops(printed.iter().map(String::as_str));
        let seen = match self {
            Self::Bpftrace => parsers::bpftrace_values(printed.iter().map(String::as_str)),
            Self::PerfTrace => parsers::perf_calls(kit.read("report")?.lines(), "pread64"),
            Self::Strace => parsers::strace_calls(kit.read("report")?.lines(), "pread64"),
            Self::Bare | Self::BareAgain | Self::Beside | Self::Sums | Self::Observe | Self::Events | Self::Spans => {
                None
            }
        };
        Ok(Sample { ns, seen })
    }
}

fn command(program: impl AsRef<std::ffi::OsStr>, options: &[&str], words: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(options).args(words);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_compared_is_run() {
        assert_eq!(compared(&BTreeSet::from([Line::O4, Line::S1])), []);
        assert_eq!(compared(&BTreeSet::from([Line::O5])), [Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Events]);
    }
}
