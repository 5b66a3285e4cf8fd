//! The data path as one list of stages.

pub mod loss;

use std::time::Duration;

use crate::clock::Clock;
use crate::span::{SpanId, SpanSink, TraceId};

pub use loss::PipelineLosses;

/// Bounds of what the pipeline remembers, and the trace it continues.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Open files followed at once; the oldest is ended, and counted, to make room.
    pub max_open_files: usize,
    /// Processes followed at once; likewise.
    pub max_processes: usize,
    /// `span.max_open`: a file or process that is open for longer is exported in segments of this length.
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
    losses: PipelineLosses,
    operations: u64,
}

impl Pipeline {
    #[must_use]
    pub fn new(_options: PipelineOptions, _clock: Clock) -> Self {
        Self { losses: PipelineLosses::default(), operations: 0 }
    }

    /// Takes one record of the ring.
    pub fn record(&mut self, _bytes: &[u8], _sink: &mut dyn SpanSink) {}

    /// Exports segments of what is open for long; to be called about once a second.
    pub fn tick(&mut self, _now_monotonic_ns: u64, _sink: &mut dyn SpanSink) {}

    /// Ends everything that is open: the observation is over.
    pub fn finish(&mut self, _now_monotonic_ns: u64, _sink: &mut dyn SpanSink) {}

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
}
