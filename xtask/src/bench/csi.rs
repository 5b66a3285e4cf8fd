//! `cargo xtask bench csi`: how long the kubelet waits for a volume, by the calls of the real driver.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::interpose::percentile;
use super::kit::Kit;
use super::report::{Row, Target};
use super::{Line, Measured};

pub(super) use super::interpose::may_mount as may_run;

/// Of each kind in a round.
const VOLUMES: usize = 5;
const MS: f64 = 1e6;
/// The longest that a call may take, in milliseconds.
const BIND: Target = Target::AtMost(100.0);
const INTERPOSED: Target = Target::AtMost(300.0);
/// Line, kind, how it is told, call, what is wanted of it.
const CALLS: [(Line, &str, &str, &str, Target); 12] = [
    (Line::C1, "claim-bind", "a claim, bind-mounted", "NodeStageVolume", BIND),
    (Line::C1, "claim-bind", "a claim, bind-mounted", "NodePublishVolume", BIND),
    (Line::C1, "claim-bind", "a claim, bind-mounted", "NodeUnpublishVolume", Target::None),
    (Line::C1, "claim-bind", "a claim, bind-mounted", "NodeUnstageVolume", Target::None),
    (Line::C1, "inline-bind", "an inline volume, bind-mounted", "NodePublishVolume", BIND),
    (Line::C1, "inline-bind", "an inline volume, bind-mounted", "NodeUnpublishVolume", Target::None),
    (Line::C2, "claim-interposed", "a claim, interposed", "NodeStageVolume", INTERPOSED),
    (Line::C2, "claim-interposed", "a claim, interposed", "NodePublishVolume", BIND),
    (Line::C2, "claim-interposed", "a claim, interposed", "NodeUnpublishVolume", Target::None),
    (Line::C2, "claim-interposed", "a claim, interposed", "NodeUnstageVolume", Target::None),
    (Line::C2, "inline-interposed", "an inline volume, interposed", "NodePublishVolume", INTERPOSED),
    (Line::C2, "inline-interposed", "an inline volume, interposed", "NodeUnpublishVolume", Target::None),
];

/// Milliseconds by kind and call.
type Times = BTreeMap<(String, String), Vec<f64>>;

pub(super) fn measure(kit: &Kit, lines: &BTreeSet<Line>, rounds: usize, say: impl Fn(&str)) -> Result<Measured> {
    say(&format!("{rounds} rounds of {VOLUMES} volumes of each kind"));
    let mut command = Command::new(&kit.bench_csi);
    command.args([rounds, VOLUMES].map(|number| number.to_string()));
    command.env("FSI_BIN", &kit.fsi).env("FSI_CSI_BIN", &kit.fsi_csi);
    let times = times(&kit.lines(command)?)?;
    let mut rows = Vec::new();
    for (line, kind, told, call, target) in CALLS.into_iter().filter(|(line, ..)| lines.contains(line)) {
        let mut took = times.get(&(kind.to_owned(), call.to_owned())).cloned().unwrap_or_default();
        for (percent, share) in [(50.0, "median"), (99.0, "99th percentile")] {
            let what = format!("{told}: {call}, {share}");
            rows.push(match percentile(&mut took, percent) {
                Some(value) => Row::counted(line, what, value, "ms", target).noted(format!("of {} calls", took.len())),
                None => Row::open(line, what, target, "nothing was measured"),
            });
        }
    }
    Ok(Measured { rows, counted_rounds: rounds - 1, raw: raw(&times) })
}

/// Those of all rounds but the first.
fn times(lines: &[String]) -> Result<Times> {
    let mut times = Times::new();
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let ["bench_csi", round, kind, call, nanoseconds] = words.as_slice() else { continue };
        let nanoseconds: f64 = nanoseconds.parse().with_context(|| format!("`{line}` has no time"))?;
        if *round != "0" {
            times.entry(((*kind).to_owned(), (*call).to_owned())).or_default().push(nanoseconds / MS);
        }
    }
    Ok(times)
}

fn raw(times: &Times) -> Value {
    times.iter().map(|((kind, call), took)| json!({ "kind": kind, "call": call, "ms": took })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_does_not_count() {
        let lines = ["bench_csi 0 a Stage 9000000", "something else", "bench_csi 1 a Stage 2000000"];
        let read = times(&lines.map(str::to_owned)).unwrap();
        assert_eq!(read, Times::from([(("a".to_owned(), "Stage".to_owned()), vec![2.0])]));
        assert!(times(&["bench_csi 1 a Stage soon".to_owned()]).is_err());
    }
}
