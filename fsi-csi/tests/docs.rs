//! `docs/KUBERNETES.md` against the code: every parameter and metric has its line, and no line is about another.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use fsi_csi::{metrics, parameters};

const TEXT: &str = include_str!("../../docs/KUBERNETES.md");

/// The first names in the table of a section.
fn first_names(section: &str) -> Vec<&'static str> {
    let (_, after) = TEXT.split_once(&format!("## {section}\n")).expect("the section");
    let own = after.split("\n## ").next().expect("a text");
    let name = |line: &'static str| line.strip_prefix("| `")?.split(['`', '{']).next();
    own.lines().filter_map(name).collect()
}

#[test]
fn the_parameters_are_those_of_the_code() {
    assert_eq!(first_names("Parameters"), parameters::NAMES);
}

#[test]
fn the_metrics_are_those_of_the_code() {
    assert_eq!(first_names("What the driver counts"), metrics::METRICS.map(|metric| metric.name));
}
