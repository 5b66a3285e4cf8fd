//! Prometheus text as `fsi observe --metrics` writes it, read back.

use std::collections::BTreeMap;
use std::path::Path;

use crate::counts::Counts;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// A label, empty where it is not there.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and small")]
    fn count(&self) -> u64 {
        self.value as u64
    }
}

/// All lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads a file.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        Self::of(&std::fs::read_to_string(path).expect("the metrics can be read"))
    }

    /// Reads a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.map(sample).collect() }
    }

    /// The lines of one metric.
    pub fn of_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> + 'a {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of a metric over all its labels but the one given.
    #[must_use]
    pub fn sum(&self, name: &str, label: &str, value: &str) -> u64 {
        self.of_name(name).filter(|sample| sample.label(label) == value).map(Sample::count).sum()
    }

    /// The sum of a metric over all its labels but those given.
    #[must_use]
    pub fn sum_of(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |sample: &&Sample| labels.iter().all(|(label, value)| sample.label(label) == *value);
        self.of_name(name).filter(has).map(Sample::count).sum()
    }

    /// The sum of a metric over all its labels.
    #[must_use]
    pub fn total(&self, name: &str) -> u64 {
        self.of_name(name).map(Sample::count).sum()
    }

    /// Losses of one reason.
    #[must_use]
    pub fn lost(&self, stage: &str, reason: &str) -> u64 {
        let lost = self.of_name("fsi_lost_total");
        lost.filter(|sample| sample.label("stage") == stage && sample.label("reason") == reason)
            .map(Sample::count)
            .sum()
    }

    /// Everything that was lost, as `stage/reason: count`.
    #[must_use]
    pub fn losses(&self) -> Vec<String> {
        let lost = self.of_name("fsi_lost_total").filter(|sample| sample.value > 0.0);
        lost.map(|sample| format!("{}/{}: {}", sample.label("stage"), sample.label("reason"), sample.value)).collect()
    }

    /// Operations, errors and bytes by operation, whatever container and device they belong to.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for sample in &self.samples {
            let (op, count) = (sample.label("op").to_owned(), sample.count());
            if count == 0 {
                continue;
            }
            match sample.name.as_str() {
                "fsi_operations_total" => *counts.operations.entry(op).or_default() += count,
                "fsi_errors_total" => {
                    *counts.errors.entry((op, sample.label("errno").to_owned())).or_default() += count;
                }
                "fsi_bytes_total" => counts.add_bytes(&op, sample.label("direction"), count),
                _ => {}
            }
        }
        counts
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}').expect("the labels end"))),
        None => (series, BTreeMap::new()),
    };
    let value = value.parse().expect("a number");
    Sample { name: name.to_owned(), labels, value }
}

/// `a="1",b="x\"y"`
fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let mut end = after.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => {}
                },
                other => value.push(other),
            }
        }
        labels.insert(name.trim_start_matches(',').trim().to_owned(), value);
        rest = &after[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_labels_and_values() {
        let metrics = Metrics::of("# HELP x y\n\nx 3\ny{a=\"1\",b=\"c\\\"d, e\"} 4.5e1\n");
        assert_eq!(metrics.total("x"), 3);
        assert_eq!(metrics.samples[1].label("b"), "c\"d, e");
        assert_eq!(metrics.sum("y", "a", "1"), 45);
    }

    #[test]
    fn sums_what_differs_only_in_device_or_container() {
        let metrics = Metrics::of(concat!(
            "fsi_operations_total{container=\"\",device=\"8:1\",op=\"read\"} 2\n",
            "fsi_operations_total{container=\"\",device=\"0:30\",op=\"read\"} 3\n",
            "fsi_bytes_total{op=\"read\",direction=\"read\"} 7\n",
            "fsi_errors_total{op=\"open\",errno=\"ENOENT\"} 1\n",
        ));
        let counts = metrics.counts();
        assert_eq!(counts.operations["read"], 5);
        assert_eq!(counts.bytes[&("read".to_owned(), "read".to_owned())], 7);
        assert_eq!(counts.errors[&("open".to_owned(), "ENOENT".to_owned())], 1);
    }
}
