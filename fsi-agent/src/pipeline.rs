//! The data path as one list of stages; the only file that knows their order.
//!
//! ```text
//! decode     bytes of the ring -> Record        length, kind, codes checked
//! attribute  Operation -> AttributedOp          open file, path, other path: lookups only
//! correlate  AttributedOp -> Span               parent, trace, Unix time; bounded tables of files and processes
//! join       Span + reports of mounts -> Span   (the agent only) what mounts of ours did for the operation
//! ancestors  Span -> told or not                (the agent only) files and processes under which nothing is told are not told either
//! ```
//! There is no sampling here: the kernel decides which operations become records, and counts the others. What cannot be decoded
//! is counted; whatever can becomes a span, if need be one that says what is missing: operation records in = spans + decode losses.

mod ancestors;
mod attribute;
mod correlate;
pub mod decode;
pub(crate) mod ids;
mod join;
mod joining;
pub mod loss;
mod open_files;
mod paths;
mod processes;
mod table;

use std::sync::Arc;
use std::time::Duration;

use fsi_common::record::FileTotals;

use self::correlate::Correlator;
use self::decode::Record;
use self::joining::Joining;
use self::loss::PipelineLoss;
use self::paths::{Announcement, Paths};
use crate::clock::Clock;
use crate::fuse::report::OpReport;
use crate::span::{SpanId, SpanSink, TraceId};

pub use self::joining::{JoinCounts, JoinedMount};
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
    /// Operations are joined with what mounts report, and only what is asked for is told.
    pub joins: bool,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            max_open_files: 65_536,
            max_processes: 16_384,
            max_open: Duration::from_secs(60),
            trace: None,
            joins: false,
        }
    }
}

/// From the records of the ring to spans.
#[derive(Debug)]
pub struct Pipeline {
    paths: Paths,
    correlator: Correlator,
    losses: PipelineLosses,
    operations: u64,
    joining: Option<Joining>,
}

impl Pipeline {
    #[must_use]
    pub fn new(options: PipelineOptions, clock: Clock) -> Self {
        Self {
            paths: Paths::new(),
            correlator: Correlator::new(&options, clock),
            losses: PipelineLosses::default(),
            operations: 0,
            joining: options.joins.then(Joining::new),
        }
    }

    /// Takes one record of the ring.
    pub fn record(&mut self, bytes: &[u8], sink: &mut dyn SpanSink) {
        match decode::decode(bytes) {
            Ok(Record::Operation(operation)) => {
                self.operations += 1;
                let Self { paths, correlator, losses, joining, .. } = self;
                let attributed = attribute::operation(&operation, &correlator.files, paths, losses);
                let Some(joining) = joining else {
                    let span = correlator.operation(attributed, losses, sink);
                    sink.span(&Arc::new(span));
                    return;
                };
                let correlate = |losses: &mut PipelineLosses, sink: &mut dyn SpanSink| {
                    correlator.operation(attributed, losses, sink)
                };
                let span = joining.above(losses, sink, correlate);
                joining.operation(span, &operation.raw, losses, sink);
            }
            Ok(Record::Path(path)) => match self.paths.announce(&path) {
                Announcement::Kept => {}
                Announcement::Evicted => self.losses.count(PipelineLoss::EvictedPath),
            },
            Ok(Record::File(file)) => {
                let path = attribute::opened(&file, &self.paths, &mut self.losses);
                self.correlate(sink, |correlator, losses, sink| correlator.opened(&file, path, losses, sink));
            }
            Ok(Record::Close(close)) => {
                self.correlate(sink, |correlator, losses, sink| correlator.closed(&close, losses, sink));
            }
            Ok(Record::Process(change)) => {
                self.correlate(sink, |correlator, losses, sink| correlator.process(&change, losses, sink));
            }
            Ok(Record::Request(request)) => {
                if let Some(joining) = &mut self.joining {
                    joining.request(&request, &mut self.losses, sink);
                }
            }
            Ok(Record::Cgroup(cgroup)) => sink.cgroup(&cgroup),
            Err(error) => self.losses.count(error.loss()),
        }
    }

    /// Takes what a mount did.
    pub fn report(&mut self, report: OpReport, now_monotonic_ns: u64, sink: &mut dyn SpanSink) {
        if let Some(joining) = &mut self.joining {
            joining.report(report, now_monotonic_ns, &mut self.losses, sink);
        }
    }

    /// A mount's reports will come.
    pub fn add_mount(&mut self, mount: JoinedMount) {
        if let Some(joining) = &mut self.joining {
            joining.add_mount(mount);
        }
    }

    /// They will not any more.
    pub fn remove_mount(&mut self, dev: u32) {
        if let Some(joining) = &mut self.joining {
            joining.remove_mount(dev);
        }
    }

    /// What became of operations and reports, where they are joined.
    #[must_use]
    pub fn join_counts(&self) -> JoinCounts {
        self.joining.as_ref().map(Joining::counts).unwrap_or_default()
    }

    /// Unix time is told by this clock from here on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.correlator.set_clock(clock);
    }

    /// Exports segments of what is open for long, and what waited long enough for a mount's report; to be called about once a second.
    pub fn tick(&mut self, now_monotonic_ns: u64, sink: &mut dyn SpanSink) {
        self.correlate(sink, |correlator, _losses, sink| correlator.tick(now_monotonic_ns, sink));
        if let Some(joining) = &mut self.joining {
            joining.tick(now_monotonic_ns, &mut self.losses, sink);
        }
    }

    /// Does what may end files and processes.
    fn correlate(
        &mut self,
        sink: &mut dyn SpanSink,
        work: impl FnOnce(&mut Correlator, &mut PipelineLosses, &mut dyn SpanSink),
    ) {
        let Self { correlator, losses, joining, .. } = self;
        match joining {
            None => work(correlator, losses, sink),
            Some(joining) => joining.above(losses, sink, |losses, sink| work(correlator, losses, sink)),
        }
    }

    /// What was done through a file that is still open, as the kernel side counted it: whatever was sampled, it is exact.
    pub fn update_totals(&mut self, file_id: u64, totals: FileTotals) {
        if let Some(file) = self.correlator.files.get_mut(file_id) {
            file.totals = totals;
        }
    }

    /// Ends everything that is open: the observation is over.
    pub fn finish(&mut self, now_monotonic_ns: u64, sink: &mut dyn SpanSink) {
        // First, so that what waits finds its file.
        if let Some(joining) = &mut self.joining {
            joining.end(&mut self.losses, sink);
        }
        self.correlate(sink, |correlator, _losses, sink| correlator.finish(now_monotonic_ns, sink));
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
