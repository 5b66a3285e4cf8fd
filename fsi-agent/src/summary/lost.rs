//! What was lost, by the stage and reason of `fsi_lost_total`, and in words.

use fsi_common::loss::Counter;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::format;

/// One way in which something was lost, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub stage: &'static str,
    pub reason: &'static str,
    pub count: u64,
}

impl From<(&'static str, &'static str, u64)> for Loss {
    fn from((stage, reason, count): (&'static str, &'static str, u64)) -> Self {
        Self { stage, reason, count }
    }
}

impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { stage, reason, count } = self;
        let mut loss = serializer.serialize_struct("Loss", 4)?;
        loss.serialize_field("stage", stage)?;
        loss.serialize_field("reason", reason)?;
        loss.serialize_field("count", count)?;
        loss.serialize_field("sentence", &self.words())?;
        loss.end()
    }
}

impl Loss {
    /// A counter of the kernel side, when it counts losses.
    #[must_use]
    pub fn of_counter((counter, count): (&Counter, u64)) -> Option<Self> {
        counter.loss().map(|(stage, reason)| Self { stage, reason, count })
    }

    /// In words, with what to do about it where there is something.
    pub(super) fn words(&self) -> String {
        let Meaning(one, many, rest) = meaning(self.stage, self.reason);
        let what = if self.count == 1 { one } else { many };
        format!("{} {what} {rest}", format::count(self.count))
    }
}

/// What is lost, once and more than once, and what that means.
struct Meaning(&'static str, &'static str, &'static str);

#[rustfmt::skip]
fn meaning(stage: &str, reason: &str) -> Meaning {
    match (stage, reason) {
        ("ring", "operation") => Meaning("operation", "operations", "without a span, though counted: the ring was full; try --ring 64MiB, or fewer spans with --slower, --failed or --sample"),
        ("ring", "path") => Meaning("path", "paths", "not told at first use: the ring was full; try --ring 64MiB"),
        ("ring", "file") => Meaning("open or close", "opens or closes", "of files not told: the ring was full; try --ring 64MiB"),
        ("ring", "process") => Meaning("start or end", "starts or ends", "of processes not told: the ring was full; try --ring 64MiB"),
        ("probe", "aggregate_full") => Meaning("operation", "operations", "missing from all counts: too many different containers, devices and errors; observe fewer with --cgroup, --path or --op"),
        ("probe", "files_full") => Meaning("open file", "open files", "not followed: too many at once; their operations are counted, but not by file"),
        ("probe", "task_storage") => Meaning("system call", "system calls", "not seen: the kernel had no memory for them"),
        ("probe", "io_uring") => Meaning("request", "requests", "handed to io_uring, whose inside is not seen"),
        ("probe", "aio") => Meaning("request", "requests", "handed to io_submit, whose inside is not seen"),
        ("probe", "mapping_busy") => Meaning("msync call", "msync calls", "whose mapping another thread was changing: they are not counted"),
        ("probe", "compat32") => Meaning("system call", "system calls", "of 32-bit programs, which are not seen"),
        ("decode", "truncated") => Meaning("record", "records", "too short to be understood: fsi and its kernel side are of different versions"),
        ("decode", "oversized") => Meaning("record", "records", "too long to be understood: fsi and its kernel side are of different versions"),
        ("decode", "unknown_code") => Meaning("record", "records", "of unknown kind: fsi and its kernel side are of different versions"),
        ("attribute", "unknown_file") => Meaning("operation", "operations", "whose span does not name its file: the file's announcement was lost"),
        ("attribute", "unknown_path") => Meaning("path", "paths", "missing from spans: the record was lost"),
        ("attribute", "evicted_path") => Meaning("path", "paths", "forgotten: more in use than are remembered"),
        ("correlate", "unknown_close") => Meaning("file", "files", "without a span of its own: the announcement was lost"),
        ("correlate", "unseen_close") => Meaning("file", "files", "whose end was not told"),
        ("correlate", "unseen_exit") => Meaning("process", "processes", "whose end was not told"),
        ("correlate", "evicted_file") => Meaning("file", "files", "ended early in the spans: too many open at once"),
        ("correlate", "evicted_process") => Meaning("process", "processes", "ended early in the spans: too many at once"),
        ("ring", "request") => Meaning("request", "requests", "to mounts not told: the ring was full; try a larger one"),
        ("ring", "cgroup") => Meaning("cgroup", "cgroups", "of whose making was not told: the ring was full; one that is gone at once has no name"),
        ("join", "unknown_request") => Meaning("request", "requests", "to mounts whose record was lost: what the mount did is missing in a span"),
        ("join", "unknown_report") => Meaning("report", "reports", "of mounts for operations that nobody looks at"),
        ("join", "missing_report") => Meaning("report", "reports", "that mounts did not give in time: what they did is missing in a span"),
        ("join", "evicted_request") => Meaning("request", "requests", "to mounts forgotten: too many under way at once"),
        ("join", "evicted_operation") => Meaning("operation", "operations", "told without what a mount did: too many waited for reports"),
        ("join", "evicted_ancestor") => Meaning("file or process", "files or processes", "without a span of its own: too many at once"),
        ("export", "queue_full") => Meaning("span", "spans", "not exported: they come faster than the collector takes them; ask for fewer with --slower, --failed or --sample"),
        ("export", "closed") => Meaning("span", "spans", "not exported: too late"),
        ("export", "refused") => Meaning("span", "spans", "refused by the collector; its log says why"),
        ("export", "timeout") => Meaning("span", "spans", "not exported: no answer in time; is the collector there?"),
        ("export", "flush_deadline") => Meaning("span", "spans", "not exported before the time was over; a longer --otlp-deadline helps"),
        ("spool", "full") => Meaning("span", "spans", "dropped from the spool: the collector was away for longer than it holds; a larger `spool.size` helps"),
        ("spool", "disk") => Meaning("span", "spans", "that the disk of the spool did not take, or not give back"),
        ("spool", "torn") => Meaning("segment", "segments", "of the spool with a torn end: an agent or a machine died while it wrote"),
        ("spans_file", "queue_full") => Meaning("span", "spans", "not written: they come faster than the disk takes them; ask for fewer with --slower, --failed or --sample"),
        ("spans_file", "write") => Meaning("span", "spans", "not written: the file could not be written; is the disk full?"),
        ("reports", "queue_full") => Meaning("report", "reports", "of a mount's operations left out of spans and metrics: they come faster than they can be told"),
        ("reports", "closed") => Meaning("report", "reports", "of a mount's operations left out of spans and metrics: too late"),
        ("reports", "unsent") => Meaning("report", "reports", "of a mount's operations left out of spans and metrics: its server or the agent ended before they were told"),
        ("watch", "queue_full") => Meaning("span", "spans", "not told by the agent: they come faster than they are taken here; ask for fewer with --slower, --failed, --sample, --path or --op"),
        ("hold", "queue_full") => Meaning("operation", "operations", "of a mount answered without the delay they were to have: too many waited"),
        ("fault_log", "write") => Meaning("fault", "faults", "missing from a mount's log: the file could not be written; is the disk full?"),
        ("reports", "files_full") => Meaning("file", "files", "of a mount without a span of its own: too many open at once"),
        ("metrics", "series") => Meaning("operation", "operations", "shown as `other` in the metrics: too many series"),
        ("metrics", "unknown_operation") => Meaning("operation", "operations", "missing from the metrics: the kernel side is of another version"),
        _ => Meaning("thing", "things", "lost without a name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::defs;

    #[test]
    fn every_loss_has_words_of_its_own() {
        let mut all = Vec::new();
        for (stage, reason) in defs::losses() {
            let words = Loss { stage, reason, count: 1_000 }.words();
            assert!(words.starts_with("1,000 ") && !words.contains("without a name"), "{stage}/{reason}: {words}");
            all.push(words);
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "{all:#?}");
        let one = Loss { stage: "export", reason: "refused", count: 1 };
        assert_eq!(one.words(), "1 span refused by the collector; its log says why");
        let json = serde_json::to_value(one).unwrap();
        assert_eq!((&json["count"], &json["sentence"]), (&1.into(), &one.words().into()));
    }
}
