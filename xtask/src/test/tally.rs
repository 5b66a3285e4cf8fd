//! The count that closes a run, and the names behind it.

use std::fmt;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
    notes: Vec<(String, String)>,
}

impl Tally {
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn fail(&mut self, what: &str) {
        self.failed.push(what.to_owned());
    }

    pub(crate) fn skip(&mut self, what: &str, reason: &str) {
        self.skipped.push((what.to_owned(), reason.to_owned()));
    }

    /// Explains skips to come; counts as nothing itself.
    pub(super) fn note(&mut self, what: &str, reason: &str) {
        self.notes.push((what.to_owned(), reason.to_owned()));
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { passed, failed, skipped, notes } = other;
        self.passed += passed;
        self.failed.extend(failed);
        self.skipped.extend(skipped);
        self.notes.extend(notes);
    }

    pub(super) fn add_passed(&mut self, count: usize) {
        self.passed += count;
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (what, reason) in &self.notes {
            writeln!(f, "not here: {what}: {reason}")?;
        }
        for (what, reason) in &self.skipped {
            writeln!(f, "skipped: {what}: {reason}")?;
        }
        for what in &self.failed {
            writeln!(f, "FAILED: {what}")?;
        }
        writeln!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_last_line_and_the_only_one_of_its_kind() {
        let mut tally = Tally::default();
        tally.add_passed(41);
        tally.pass();
        tally.fail("lint: exit status: 101");
        tally.skip("otlp::grpc", "no Collector");
        tally.note("Go 1.25", "missing");
        let expected = "\nnot here: Go 1.25: missing\nskipped: otlp::grpc: no Collector\nFAILED: lint: exit status: \
                        101\n42 passed, 1 failed, 1 skipped\n";
        assert_eq!(tally.to_string(), expected);
    }
}
