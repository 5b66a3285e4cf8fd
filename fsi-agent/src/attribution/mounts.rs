//! The thread that looks at the table of mounts when it changes, and now and then.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::counters::{Counter, Counters};
use super::volumes::Volumes;
use crate::clock::{Clock, monotonic_ns};

/// The least time between two looks, however often the table changes.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a look is so many times as long as the look.
const PAUSE_PER_LOOK: u32 = 20;

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct MountWatch {
    over: Arc<OwnedFd>,
    thread: Option<thread::JoinHandle<()>>,
}

impl MountWatch {
    /// Knows every volume that is mounted when it returns. `changed` is called after a look that found anything new.
    ///
    /// # Errors
    /// The table cannot be opened, or no thread is to be had.
    pub(super) fn start(
        table: &Path,
        at_least_every: Duration,
        (volumes, counters): (Arc<Volumes>, Arc<Counters>),
        changed: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let table = File::open(table)?;
        let over = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let is_over = Arc::clone(&over);
        let look = move |table: &File| match volumes.refresh(table) {
            Ok(true) => changed(),
            Ok(false) => {}
            Err(_) => counters.add(Counter::MountTableErrors, 1),
        };
        look(&table);
        let run = move || run(&table, &is_over, at_least_every, look);
        let thread = thread::Builder::new().name("fsi-volumes".to_owned()).spawn(run)?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for MountWatch {
    fn drop(&mut self) {
        // The number is small and the counter never read, so it cannot be full.
        rustix::io::write(&self.over, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

fn run(table: &File, over: &OwnedFd, at_least_every: Duration, look: impl Fn(&File)) {
    loop {
        // The kernel says once for each open table that it has changed.
        let changes = PollFd::new(table, PollFlags::PRI);
        if wait(over, Some(changes), at_least_every) {
            return;
        }
        let begin_ns = monotonic_ns();
        look(table);
        if wait(over, None, LEAST_PAUSE.max(Clock::since(begin_ns) * PAUSE_PER_LOOK)) {
            return;
        }
    }
}

/// Until the time is up or something else happens; whether it is over.
fn wait<'a>(over: &'a OwnedFd, other: Option<PollFd<'a>>, most: Duration) -> bool {
    let mut polled = vec![PollFd::new(over, PollFlags::IN)];
    polled.extend(other);
    let timeout = Timespec::try_from(most).ok();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => !polled[0].revents().is_empty(),
        Err(Errno::INTR) => false,
        // Out of memory, nothing else: the descriptors are ours.
        Err(_) => {
            thread::sleep(LEAST_PAUSE);
            false
        }
    }
}
