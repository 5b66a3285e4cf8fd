//! What the agent says of how long an operation took is what the one who made it measured: fio's own log of every read beside the spans of
//! these reads, on a directory that is only observed, and through a mount.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fsi_tests::agent::Agent;
use fsi_tests::collector::{Collector, program};
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::succeed;
use fsi_tests::mount::Mount;
use fsi_tests::need::{Need, has, skip};
use fsi_tests::spans::Spans;
use serde_json::Value;

/// How far apart two clocks may be: one part in so many, or what it takes to enter and leave a kernel whose calls are looked at, and to
/// read fio's clock, in nanoseconds.
const PARTS: u64 = 20;
const AROUND_NS: u64 = 1_500;
/// As the agent's configuration has it.
const SLOWER_NS: u64 = 500_000;

/// Reads of one size, so many.
struct Load {
    name: &'static str,
    block: &'static str,
    reads: u64,
}

impl Load {
    /// Those of which the agent tells the same share: it tells all that are slow, and of the others one in ten.
    fn told_alike(&self, durations: impl IntoIterator<Item = u64>) -> impl Iterator<Item = u64> {
        let most = if self.name == TEN_US.name { SLOWER_NS } else { u64::MAX };
        durations.into_iter().filter(move |duration| *duration < most)
    }
}

/// Some 10 us: copying that much takes so long.
const TEN_US: Load = Load { name: "ten-us", block: "256k", reads: 4000 };
const ONE_MS: Load = Load { name: "one-ms", block: "4k", reads: 300 };
const ONE_S: Load = Load { name: "one-s", block: "4k", reads: 4 };

const RULES: &str = "version: 1
rules:
  - { name: ms, match: { ops: [read], path: 'one-ms*' }, do: { delay: 1ms } }
  - { name: s, match: { ops: [read], path: 'one-s*' }, do: { delay: 1s } }
";

/// The median of what fio measured, in nanoseconds.
fn by_fio(directory: &Path, logs: &Path, load: &Load) -> u64 {
    let Load { name, block, reads } = load;
    let mut fio = Command::new("fio");
    fio.current_dir(logs).arg(format!("--name={name}")).arg(format!("--directory={}", directory.display()));
    fio.arg(format!("--bs={block}")).arg(format!("--number_ios={reads}")).arg(format!("--write_lat_log={name}"));
    fio.args(["--rw=randread", "--size=8M", "--ioengine=psync", "--invalidate=0", "--norandommap"]);
    fio.args(["--io_size=1G", "--fallocate=none", "--output-format=json"]);
    let said: Value = serde_json::from_slice(&succeed(&mut fio).stdout).expect("JSON");
    assert_eq!(said["jobs"][0]["read"]["total_ios"], *reads, "{said:#}");
    let log = fs::read_to_string(logs.join(format!("{name}_clat.1.log"))).expect("fio's log");
    median(load.told_alike(log.lines().map(|line| {
        let mut fields = line.split(", ").skip(1);
        fields.next().expect("a latency").parse().expect("nanoseconds")
    })))
}

/// The median of what the agent told of a file's reads, in nanoseconds.
fn by_agent(spans: &Spans, file: &str, load: &Load) -> u64 {
    let reads = spans.all.iter().filter(|span| span.name == "read" && span.path() == file);
    let durations: Vec<_> = reads.map(|span| span.end_ns - span.start_ns).collect();
    let told = durations.len() as u64;
    assert!(told == load.reads || told > load.reads / 20, "{file}: {told} of {}", load.reads);
    median(load.told_alike(durations))
}

fn median(durations: impl IntoIterator<Item = u64>) -> u64 {
    let mut durations: Vec<_> = durations.into_iter().collect();
    durations.sort_unstable();
    durations[durations.len() / 2]
}

/// Files that are in the page cache.
fn prepare(directory: &Path) {
    for Load { name, .. } in [TEN_US, ONE_MS, ONE_S] {
        fs::write(directory.join(format!("{name}.0.0")), vec![7; 8 << 20]).expect("a file");
    }
}

#[expect(clippy::print_stdout, reason = "the figures of this machine, for those who ask with --nocapture")]
fn agree(what: &str, fio: u64, agent: u64) {
    println!("{what}: fio says {fio} ns, the agent {agent} ns");
    assert!(fio.abs_diff(agent) <= (fio / PARTS).max(AROUND_NS), "{what}: fio says {fio} ns, the agent {agent} ns");
}

#[test]
fn an_operation_took_as_long_as_the_one_who_made_it_says() {
    if !has(&[Need::Probes, Need::Mounts, Need::Program("fio")]) {
        return;
    }
    let Some(program) = program() else {
        return skip("there is no OpenTelemetry Collector (`cargo xtask setup` builds it, with Go)");
    };
    let collector = Collector::start(&program);
    // A span of each would cost as much as a short read; of those that are slow there are few.
    let agent = Agent::start(&format!(
        "observe: {{ scope: node, process: [fio], operations: [read], default: {{ observe: spans, slower: 500us, sample: 1/10 }} }}\n\
         kubernetes: {{ enabled: false }}\notlp: [ {{ url: 'grpc://127.0.0.1:{}' }} ]\n",
        collector.grpc
    ));
    let logs = tempfile::tempdir().expect("a directory");
    let plain = tempfile::tempdir().expect("a directory");
    let mounted = Mount::with_rules(RULES).run_in(agent.run_directory()).mount();
    prepare(plain.path());
    prepare(&mounted.source());
    eventually("the mount reports to the agent", || agent.metrics().total("fsi_mounts") == 1);
    let target = mounted.target();
    let loads = [(plain.path(), TEN_US), (&*target, TEN_US), (&*target, ONE_MS), (&*target, ONE_S)];
    let measure = |(directory, load): (&Path, Load)| {
        let by_fio = by_fio(directory, logs.path(), &load);
        (directory.join(format!("{}.0.0", load.name)), load, by_fio)
    };
    let measured: Vec<(PathBuf, Load, u64)> = loads.into_iter().map(measure).collect();
    agent.end();
    let (spans, _) = collector.received();
    for (file, load, fio) in measured {
        let file = file.to_str().expect("a plain path");
        agree(file, fio, by_agent(&spans, file, &load));
    }
}
