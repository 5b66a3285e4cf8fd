//! `cargo xtask bench observe`: what observing costs, and whether it counts exactly.

mod beside;
mod counts;
mod modes;

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use self::modes::Mode;
use super::kit::Kit;
use super::report::{Row, Target};
use super::rounds::{self, Group};
use super::{Line, Measured};
use crate::setup;

type Rounds = rounds::Rounds<Mode>;

pub(super) fn may_run() -> Result<()> {
    if !setup::may_load_bpf() {
        bail!("loading eBPF probes needs root, or CAP_BPF and CAP_PERFMON: run the benchmarks as root");
    }
    Ok(())
}

pub(super) fn measure(kit: &Kit, lines: &BTreeSet<Line>, count: usize, say: impl Fn(&str)) -> Result<Measured> {
    kit.fill(kit.directory())?;
    let groups = [Group { load: (), modes: modes::compared(lines) }];
    let rounds = Rounds::run(&groups, count, &say, |(), mode| mode.run(kit, lines))?;
    let mut rows = rows(&rounds, lines);
    rows.extend(counts::rows(kit, lines, say)?);
    Ok(Measured { rows, counted_rounds: rounds.rounds.len(), raw: rounds.raw() })
}

/// The rows of O1, O2, O3 and of the second half of O5.
fn rows(rounds: &Rounds, lines: &BTreeSet<Line>) -> Vec<Row> {
    let mut rows = Vec::new();
    if lines.contains(&Line::O1) {
        rows.extend(ratios(rounds));
    }
    if lines.contains(&Line::O2) {
        rows.extend(nanoseconds(rounds));
    }
    if lines.contains(&Line::O3) {
        rows.extend(peers(rounds));
    }
    if lines.contains(&Line::O5) {
        rows.push(Row::of_rounds(
            Line::O5,
            "time of a 1-byte read, every operation to the ring / sums only",
            (rounds.times(Mode::Events, Mode::Sums, "pread"), rounds.a_a("pread")),
            "x",
            Target::AtMost(1.3),
        ));
    }
    rows
}

fn ratios(rounds: &Rounds) -> Vec<Row> {
    const LOADS: [(&str, &str, f64); 4] = [
        ("direct", "O_DIRECT 4 KiB read, queue depth 1", 0.97),
        ("create", "create + stat + unlink", 0.90),
        ("open", "open + read + close", 0.70),
        ("randread", "cached 4 KiB random read", 0.65),
    ];
    let mut rows = Vec::new();
    for (name, what, least) in LOADS {
        let measured = (rounds.speed(Mode::Sums, name), rounds.a_a(name));
        rows.push(Row::of_rounds(Line::O1, format!("{what}: sums / bare"), measured, "x", Target::AtLeast(least)));
    }
    for (name, what, _) in LOADS {
        let measured = (rounds.speed(Mode::Observe, name), rounds.a_a(name));
        rows.push(Row::of_rounds(Line::O1, format!("{what}: `fsi observe` / bare"), measured, "x", Target::None));
    }
    rows
}

fn nanoseconds(rounds: &Rounds) -> Vec<Row> {
    let added = |what: &str, mode: Mode, name: &'static str, target: Target| {
        Row::of_rounds(Line::O2, what, (rounds.added(mode, name), rounds.a_a(name)), "ns", target)
    };
    vec![
        added("added to an observed 1-byte read, sums", Mode::Sums, "pread", Target::AtMost(600.0)),
        added("added to a 1-byte read of somebody else", Mode::Beside, "pread", Target::AtMost(300.0)),
        added("added to a getppid of somebody else", Mode::Beside, "getppid", Target::AtMost(300.0)),
        added("added to a getppid of an observed process", Mode::Sums, "getppid", Target::None),
        added("added to an observed 1-byte read, `fsi observe`", Mode::Observe, "pread", Target::None),
        added("added to an observed 1-byte read, `fsi observe --spans /dev/null`", Mode::Spans, "pread", Target::None),
    ]
}

fn peers(rounds: &Rounds) -> Vec<Row> {
    const PEERS: [(Mode, &str, f64); 3] = [
        (Mode::Strace, "strace -f -c", 1.0 / 200.0),
        (Mode::PerfTrace, "perf trace -s", 1.0 / 50.0),
        (Mode::Bpftrace, "a bpftrace histogram", 0.6),
    ];
    let a_a = rounds.a_a("pread");
    let mut rows = Vec::new();
    for (mode, name, most) in PEERS {
        let share = format!("added to a 1-byte read: sums / {name}");
        let target = Target::AtMost(most);
        if let Some(why) = rounds.why_missing(mode) {
            rows.push(Row::open(Line::O3, share, target, &format!("skipped, {why}")));
            continue;
        }
        let measured = (rounds.added_share(Mode::Sums, mode, "pread"), a_a);
        rows.push(Row::of_rounds(Line::O3, share, measured, "x", target));
        let what = format!("added to a 1-byte read by {name}");
        let row = Row::of_rounds(Line::O3, what, (rounds.added(mode, "pread"), a_a), "ns", Target::None);
        rows.push(match rounds.seen(mode) {
            Some(seen) => row.noted(format!("it counted {seen} of {}", mode.reads())),
            None => row.noted("its own count could not be read"),
        });
    }
    rows
}
