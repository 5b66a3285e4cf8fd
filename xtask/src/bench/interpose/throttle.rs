//! Whether a throttle lets through what it says: on the mean, in every second, never more, and each job its share.

use std::thread;

use anyhow::{Context as _, Result};

use super::super::Line;
use super::super::fio::{self, Done};
use super::super::kit::Kit;
use super::super::report::{Row, Target};
use super::modes::Stage;
use super::pace::{Judged, Limit, Unit};

/// What is looked at, the ramp before it, and a little for fio's own start.
const SECONDS: u32 = 24;
const BURST_SECONDS: u32 = 8;
const JOBS: usize = 4;
const FILE_BYTES: usize = 16 << 20;
const MIB: f64 = 1_048_576.0;

/// One load under one throttle.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    what: &'static str,
    /// What the rules say.
    limit: &'static str,
    limits: Limit,
    fio: [&'static str; 2],
}

const fn bytes(name: &'static str, what: &'static str, limit: &'static str, mib: f64, bs: &'static str) -> Case {
    let limits = Limit { unit: Unit::Bytes, per_second: mib * MIB, burst: mib * MIB };
    Case { name, what, limit, limits, fio: ["--rw=randwrite", bs] }
}

const fn operations(name: &'static str, what: &'static str, limit: &'static str, per_second: f64) -> Case {
    let limits = Limit { unit: Unit::Operations, per_second, burst: per_second };
    Case { name, what, limit, limits, fio: ["--rw=randread", "--bs=4k"] }
}

const MIB_1: Case = bytes("t-1m", "1 MiB/s", "write: 1MiB/s", 1.0, "--bs=4k");
const MIB_20: Case = bytes("t-20m", "20 MiB/s", "write: 20MiB/s", 20.0, "--bs=16k");
const MIB_100: Case = bytes("t-100m", "100 MiB/s", "write: 100MiB/s", 100.0, "--bs=64k");
const IOPS_100: Case = operations("t-100", "100 IOPS", "read_iops: 100", 100.0);
const IOPS_3000: Case = operations("t-3000", "3,000 IOPS", "read_iops: 3000", 3000.0);

/// What can be run at once without one being in another's way.
const AT_ONCE: [&[(Case, usize)]; 6] = [
    &[(MIB_1, 1), (MIB_1, JOBS), (IOPS_100, 1), (IOPS_100, JOBS)],
    &[(MIB_20, 1), (MIB_20, JOBS)],
    &[(MIB_100, 1)],
    &[(MIB_100, JOBS)],
    &[(IOPS_3000, 1)],
    &[(IOPS_3000, JOBS)],
];

const BURST: Case = Case {
    name: "t-burst",
    what: "10 MiB/s and a bucket of 50 MiB",
    limit: "write: 10MiB/s, burst: 5s",
    limits: Limit { unit: Unit::Bytes, per_second: 10.0 * MIB, burst: 50.0 * MIB },
    fio: ["--rw=randwrite", "--bs=64k"],
};

const MEAN: Target = Target::AtMost(1.0);
const SECOND: Target = Target::AtMost(5.0);
const BEYOND: Target = Target::AtMost(1.0);
const JAIN: Target = Target::AtLeast(0.95);

/// How a case went, or why it did not.
type Went<T> = (String, Result<T>);

pub(super) fn rows(kit: &Kit, stage: &Stage<'_>) -> Result<Vec<Row>> {
    for job in 0..JOBS {
        stage.file(&format!("throttled.{job}"), FILE_BYTES)?;
    }
    let mut rows = Vec::new();
    let mut all: Vec<(usize, Went<Judged>)> = Vec::new();
    for cases in AT_ONCE {
        let went: Vec<_> = thread::scope(|scope| {
            let run = |(case, jobs): &(Case, usize)| (*jobs, judged(kit, stage, case, *jobs));
            let threads: Vec<_> = cases.iter().map(|case| scope.spawn(move || run(case))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        all.extend(went);
    }
    for (_, (what, went)) in &all {
        let (mean, second) = (format!("{what}: mean rate off by"), format!("{what}: worst second off by"));
        match went {
            Ok(judged) => {
                rows.push(Row::counted(Line::I6, mean, judged.mean, "%", MEAN));
                rows.push(Row::counted(Line::I6, second, judged.second, "%", SECOND));
            }
            Err(error) => {
                rows.push(Row::open(Line::I6, mean, MEAN, &format!("{error:#}")));
                rows.push(Row::open(Line::I6, second, SECOND, &format!("{error:#}")));
            }
        }
    }
    let burst = logged(kit, stage, &BURST, 1, BURST_SECONDS);
    rows.push(used(&burst));
    let beyond = burst.and_then(|log| BURST.limits.beyond(&log).context("nothing was done"));
    let burst = (BURST.what.to_owned(), beyond);
    let every = all.iter().map(|(_, (what, went))| (what, went.as_ref().map(|judged| judged.beyond)));
    let every = every.chain([(&burst.0, burst.1.as_ref().copied())]);
    let what = "most ever let through beyond burst + rate x time, over all of these";
    rows.push(extreme(every, what, "operations", BEYOND, f64::total_cmp));
    let shared = all.iter().filter(|(jobs, _)| *jobs == JOBS);
    let shared = shared.map(|(_, (what, went))| (what, went.as_ref().map(|judged| judged.jain)));
    let what = "Jain's index of what 4 jobs get, the lowest of these";
    rows.push(extreme(shared, what, "", JAIN, |one, other| other.total_cmp(one)));
    Ok(rows)
}

fn judged(kit: &Kit, stage: &Stage<'_>, case: &Case, jobs: usize) -> Went<Judged> {
    let what = format!("{}, {jobs} {}", case.what, if jobs == 1 { "job" } else { "jobs" });
    let log = logged(kit, stage, case, jobs, SECONDS);
    (what, log.and_then(|log| case.limits.judge(&log).context("nothing was done")))
}

/// What fio did on a mount with that throttle.
fn logged(kit: &Kit, stage: &Stage<'_>, case: &Case, jobs: usize, seconds: u32) -> Result<Vec<Done>> {
    let name = format!("{}-{jobs}", case.name);
    let rules = format!("version: 1\nthrottle:\n  - {{ scope: volume, {} }}\n", case.limit);
    let mounted = stage.mount(&name, &rules)?;
    let mut command = fio::command(seconds, &case.fio);
    command.arg(format!("--directory={}", mounted.target().display()));
    command.args(["--filename_format=throttled.$jobnum", "--size=16M"]);
    fio::log(kit, command, &format!("{name}.log"), jobs)
}

fn used(log: &Result<Vec<Done>>) -> Row {
    let what = format!("{}: done in the first 2 s / 50 MiB + 2 s of rate", BURST.what);
    let target = Target::Within(0.98, 1.002);
    match log {
        Ok(log) => match BURST.limits.used(log, 2000.0) {
            Some(used) => Row::counted(Line::I6, what, used, "x", target),
            None => Row::open(Line::I6, what, target, "nothing was done"),
        },
        Err(error) => Row::open(Line::I6, what, target, &format!("{error:#}")),
    }
}

/// The extreme of many, and whose it is; open as soon as one of them is not known.
fn extreme<'a>(
    values: impl Iterator<Item = (&'a String, Result<f64, &'a anyhow::Error>)>,
    what: &str,
    unit: &'static str,
    target: Target,
    order: impl Fn(&f64, &f64) -> std::cmp::Ordering,
) -> Row {
    let mut worst: Option<(f64, &String)> = None;
    for (name, value) in values {
        match value {
            Ok(value) if worst.is_none_or(|(before, _)| order(&value, &before).is_gt()) => worst = Some((value, name)),
            Ok(_) => {}
            Err(error) => return Row::open(Line::I6, what, target, &format!("{name}: {error:#}")),
        }
    }
    match worst {
        Some((value, name)) => Row::counted(Line::I6, what, value, unit, target).noted(name.as_str()),
        None => Row::open(Line::I6, what, target, "nothing was measured"),
    }
}
