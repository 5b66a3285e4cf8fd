//! Whether delays and errors are what the rules say, as an application sees them.

use std::hash::{BuildHasher as _, RandomState};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::Line;
use super::super::fio;
use super::super::kit::Kit;
use super::super::parsers;
use super::super::report::{Row, Target};
use super::modes::Stage;
use super::pace::percentile;
use crate::mounts::Mounted;

const MS: f64 = 1e6;
const DELAYS: [(&str, f64); 2] = [("late-1ms", 1.0), ("late-10ms", 10.0)];
const SECONDS: u32 = 4;
/// Probabilities of an error, and reads that meet them.
const ERRORS: [(&str, f64); 3] = [("rare", 0.001), ("some", 0.01), ("half", 0.5)];
const READS: u32 = 40_000;
/// Of the normal distribution: outside of so many standard deviations lies one in a thousand.
const Z: f64 = 3.2905;

pub(super) fn rows(kit: &Kit, stage: &Stage<'_>) -> Result<Vec<Row>> {
    // The same seed gives the same faults, so that one that is always the same would prove nothing.
    let seed = RandomState::new().hash_one(std::process::id()) >> 32;
    for (name, _) in DELAYS {
        stage.file(name, 16 << 20)?;
    }
    for (name, _) in ERRORS {
        stage.file(&format!("{name}/data"), 4096)?;
    }
    let mounted = stage.mount("faults", &rules(seed))?;
    let mut rows = Vec::new();
    for (name, ms) in DELAYS {
        for direction in ["read", "write"] {
            rows.extend(delay(kit, &mounted, name, ms, direction)?);
        }
    }
    let before = injected(kit, &mounted)?;
    let mut seen = 0;
    for (name, probability) in ERRORS {
        let failed = failed(kit, &mounted, name)?;
        seen += failed;
        rows.push(errors(probability, failed, seed));
    }
    let logged = injected(kit, &mounted)? - before;
    #[expect(clippy::cast_precision_loss, reason = "counts of some ten thousand")]
    let difference = logged as f64 - seen as f64;
    let what = "faults in the log - errors that the reader saw";
    rows.push(Row::counted(Line::I5, what, difference, "errors", Target::Exactly(0.0)).noted(format!("{seen} seen")));
    Ok(rows)
}

fn rules(seed: u64) -> String {
    let delays = DELAYS.map(|(name, ms)| {
        format!("  - {{ name: {name}, match: {{ ops: [read, write], path: {name} }}, do: {{ delay: {ms}ms }} }}\n")
    });
    let errors = ERRORS.map(|(name, probability)| {
        format!(
            "  - {{ name: {name}, match: {{ ops: read, path: {name}/data }}, when: {{ probability: {probability} }}, do: {{ errno: EIO }} }}\n"
        )
    });
    format!("version: 1\nseed: {seed}\nrules:\n{}{}", delays.concat(), errors.concat())
}

/// How much later than asked for half and nearly all answers come.
fn delay(kit: &Kit, mounted: &Mounted, name: &str, ms: f64, direction: &str) -> Result<[Row; 2]> {
    let mut command = fio::command(SECONDS, &["--bs=4k", "--size=16M"]);
    command.arg(format!("--rw=rand{direction}"));
    command.arg(format!("--filename={}", mounted.target().join(name).display()));
    let log = fio::log(kit, command, "delay", 1)?;
    let mut took: Vec<f64> = log.iter().map(|done| done.took_ns / MS - ms).collect();
    let mut of = |percent: f64| percentile(&mut took, percent).context("fio's log is empty");
    let (first, median, last) = (of(0.0)?, of(50.0)?, of(99.0)?);
    let note = format!("{} {direction}s, the earliest {first:+.3} ms", log.len());
    let row = |what: &str, value: f64, target: Target| {
        Row::counted(Line::I5, format!("{direction} delayed by {ms} ms: {what}, over the delay"), value, "ms", target)
    };
    // Nothing may come early.
    Ok([
        row("median", median, Target::Within(0.0, 0.5)).noted(note),
        row("99th percentile", last, Target::Within(0.0, 3.0)),
    ])
}

/// Reads of that file that failed.
fn failed(kit: &Kit, mounted: &Mounted, name: &str) -> Result<u64> {
    let lines = kit.lines(kit.loops_in(&mounted.target().join(name), &[("failing", READS.into())]))?;
    parsers::failed(lines.iter().map(String::as_str)).context("the loop did not say how many reads failed")
}

/// A rate, and where it lies 999 times of a thousand.
fn errors(probability: f64, failed: u64, seed: u64) -> Row {
    let reads = f64::from(READS);
    #[expect(clippy::cast_precision_loss, reason = "counts of some ten thousand")]
    let rate = failed as f64 / reads;
    // Half a read more on either side, since reads are counted in whole ones.
    let width = Z * (probability * (1.0 - probability) / reads).sqrt() + 0.5 / reads;
    let what = format!("share of reads that fail with probability {probability}");
    let target = Target::Within(probability - width, probability + width);
    Row::counted(Line::I5, what, rate, "", target).noted(format!("{failed} of {READS}, seed {seed}"))
}

/// Faults that the mount says it injected.
fn injected(kit: &Kit, mounted: &Mounted) -> Result<u64> {
    let mut command = Command::new(&kit.fsi);
    command.arg("ctl").arg(mounted.target()).args(["--json", "show"]);
    let document = parsers::document(&kit.lines(command)?).context("`fsi ctl --json show` printed no document")?;
    document.get("faults_injected").and_then(Value::as_u64).context("`fsi ctl show` does not say how many faults")
}

#[cfg(test)]
mod tests {
    use super::super::super::report::Verdict;
    use super::*;

    #[test]
    fn an_error_rate_is_held_to_its_interval() {
        // 400 are expected; the standard deviation is 19.9.
        assert_eq!(errors(0.01, 460, 1).verdict, Verdict::Met);
        assert_eq!(errors(0.01, 470, 1).verdict, Verdict::NotMet);
        assert_eq!(errors(0.01, 330, 1).verdict, Verdict::NotMet);
    }
}
