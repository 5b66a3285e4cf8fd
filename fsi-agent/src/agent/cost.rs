//! What FSI itself costs: CPU time and memory of the agent, and CPU time of the probes, which the kernel counts when asked to.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::sys::Stats;

use crate::clock::monotonic_ns;
use crate::probe::Probe;

/// Counting costs each run of a probe two readings of the clock, so it is on for a while now and then.
const TIMED_FOR: Duration = Duration::from_secs(1);
const TIMED_EVERY: Duration = Duration::from_secs(60);

/// Times the probes.
#[derive(Debug)]
pub(super) struct Cost {
    next_ns: u64,
    timing: Option<Timing>,
    /// CPUs kept busy when it was last measured.
    probe_cpus: Option<f64>,
}

#[derive(Debug)]
struct Timing {
    /// The kernel counts while it is open.
    _counting: OwnedFd,
    begun_ns: u64,
    run: Duration,
}

impl Cost {
    pub(super) fn new() -> Self {
        Self { next_ns: monotonic_ns(), timing: None, probe_cpus: None }
    }

    /// To be called now and then.
    pub(super) fn tick(&mut self, probe: &Probe, now_ns: u64) {
        if now_ns < self.next_ns {
            return;
        }
        match self.timing.take() {
            None => {
                // Without the privilege there is no figure; nothing else depends on it.
                if let Ok(counting) = aya::sys::enable_stats(Stats::RunTime) {
                    self.timing = Some(Timing { _counting: counting, begun_ns: now_ns, run: probe.run_time() });
                    self.next_ns = after(now_ns, TIMED_FOR);
                } else {
                    self.next_ns = after(now_ns, TIMED_EVERY);
                }
            }
            Some(timing) => {
                let run = probe.run_time().saturating_sub(timing.run);
                let wall = Duration::from_nanos(now_ns.saturating_sub(timing.begun_ns));
                self.probe_cpus = (!wall.is_zero()).then(|| run.as_secs_f64() / wall.as_secs_f64());
                self.next_ns = after(now_ns, TIMED_EVERY);
            }
        }
    }

    pub(super) const fn probe_cpus(&self) -> Option<f64> {
        self.probe_cpus
    }
}

fn after(now_ns: u64, pause: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX))
}

/// CPU time of this process.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Resident memory of this process, in bytes.
pub(super) fn memory() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
