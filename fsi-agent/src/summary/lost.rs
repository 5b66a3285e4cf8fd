//! What was lost, by the stage and reason of `fsi_lost_total`, and in words.

use fsi_common::loss::Counter;
use serde::Serialize;

use super::format;

/// One way in which something was lost, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

impl Loss {
    /// A counter of the kernel side, when it counts losses.
    #[must_use]
    pub fn of_counter((counter, count): (&Counter, u64)) -> Option<Self> {
        counter.loss().map(|(stage, reason)| Self { stage, reason, count })
    }

    /// In words, with what to do about it where there is something.
    pub(super) fn words(&self) -> String {
        let meaning = match (self.stage, self.reason) {
            ("ring", "operation") => "operations without a span: the ring was full (a larger --ring helps)",
            ("ring", "path") => "paths not told: the ring was full (a larger --ring helps)",
            ("ring", "file") => "opens or closes not told: the ring was full (a larger --ring helps)",
            ("ring", "process") => "process starts or ends not told: the ring was full (a larger --ring helps)",
            ("probe", "aggregate_full") => "operations missing from all counts: too many different ones",
            ("probe", "files_full") => "open files not followed: too many at once",
            ("probe", "task_storage") => "system calls not seen: the kernel had no memory for them",
            ("probe", "io_uring") => "requests handed to io_uring, whose inside is not seen",
            ("probe", "aio") => "requests handed to io_submit, whose inside is not seen",
            ("probe", "compat32") => "calls of 32-bit programs, which are not seen",
            (stage, reason) => {
                return format!("{} by {stage}: {}", format::count(self.count), reason.replace('_', " "));
            }
        };
        format!("{} {meaning}", format::count(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_that_is_a_loss_has_words_of_its_own() {
        for loss in Counter::ALL.iter().filter_map(|counter| Loss::of_counter((counter, 1_000))) {
            let words = loss.words();
            assert!(words.starts_with("1,000 ") && !words.contains(" by "), "{words}");
        }
        let other = Loss { stage: "export", reason: "queue_full", count: 3 };
        assert_eq!(other.words(), "3 by export: queue full");
    }
}
