//! The data path as one list of stages; the only file that knows their order.
//!
//! ```text
//! decode     bytes of the ring -> Record        length, kind, codes checked
//! attribute  Operation -> AttributedOp          open file, path, other path: lookups only
//! correlate  AttributedOp -> Span               parent, trace, Unix time; bounded tables of files and processes
//! ```
//! There is no sampling here: the kernel decides which operations become records, and counts the others. What cannot be decoded
//! is counted; whatever can becomes a span, if need be one that says what is missing: operation records in = spans + decode losses.

mod attribute;
mod correlate;
pub mod decode;
pub(crate) mod ids;
pub mod loss;
mod open_files;
mod paths;
mod processes;
mod table;

use std::time::Duration;

use fsi_common::record::FileTotals;

use self::correlate::Correlator;
use self::decode::Record;
use self::loss::PipelineLoss;
use self::paths::{Announcement, Paths};
use crate::clock::Clock;
use crate::span::{SpanId, SpanSink, TraceId};

pub use self::loss::PipelineLosses;

/// Bounds of what the pipeline remembers, and the trace it continues.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Open files followed at once; the oldest is ended, and counted, to make room.
    pub max_open_files: usize,
    /// Processes followed at once; likewise.
    pub max_processes: usize,
    /// `span.max_open`: a file that is open and used for longer is exported in segments of this length.
    pub max_open: Duration,
    /// A trace to continue: every process whose parent is not observed becomes part of it.
    pub trace: Option<(TraceId, Option<SpanId>)>,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self { max_open_files: 65_536, max_processes: 16_384, max_open: Duration::from_secs(60), trace: None }
    }
}

/// From the records of the ring to spans.
#[derive(Debug)]
pub struct Pipeline {
    paths: Paths,
    correlator: Correlator,
    losses: PipelineLosses,
    operations: u64,
}

impl Pipeline {
    #[must_use]
    pub fn new(options: PipelineOptions, clock: Clock) -> Self {
        Self {
            paths: Paths::new(),
            correlator: Correlator::new(&options, clock),
            losses: PipelineLosses::default(),
            operations: 0,
        }
    }

    /// Takes one record of the ring.
    pub fn record(&mut self, bytes: &[u8], sink: &mut dyn SpanSink) {
        let Self { paths, correlator, losses, operations } = self;
        match decode::decode(bytes) {
            Ok(Record::Operation(operation)) => {
                let attributed = attribute::operation(&operation, &correlator.files, paths, losses);
                correlator.operation(attributed, losses, sink);
                *operations += 1;
            }
            Ok(Record::Path(path)) => match paths.announce(&path) {
                Announcement::Kept => {}
                Announcement::Evicted => losses.count(PipelineLoss::EvictedPath),
            },
            Ok(Record::File(file)) => {
                let path = attribute::opened(&file, paths, losses);
                correlator.opened(&file, path, losses, sink);
            }
            Ok(Record::Close(close)) => correlator.closed(&close, losses, sink),
            Ok(Record::Process(change)) => correlator.process(&change, losses, sink),
            Err(error) => losses.count(error.loss()),
        }
    }

    /// Exports segments of what is open for long; to be called about once a second.
    pub fn tick(&mut self, now_monotonic_ns: u64, sink: &mut dyn SpanSink) {
        self.correlator.tick(now_monotonic_ns, sink);
    }

    /// What was done through a file that is still open, as the kernel side counted it: whatever was sampled, it is exact.
    pub fn update_totals(&mut self, file_id: u64, totals: FileTotals) {
        if let Some(file) = self.correlator.files.get_mut(file_id) {
            file.totals = totals;
        }
    }

    /// Ends everything that is open: the observation is over.
    pub fn finish(&mut self, now_monotonic_ns: u64, sink: &mut dyn SpanSink) {
        self.correlator.finish(now_monotonic_ns, sink);
    }

    /// What could not be used, and why.
    #[must_use]
    pub fn losses(&self) -> &PipelineLosses {
        &self.losses
    }

    /// Operation records that became spans.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Files that are open now, as far as they are followed.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.correlator.files.len()
    }
}

#[cfg(test)]
mod tests;
