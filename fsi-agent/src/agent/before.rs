//! Collectors that a reload replaced: they end in their own time, and what became of their spans goes on counting.

use std::thread;
use std::time::Duration;

use super::outputs::Collectors;
use crate::telemetry::export::{self, EndpointReport};

/// Collectors that are being left: what they had taken when they were, and what they have once that is over.
#[derive(Debug)]
struct Left {
    so_far: Vec<EndpointReport>,
    closing: thread::JoinHandle<Vec<EndpointReport>>,
}

/// Those that reloads replaced.
#[derive(Debug, Default)]
pub(super) struct Before {
    leaving: Vec<Left>,
    /// What became of everything at those that are left for good.
    done: Vec<EndpointReport>,
}

impl Before {
    pub(super) fn leave(&mut self, collectors: Collectors, within: Duration) {
        let so_far = collectors.report();
        // Collectors may be slow; the probes do not wait for them.
        let closing = thread::spawn(move || collectors.close(within));
        self.leaving.push(Left { so_far, closing });
    }

    /// What became of everything at collectors that were left.
    pub(super) fn reports(&mut self) -> Vec<EndpointReport> {
        for Left { so_far, closing } in self.leaving.extract_if(.., |left| left.closing.is_finished()) {
            // A thread that panicked leaves what was known before.
            let mut reports = closing.join().unwrap_or(so_far);
            reports.iter_mut().for_each(EndpointReport::end);
            self.done = export::merged(std::mem::take(&mut self.done).into_iter().chain(reports));
        }
        let leaving = self.leaving.iter().flat_map(|left| left.so_far.iter().cloned());
        self.done.iter().cloned().chain(leaving).collect()
    }
}
