//! Reads what `cargo test -- --show-output` prints. libtest's machine-readable form is unstable, so this takes the parts
//! of the human one that have not changed in years: the line that announces a binary, the list of failures, the result.
//!
//! A test that cannot run here prints `SKIPPED <its name>: <reason>` and returns: libtest counts it as passed, we do not.
//! A binary that is announced but has no result has crashed, which is a failure with a name.

use crate::child::Ended;
use crate::test::tally::Tally;

#[derive(Debug, Default)]
pub(super) struct Libtest {
    /// Announced, result not yet seen.
    open: Option<Open>,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
    in_successes: bool,
}

/// Whether a line is for the person too.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Yes,
    /// What passing tests printed: `--show-output` is asked for only to find the skips in it.
    No,
}

#[derive(Debug, Default)]
struct Open {
    target: String,
    /// Names under the latest `failures:`; the last list before the result is the complete one.
    failures: Vec<String>,
    in_failures: bool,
    skipped: Vec<(String, String)>,
    ignored: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
}

impl Libtest {
    pub(super) fn read(&mut self, line: &str) -> Shown {
        self.take_in(line);
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if self.in_successes && result(line).is_some() => self.in_successes = false,
            _ => {}
        }
        if self.in_successes { Shown::No } else { Shown::Yes }
    }

    /// How many tests there were, however they ended.
    pub(super) fn count(&self) -> usize {
        self.passed + self.failed.len() + self.skipped.len()
    }

    fn take_in(&mut self, line: &str) {
        if let Some(target) = announced(line) {
            self.crashed();
            self.open = Some(Open { target, ..Open::default() });
            return;
        }
        let Some(open) = &mut self.open else { return };
        if let Some(counts) = result(line) {
            let open = std::mem::take(open);
            self.open = None;
            self.close(open, &counts);
        } else {
            open.read(line);
        }
    }

    /// What the run came to, `ended` being cargo's own end.
    pub(super) fn finish(mut self, step: &str, ended: Ended) -> Tally {
        self.crashed();
        if self.failed.is_empty() && !ended.is_success() {
            // It did not compile, or was killed between two binaries.
            self.failed.push(format!("{ended}"));
        }
        let mut tally = Tally::default();
        tally.add_passed(self.passed);
        self.failed.iter().for_each(|name| tally.fail(&format!("{step}: {name}")));
        self.skipped.iter().for_each(|(name, reason)| tally.skip(name, reason));
        tally
    }

    fn crashed(&mut self) {
        if let Some(open) = self.open.take() {
            self.failed.push(format!("{} ended without a result", open.target));
        }
    }

    fn close(&mut self, open: Open, counts: &Counts) {
        let Open { target, mut failures, skipped, ignored, in_failures: _ } = open;
        while failures.len() < counts.failed {
            // The list is for reading; the result line is what counts.
            failures.push(format!("a test of {target}"));
        }
        let skipped: Vec<_> = skipped.into_iter().filter(|(name, _)| !failures.contains(name)).collect();
        self.passed += counts.passed.saturating_sub(skipped.len());
        self.failed.extend(failures);
        self.skipped.extend(skipped);
        self.skipped.extend(ignored);
    }
}

impl Open {
    fn read(&mut self, line: &str) {
        if line == "failures:" {
            self.failures.clear();
            self.in_failures = true;
            return;
        }
        if self.in_failures {
            match line.strip_prefix("    ") {
                Some(name) if !name.starts_with(' ') => self.failures.push(name.trim_end().to_owned()),
                // The names follow at once; whatever else comes belongs to a test's output.
                Some(_) | None => self.in_failures = false,
            }
        }
        if let Some(skip) = skipped(line)
            && !self.skipped.iter().any(|(name, _)| *name == skip.0)
        {
            self.skipped.push(skip);
        }
        self.ignored.extend(ignored(line));
    }
}

/// `     Running tests/observe.rs (target/debug/deps/observe-0123)` or `   Doc-tests fsi_agent`, perhaps in colour.
fn announced(line: &str) -> Option<String> {
    let line = without_colour(line);
    let line = line.strip_prefix("   ")?.trim_start();
    if let Some(crate_name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("the examples of {crate_name}"));
    }
    let (source, binary) = line.strip_prefix("Running ")?.split_once(" (")?;
    let name = binary.trim_end_matches(')').rsplit('/').next().unwrap_or(binary);
    Some(format!("{source} ({})", name.rsplit_once('-').map_or(name, |(name, _hash)| name)))
}

/// `test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.00s`
fn result(line: &str) -> Option<Counts> {
    let line = without_colour(line);
    let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |kind: &str| counts.split("; ").find_map(|part| part.trim().strip_suffix(kind)?.trim().parse().ok());
    Some(Counts { passed: count("passed")?, failed: count("failed")? })
}

/// `SKIPPED name: reason`, also behind the `test name ... ` that libtest leaves open without capture.
fn skipped(line: &str) -> Option<(String, String)> {
    let rest = match line.split_once(" ... ") {
        Some((test, rest)) if test.starts_with("test ") => rest,
        Some(_) | None => line,
    };
    let (name, reason) = rest.trim_start().strip_prefix("SKIPPED ")?.split_once(": ")?;
    (!name.contains(' ')).then(|| (name.to_owned(), reason.trim().to_owned()))
}

/// `test name ... ignored, reason`
fn ignored(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.strip_prefix(", ").unwrap_or("marked ignored");
    Some((name.to_owned(), reason.to_owned()))
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_code, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn tally(output: &str, code: i32) -> String {
        let mut libtest = Libtest::default();
        for line in output.lines() {
            libtest.read(line);
        }
        libtest.finish("unit tests", Ended::With(ExitStatus::from_raw(code << 8))).to_string()
    }

    const MIXED: &str = "\
   Compiling fsi-agent v0.1.0
\x1b[1m\x1b[92m     Running\x1b[0m unittests src/lib.rs (target/debug/deps/fsi_agent-0a1b)

running 4 tests
test decode::short ... ok
test decode::long ... FAILED
test export::grpc ... ok
test slow ... ignored, by hand only

successes:

---- export::grpc stdout ----
SKIPPED export::grpc: the Collector is not installed


successes:
    decode::short
    export::grpc

failures:

---- decode::long stdout ----
thread 'decode::long' panicked at 'SKIPPED is not what this is: no'
failures:
    not a test's name

failures:
    decode::long

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

error: test failed, to rerun pass `-p fsi-agent --lib`
   Doc-tests fsi_agent

running 1 test
test fsi-agent/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    #[test]
    fn passes_failures_skips_and_ignored_are_told_apart() {
        let expected = "\nskipped: export::grpc: the Collector is not installed\nskipped: slow: by hand only\nFAILED: \
                        unit tests: decode::long\n2 passed, 1 failed, 2 skipped\n";
        assert_eq!(tally(MIXED, 101), expected);
    }

    #[test]
    fn what_passing_tests_print_is_not_shown() {
        let mut libtest = Libtest::default();
        let shown: Vec<_> = MIXED.lines().filter(|line| libtest.read(line) == Shown::Yes).collect();
        assert_eq!(libtest.count(), 5);
        assert!(!shown.iter().any(|line| line.contains("SKIPPED export::grpc")), "{shown:?}");
        for line in ["test decode::short ... ok", "    decode::long", "---- decode::long stdout ----"] {
            assert!(shown.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_crashed_binary_is_a_failure_beside_the_others() {
        let output = "     Running tests/a.rs (target/debug/deps/a-1)\ntest one ... \n     Running tests/b.rs \
                      (target/debug/deps/b-2)\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered \
                      out; finished in 0s\n";
        let expected = "\nFAILED: unit tests: tests/a.rs (a) ended without a result\n3 passed, 1 failed, 0 skipped\n";
        assert_eq!(tally(output, 101), expected);
    }

    #[test]
    fn what_does_not_compile_is_one_failure() {
        let expected = "\nFAILED: unit tests: exit status: 101\n0 passed, 1 failed, 0 skipped\n";
        assert_eq!(tally("error[E0308]: mismatched types", 101), expected);
    }

    #[test]
    fn a_skip_is_seen_without_capture_and_counted_once() {
        let output = "     Running tests/a.rs (target/debug/deps/a-1)\ntest tracer ... SKIPPED tracer: not root\nok\n\
                      SKIPPED tracer: not root\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered \
                      out; finished in 0s\n";
        assert_eq!(tally(output, 0), "\nskipped: tracer: not root\n0 passed, 0 failed, 1 skipped\n");
    }

    #[test]
    fn a_test_that_failed_after_saying_it_skips_has_failed() {
        let output = "     Running tests/a.rs (target/debug/deps/a-1)\nSKIPPED tracer: not root\nfailures:\n    \
                      tracer\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; \
                      finished in 0s\n";
        assert_eq!(tally(output, 101), "\nFAILED: unit tests: tracer\n0 passed, 1 failed, 0 skipped\n");
    }
}
