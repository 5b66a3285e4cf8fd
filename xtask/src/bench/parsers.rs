//! What the measured programs print, as numbers. Each takes lines as they came and gives nothing where there is nothing.

use std::collections::BTreeMap;

use serde_json::Value;

/// Nanoseconds of an iteration by loop, as `bench_loop` tells.
pub(super) fn loops<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, f64> {
    let one = |line: &str| {
        let mut words = line.strip_prefix("bench_loop ")?.split_whitespace();
        let (name, _iterations, ns) = (words.next()?, words.next()?, words.next()?);
        Some((name.to_owned(), ns.parse().ok()?))
    };
    lines.into_iter().filter_map(one).collect()
}

/// Reads that failed in a loop of failing ones.
pub(super) fn failed<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<u64> {
    lines.into_iter().find_map(|line| line.strip_prefix("bench_loop_failed ")?.trim().parse().ok())
}

/// The one JSON document that stands between other lines.
pub(super) fn document(lines: &[String]) -> Option<Value> {
    let begin = lines.iter().position(|line| line == "{")?;
    let end = lines.iter().rposition(|line| line == "}")?;
    serde_json::from_str(&lines.get(begin..=end)?.join("\n")).ok()
}

/// Reads and writes that fio says it did.
pub(super) fn fio_ios(document: &Value) -> Option<u64> {
    let job = document.get("jobs")?.get(0)?;
    Some(job.pointer("/read/total_ios")?.as_u64()? + job.pointer("/write/total_ios")?.as_u64()?)
}

/// The sum of a metric's samples in Prometheus text that carry the label.
pub(super) fn prometheus_sum(text: &str, metric: &str, label: &str) -> Option<u64> {
    let sample = |line: &str| {
        let (labels, value) = line.strip_prefix(metric)?.strip_prefix('{')?.rsplit_once("} ")?;
        if labels.split(',').any(|pair| pair == label) { value.trim().parse::<u64>().ok() } else { None }
    };
    let samples: Vec<u64> = text.lines().filter_map(sample).collect();
    if samples.is_empty() { None } else { Some(samples.iter().sum()) }
}

/// Calls of one system call in the table of `strace -c`.
pub(super) fn strace_calls<'a>(lines: impl IntoIterator<Item = &'a str>, call: &str) -> Option<u64> {
    // The column of errors may be empty, the name is the last one.
    lines.into_iter().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.last() == Some(&call)).then(|| words.get(3)?.parse().ok()).flatten()
    })
}

/// Calls of one system call in the table of `perf trace -s`, over all threads.
pub(super) fn perf_calls<'a>(lines: impl IntoIterator<Item = &'a str>, call: &str) -> Option<u64> {
    let calls = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() == Some(call) { words.next()?.parse::<u64>().ok() } else { None }
    };
    let counts: Vec<u64> = lines.into_iter().filter_map(calls).collect();
    if counts.is_empty() { None } else { Some(counts.iter().sum()) }
}

/// Values in all histograms that bpftrace printed.
pub(super) fn bpftrace_values<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<u64> {
    let values = |line: &str| {
        if !line.starts_with(['[', '(']) {
            return None;
        }
        line.split_once('|')?.0.split_whitespace().next_back()?.parse::<u64>().ok()
    };
    let counts: Vec<u64> = lines.into_iter().filter_map(values).collect();
    if counts.is_empty() { None } else { Some(counts.iter().sum()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines()
    }

    #[test]
    fn the_loops_times_stand_between_other_words() {
        let times =
            loops(lines("fsi: hello\nbench_loop pread 200000 301.25\nbench_loop bad\nbench_loop open 5 4000.00\n"));
        assert_eq!(times, BTreeMap::from([("pread".to_owned(), 301.25), ("open".to_owned(), 4000.0)]));
    }

    #[test]
    fn failures_stand_in_a_line_of_their_own() {
        assert_eq!(failed(lines("bench_loop_failed 39\nbench_loop failing 4000 5000.00\n")), Some(39));
        assert_eq!(failed(lines("bench_loop failing 4000 5000.00\n")), None);
    }

    #[test]
    fn a_document_is_found_between_lines() {
        let text = ["bench_loop pread 1 2", "{", "  \"lost\": [", "  ]", "}", "bye"];
        let text = text.map(str::to_owned);
        assert_eq!(document(&text), Some(serde_json::json!({ "lost": [] })));
        assert_eq!(document(&text[..2]), None);
    }

    #[test]
    fn fio_counts_both_directions() {
        let document = serde_json::json!({ "jobs": [{ "read": { "total_ios": 482 }, "write": { "total_ios": 518 } }] });
        assert_eq!(fio_ios(&document), Some(1000));
        assert_eq!(fio_ios(&serde_json::json!({ "jobs": [] })), None);
    }

    #[test]
    fn samples_are_summed_by_label() {
        let text = "# HELP x y\nx_count{container=\"a, b\",op=\"read\"} 3\nx_count{op=\"read\"} 4\nx_count{op=\"readlink\"} 9\n";
        assert_eq!(prometheus_sum(text, "x_count", "op=\"read\""), Some(7));
        assert_eq!(prometheus_sum(text, "x_sum", "op=\"read\""), None);
    }

    #[test]
    fn the_tables_of_the_peers() {
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n \
                      52.47    0.002940           2      1028           read\n  \
                      1.70    0.000095           2        35        16 openat\n";
        assert_eq!(strace_calls(lines(strace), "read"), Some(1028));
        assert_eq!(strace_calls(lines(strace), "openat"), Some(35));
        assert_eq!(strace_calls(lines(strace), "write"), None);
        let perf = " dd (7431), 4348 events, 99.9%\n\n   syscall            calls  errors  total\n   \
                    read                1028      0    22.949     0.013\n   read 2 0 1.0\n";
        assert_eq!(perf_calls(lines(perf), "read"), Some(1030));
        assert_eq!(perf_calls(lines(perf), "openat"), None);
        let bpftrace = "Attaching 2 probes...\n\n@ns[bench_loop]: \n[256, 512)           12 |@@      |\n\
                        [1K, 2K)              3 |@       |\n";
        assert_eq!(bpftrace_values(lines(bpftrace)), Some(15));
        assert_eq!(bpftrace_values(lines("Attaching 2 probes...\n")), None);
    }
}
