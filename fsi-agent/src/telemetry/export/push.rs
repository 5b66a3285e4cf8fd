//! Metrics to a collector: the families of `/metrics`, pushed every so often, and once at the end.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use prometheus::proto::MetricFamily;
use prost::Message as _;
use tokio::runtime::Runtime;

use super::target::Target;
use super::transport::{Signal, Transport};
use super::{ExportError, GRACE, OtlpOptions};
use crate::clock::{Clock, monotonic_ns};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::otlp_metrics;

/// Makes the families; called on the pushers' threads.
pub type Gather = Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// What became of the pushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    pub exported: u64,
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    lost: AtomicU64,
}

/// Pushes until it is dropped.
pub(super) struct Pusher {
    counts: Arc<Counts>,
    stop: mpsc::Sender<Duration>,
    /// Disconnected when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Pusher {
    pub(super) fn start(
        target: &Target,
        options: &OtlpOptions,
        interval: Duration,
        gather: Gather,
    ) -> Result<Self, ExportError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ExportError::Thread)?;
        let transport = {
            let _context = runtime.enter();
            Transport::new(target, &options.headers, &options.tls)?
        };
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = mpsc::channel();
        let (alive, ended) = mpsc::sync_channel(0);
        let clock = Clock::measure();
        let thread = Thread {
            runtime,
            transport,
            // A push that takes longer than until the next one is late anyway.
            deadline: options.batch_deadline.min(interval),
            clock,
            start_unix_ns: clock.unix_ns(clock.measured_ns()),
            counts: Arc::clone(&counts),
            gather,
            names: Arc::clone(&options.containers),
        };
        thread::Builder::new()
            .name("fsi-otlp-push".into())
            .spawn(move || {
                let _disconnects_at_the_end: mpsc::SyncSender<()> = alive;
                thread.run(interval, &stopped);
            })
            .map_err(ExportError::Thread)?;
        Ok(Self { counts, stop, ended: Mutex::new(ended) })
    }

    pub(super) fn report(&self) -> PushReport {
        let Counts { exported, lost } = &*self.counts;
        PushReport { exported: exported.load(Ordering::Relaxed), lost: lost.load(Ordering::Relaxed) }
    }

    /// Pushes once more, and ends.
    pub(super) fn flush(&self, deadline: Duration) -> PushReport {
        // Its thread may have ended already.
        self.stop.send(deadline).ok();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(deadline + GRACE) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the metrics' exporter did not end in time");
        }
        drop(ended);
        self.report()
    }
}

struct Thread {
    runtime: Runtime,
    transport: Transport,
    deadline: Duration,
    clock: Clock,
    start_unix_ns: u64,
    counts: Arc<Counts>,
    gather: Gather,
    names: Arc<dyn ContainerNames>,
}

impl Thread {
    fn run(self, interval: Duration, stopped: &mpsc::Receiver<Duration>) {
        loop {
            match stopped.recv_timeout(interval) {
                Ok(deadline) => {
                    self.push(deadline.min(self.deadline));
                    break;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.push(self.deadline),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        // A name lookup that hangs must not keep us.
        self.runtime.shutdown_background();
    }

    fn push(&self, deadline: Duration) {
        let families = (self.gather)();
        let request =
            otlp_metrics::request(&families, &*self.names, self.start_unix_ns, self.clock.unix_ns(monotonic_ns()));
        let body = request.encode_to_vec().into();
        match self.runtime.block_on(self.transport.deliver(Signal::Metrics, &body, deadline)) {
            Ok(0) => drop(self.counts.exported.fetch_add(1, Ordering::Relaxed)),
            Ok(rejected) => self.lose(&format!("the collector rejected {rejected} points")),
            Err(error) => self.lose(&format!("{error:?}")),
        }
    }

    /// Says the first complaint; the counts tell how often.
    fn lose(&self, error: &str) {
        if self.counts.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(endpoint = self.transport.endpoint, error, "a push of metrics was lost");
        }
    }
}
