//! A command under the bare probe: nothing follows files, nothing makes spans.

use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fsi_agent::probe::Probe;
use fsi_agent::probe::options::{EventPolicy, GlobList, ProbeOptions, Selection};
use fsi_common::loss::Counter;

/// Nobody waits for the ring of a probe that sends nothing.
const IDLE_RING: u32 = 64 << 10;
const IDLE: Duration = Duration::from_millis(5);
const BUSY: Duration = Duration::from_millis(1);

/// Counts in the kernel only, as the node agent does while nobody asks for spans.
pub(super) fn sums(report: &str, command: &[&str]) -> Result<ExitCode> {
    observe(&options(EventPolicy::default(), IDLE_RING), IDLE, report, command)
}

/// Every operation crosses.
pub(super) fn events(ring_bytes: u32, report: &str, command: &[&str]) -> Result<ExitCode> {
    let every = EventPolicy { every: true, ..EventPolicy::default() };
    observe(&options(every, ring_bytes), BUSY, report, command)
}

fn options(events: EventPolicy, ring_bytes: u32) -> ProbeOptions {
    ProbeOptions {
        selection: Selection::Command,
        events,
        follow_files: false,
        follow_processes: false,
        interposed: false,
        paths: GlobList::default(),
        processes: GlobList::default(),
        operations: Vec::new(),
        ring_bytes,
        debug: false,
    }
}

fn observe(options: &ProbeOptions, pause: Duration, report: &str, command: &[&str]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("a command to observe")?;
    let mut probe = Probe::load(options)?;
    let mut child = probe.spawn(Command::new(program).args(arguments))?;
    let mut records = 0;
    let status = loop {
        let drained = probe.drain(&mut |_record| {});
        records += drained;
        if let Some(status) = child.try_wait().context("wait for the command")? {
            break status;
        }
        if drained == 0 {
            thread::sleep(pause);
        }
    };
    records += probe.drain(&mut |_record| {});
    let counters = probe.counters()?;
    let counted: u64 = probe.aggregates()?.iter().map(|(_, value)| value.count).sum();
    let of = |counter: Counter| counters[counter as usize];
    let lost: u64 = Counter::ALL.iter().filter(|counter| counter.loss().is_some()).map(|counter| of(*counter)).sum();
    let document = serde_json::json!({
        "counted": counted,
        "seen": of(Counter::Seen),
        "sent": of(Counter::Sent),
        "lost": lost,
        "records": records,
    });
    std::fs::write(report, document.to_string()).with_context(|| format!("write {report}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
