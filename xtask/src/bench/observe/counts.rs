//! What needs no rounds: counts that are right or wrong, drops, and the exporter's burst.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::Line;
use super::super::kit::{Kit, Peer};
use super::super::parsers;
use super::super::report::{Row, Target, Verdict};

/// Half a second at a million a second.
const PACED: u64 = 500_000;
/// Near enough to a million a second to say that it was.
const RATE: f64 = 0.98;
const RING: u64 = 1 << 20;
/// One lucky run proves nothing.
const REPETITIONS: usize = 3;
const BURST: u64 = 400_000;

/// The rows of O4, S1 and of the first half of O5.
pub(in crate::bench) fn rows(kit: &Kit, lines: &BTreeSet<Line>, say: impl Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if lines.contains(&Line::O4) {
        say("counts: fio against the histogram, spans against operations");
        rows.push(histogram(kit)?);
        rows.push(spans(kit, "8MiB")?);
        rows.push(spans(kit, "64KiB")?);
    }
    if lines.contains(&Line::O5) {
        say("the ring at a million operations a second");
        rows.push(drops(kit, Reader::Loop)?);
        rows.push(drops(kit, Reader::Pipeline)?);
        rows.push(drops(kit, Reader::Spans)?);
    }
    if lines.contains(&Line::S1) {
        say("a burst of spans to a collector");
        rows.extend(burst(kit)?);
    }
    Ok(rows)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few million")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few million")]
fn difference(one: u64, other: u64) -> f64 {
    i128::from(one).saturating_sub(i128::from(other)) as f64
}

/// fio's own count against the sum of the histograms in the metrics file.
fn histogram(kit: &Kit) -> Result<Row> {
    let what = "reads and writes in the histogram - those that fio did";
    let target = Target::Exactly(0.0);
    if !Peer::Fio.is_here() {
        return Ok(Row::open(Line::O4, what, target, "skipped, fio is not on this machine"));
    }
    let (data, metrics, fio) = (kit.file("data"), kit.file("metrics"), kit.file("fio.json"));
    let mut command = Command::new(&kit.fsi);
    // fio reads and writes more than its data: its output, its settings, the machine's.
    command.args(["observe", "--path"]).arg(&data).arg("--metrics").arg(&metrics).arg("--").arg("fio");
    command.args(["--name=o4", "--rw=randrw", "--size=64m", "--bs=4k", "--ioengine=psync", "--loops=12"]);
    command.args(["--invalidate=0", "--randrepeat=0", "--numjobs=1", "--output-format=json"]);
    command.arg(format!("--filename={}", data.display())).arg(format!("--output={}", fio.display()));
    kit.lines(command).context("fio under fsi observe")?;
    let issued = parsers::fio_ios(&serde_json::from_str(&kit.read("fio.json")?).context("fio's JSON")?)
        .context("fio's JSON has no total_ios")?;
    let text = kit.read("metrics")?;
    let of = |op: &str| {
        let label = format!("op=\"{op}\"");
        parsers::prometheus_sum(&text, "fsi_operation_duration_seconds_count", &label).unwrap_or(0)
    };
    let counted = of("read") + of("write");
    let row = Row::counted(Line::O4, what, difference(counted, issued), "operations", target);
    Ok(row.noted(format!("{counted} of {issued}")))
}

/// Every operation as a span in a file: what is in the file and what is told as lost against what was seen.
fn spans(kit: &Kit, ring: &str) -> Result<Row> {
    let file = kit.file("spans");
    let mut command = Command::new(&kit.fsi);
    command.args(["observe", "--json", "--ring", ring, "--spans"]).arg(&file).arg("--");
    command.args(kit.loop_words(&[("pread", 150_000), ("open", 15_000)]));
    let document = document(kit, command)?;
    let number = |path: &str| document.pointer(path).and_then(Value::as_u64).context("the summary lacks a count");
    let (seen, not_asked_for) = (number("/events/seen")?, number("/events/not_asked_for")?);
    let written = operation_spans(&kit.read("spans")?);
    let lost = lost_operations(&document);
    let unaccounted = difference(seen, written + lost + not_asked_for);
    let what = format!("operations - spans in the file - named losses, ring of {ring}");
    let row = Row::counted(Line::O4, what, unaccounted, "operations", Target::Exactly(0.0));
    std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    Ok(row.noted(format!("{seen} seen, {written} in the file, {lost} lost")))
}

/// Spans in OTLP/JSON lines that are neither an open file nor a process.
fn operation_spans(text: &str) -> u64 {
    let count = |needle: &str| text.matches(needle).count() as u64;
    // A quotation mark inside a value is written with a backslash before it, so these stand for what they say.
    count("\"spanId\":").saturating_sub(count("\"name\":\"file\",") + count("\"name\":\"process\","))
}

/// Losses that cost an operation its span. What is lost of paths and of files leaves the span there, with less in it.
fn lost_operations(document: &Value) -> u64 {
    lost(document, |stage, reason| match stage {
        "ring" => reason == "operation",
        "decode" | "export" | "spans_file" => true,
        _other => false,
    })
}

/// Records of any kind that found the ring full.
fn dropped(document: &Value) -> u64 {
    lost(document, |stage, _reason| stage == "ring")
}

fn lost(document: &Value, counts: impl Fn(&str, &str) -> bool) -> u64 {
    let losses = document.get("lost").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let word = |loss: &Value, name: &str| loss.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let counted = losses.iter().filter(|loss| counts(&word(loss, "stage"), &word(loss, "reason")));
    counted.filter_map(|loss| loss.get("count")?.as_u64()).sum()
}

fn document(kit: &Kit, command: Command) -> Result<Value> {
    parsers::document(&kit.lines(command)?).context("`fsi observe --json` printed no document")
}

/// Who empties the ring.
#[derive(Debug, Clone, Copy)]
enum Reader {
    /// A loop that throws the records away.
    Loop,
    /// `fsi observe`, which makes spans of them and lists the slowest.
    Pipeline,
    /// `fsi observe`, which encodes the spans as well.
    Spans,
}

impl Reader {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Loop => &[],
            Self::Pipeline => &["--slower", "1ns"],
            Self::Spans => &["--spans", "/dev/null"],
        }
    }
}

/// Records that found the ring full, the worst of a few runs.
fn drops(kit: &Kit, reader: Reader) -> Result<Row> {
    let who = match reader {
        Reader::Loop => "records thrown away".to_owned(),
        Reader::Pipeline | Reader::Spans => format!("`fsi observe {}`", reader.options().join(" ")),
    };
    let what = format!("drops in 0.5 s at 1 M operations/s, ring of 1 MiB, {who}");
    let mut worst = 0;
    let mut slowest = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let (drops, rate) = paced(kit, reader)?;
        worst = worst.max(drops);
        slowest = slowest.min(rate);
    }
    let mut row = Row::counted(Line::O5, what, float(worst), "records", Target::Exactly(0.0));
    // No drops of a slower load say nothing of this one; drops do.
    if slowest < RATE && row.verdict == Verdict::Met {
        row.verdict = Verdict::Open("the load did not reach 1 M operations/s".to_owned());
    }
    Ok(row.noted(format!("the worst of {REPETITIONS} runs; the slowest did {slowest:.2} M operations/s")))
}

/// Drops, and millions of operations a second that were reached.
fn paced(kit: &Kit, reader: Reader) -> Result<(u64, f64)> {
    let words = kit.loop_words(&[("paced", PACED)]);
    let ring = RING.to_string();
    let (lines, drops) = match reader {
        Reader::Loop => {
            let mut command = Command::new(&kit.driver);
            command.args(["events", &ring]).arg(kit.file("report")).args(&words);
            let lines = kit.lines(command)?;
            let report: Value = serde_json::from_str(&kit.read("report")?).context("the driver's report")?;
            (lines, report.get("lost").and_then(Value::as_u64).context("the driver's report has no `lost`")?)
        }
        Reader::Pipeline | Reader::Spans => {
            let mut command = Command::new(&kit.fsi);
            command.args(["observe", "--json", "--ring", "1MiB"]).args(reader.options()).arg("--").args(&words);
            let lines = kit.lines(command)?;
            let document = parsers::document(&lines).context("`fsi observe --json` printed no document")?;
            (lines, dropped(&document))
        }
    };
    let times = parsers::loops(lines.iter().map(String::as_str));
    let ns = times.get("paced").context("the paced loop told no time")?;
    Ok((drops, 1000.0 / ns))
}

/// Through our exporter, and through the SDK's batch processor.
fn burst(kit: &Kit) -> Result<Vec<Row>> {
    let mut command = Command::new(&kit.driver);
    command.args(["export", &BURST.to_string()]);
    let lines = kit.lines(command)?;
    let document: Value = serde_json::from_str(lines.last().context("the driver said nothing")?)?;
    let number =
        |path: &str| document.pointer(path).and_then(Value::as_f64).context("the driver's report lacks a number");
    let (exported, cpu, wall) = (number("/fsi/exported")?, number("/fsi/cpu_seconds")?, number("/fsi/wall_seconds")?);
    let (lost, received) = (number("/fsi/lost")?, number("/fsi/received")?);
    let sdk_lost = number("/sdk/lost")? / float(BURST) * 100.0;
    let (rate, elapsed) = (exported / cpu, exported / wall);
    Ok(vec![
        Row::counted(
            Line::S1,
            "spans per second of CPU time, OTLP over gRPC to a loopback",
            rate,
            "spans/s",
            Target::None,
        )
        .noted(format!("{elapsed:.0} a second by the clock")),
        Row::counted(Line::S1, "spans lost of a burst of 400,000", lost, "spans", Target::Exactly(0.0))
            .noted(format!("the collector received {received:.0}")),
        Row::counted(Line::S1, "the same burst through the SDK's batch processor: lost", sdk_lost, "%", Target::None),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_operations_are_told_from_their_parents() {
        let text = r#"{"spans":[{"spanId":"1","name":"process","parentSpanId":""},{"spanId":"2","name":"file","x":1},
            {"spanId":"3","name":"read","v":"\"spanId\":"}]}"#;
        assert_eq!(operation_spans(text), 1);
    }

    #[test]
    fn only_losses_of_operations_are_summed() {
        let document = serde_json::json!({ "lost": [
            { "stage": "ring", "reason": "operation", "count": 5 },
            { "stage": "ring", "reason": "path", "count": 7 },
            { "stage": "attribute", "reason": "unknown_file", "count": 1 },
            { "stage": "export", "reason": "queue_full", "count": 2 },
        ] });
        assert_eq!(lost_operations(&document), 7);
        assert_eq!(dropped(&document), 12);
        assert_eq!(lost_operations(&Value::Null), 0);
    }
}
