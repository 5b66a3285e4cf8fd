//! What others know of file systems, run on a directory: the suites made to judge one, and programs that use one as people
//! do. Each returns its cases with their results, so that two directories can be compared.

mod fio;
mod fsx;
mod git;
mod pjdfstest;
mod sqlite;
mod stress;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::need::Need;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    pub name: &'static str,
    pub need: Need<'static>,
    run: fn(&Path) -> Results,
}

/// All of them.
pub const SUITES: &[Suite] = &[
    Suite { name: "pjdfstest", need: Need::Tool("FSI_PJDFSTEST"), run: pjdfstest::run },
    Suite { name: "fsx", need: Need::Tool("FSI_FSX"), run: fsx::run },
    Suite { name: "fio", need: Need::Program("fio"), run: fio::run },
    Suite { name: "stress-ng", need: Need::Program("stress-ng"), run: stress::run },
    Suite { name: "sqlite", need: Need::Program("sqlite3"), run: sqlite::run },
    Suite { name: "git", need: Need::Program("git"), run: git::run },
];

/// Each case of a suite with its result; a good one is `ok`, or what a program computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    cases: BTreeMap<String, String>,
}

impl Suite {
    /// That one.
    #[must_use]
    pub fn named(name: &str) -> Self {
        *SUITES.iter().find(|suite| suite.name == name).expect("one of them")
    }

    /// Runs it in a new directory of that one, which is removed when it is over; that must succeed too.
    #[must_use]
    pub fn run(&self, directory: &Path) -> Results {
        let own = directory.join(self.name);
        fs::create_dir(&own).expect("a directory");
        let results = (self.run)(&own);
        assert!(!results.cases.is_empty(), "{} said nothing", self.name);
        fs::remove_dir_all(&own).expect("what a suite leaves can be removed");
        results
    }
}

impl Results {
    fn add(&mut self, case: impl Into<String>, result: impl Into<String>) {
        let (case, result) = (case.into(), result.into());
        let before = self.cases.insert(case.clone(), result);
        assert_eq!(before, None, "two cases are called {case}");
    }

    /// How many cases have that result.
    #[must_use]
    pub fn count(&self, result: &str) -> usize {
        self.cases.values().filter(|value| *value == result).count()
    }

    /// The results that are not `ok`.
    #[must_use]
    pub fn not_ok(&self) -> Vec<String> {
        let bad = self.cases.iter().filter(|(_, result)| *result != "ok");
        bad.map(|(case, result)| format!("{case}: {result}")).collect()
    }

    /// What this one has otherwise than that.
    #[must_use]
    pub fn difference(&self, native: &Self) -> Vec<String> {
        const NONE: &str = "no such case";
        let result = |results: &Self, case: &str| results.cases.get(case).map_or(NONE, String::as_str).to_owned();
        let mut cases: Vec<_> = self.cases.keys().chain(native.cases.keys()).collect();
        cases.sort_unstable();
        cases.dedup();
        let pairs = cases.into_iter().map(|case| (case, result(native, case), result(self, case)));
        pairs
            .filter(|(_, native, ours)| native != ours)
            .map(|(case, native, ours)| format!("{case}: natively {native}, here {ours}"))
            .collect()
    }
}

/// The last lines of what a program said, as one.
fn last_words(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_what_differs() {
        let results = |cases: &[(&str, &str)]| {
            let mut results = Results::default();
            for (case, result) in cases {
                results.add(*case, *result);
            }
            results
        };
        let native = results(&[("a", "ok"), ("b", "ok"), ("c", "failed")]);
        assert_eq!(native.difference(&native), Vec::<String>::new());
        let here = results(&[("a", "ok"), ("b", "failed"), ("d", "ok")]);
        let expected = [
            "b: natively ok, here failed",
            "c: natively failed, here no such case",
            "d: natively no such case, here ok",
        ];
        assert_eq!(here.difference(&native), expected);
        assert_eq!(here.not_ok(), ["b: failed"]);
    }
}
