//! Signals that ask us to stop, counted by a thread of its own and looked at between two drains.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What came so far.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    interrupts: AtomicU32,
    terminations: AtomicU32,
    hangups: AtomicU32,
}

impl Signals {
    /// From here on SIGINT, SIGTERM and SIGHUP end nothing by themselves.
    ///
    /// # Errors
    /// No thread or no handler could be had.
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        let counts = Arc::clone(&signals.counts);
        let (ready, is_ready) = mpsc::sync_channel(1);
        thread::Builder::new().name("signals".to_owned()).spawn(move || serve(&counts, &ready))?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(signals),
            Ok(Err(error)) => Err(error),
            Err(_gone) => Err(io::Error::other("the signal thread ended")),
        }
    }

    /// SIGTERM and SIGHUP so far (sent to us alone; Ctrl-C the terminal sends to the command too).
    #[must_use]
    pub fn terminations(&self) -> u32 {
        self.counts.terminations.load(Ordering::Relaxed) + self.hangups()
    }

    /// SIGHUP so far.
    #[must_use]
    pub fn hangups(&self) -> u32 {
        self.counts.hangups.load(Ordering::Relaxed)
    }

    /// All of them so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.counts.interrupts.load(Ordering::Relaxed) + self.terminations()
    }

    /// Any of them.
    #[must_use]
    pub fn any(&self) -> bool {
        self.count() > 0
    }
}

fn serve(counts: &Counts, ready: &mpsc::SyncSender<io::Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(error) => return answer(ready, Err(error)),
    };
    runtime.block_on(async {
        match handlers() {
            Ok([interrupt, terminate, hangup]) => {
                answer(ready, Ok(()));
                count(counts, interrupt, terminate, hangup).await;
            }
            Err(error) => answer(ready, Err(error)),
        }
    });
}

/// The listener waits for exactly one answer; when it is gone nobody needs one.
fn answer(ready: &mpsc::SyncSender<io::Result<()>>, result: io::Result<()>) {
    ready.send(result).ok();
}

fn handlers() -> io::Result<[Signal; 3]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?])
}

async fn count(counts: &Counts, mut interrupt: Signal, mut terminate: Signal, mut hangup: Signal) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => counts.interrupts.fetch_add(1, Ordering::Relaxed),
            _ = terminate.recv() => counts.terminations.fetch_add(1, Ordering::Relaxed),
            _ = hangup.recv() => counts.hangups.fetch_add(1, Ordering::Relaxed),
        };
    }
}
