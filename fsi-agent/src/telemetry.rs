//! What leaves the agent: spans over OTLP and as JSON lines, metrics as Prometheus text. One catalogue of names.
//!
//! Nothing here makes the pipeline wait: spans go through bounded queues to threads of their own, and what does not fit is counted.

pub mod containers;
pub mod defs;
pub mod errno;
pub mod export;
pub mod grouping;
pub mod jsonl;
pub mod metrics;
pub mod otlp_metrics;
pub mod privacy;
mod queue;
pub mod serve;
pub mod span;
pub mod text;

#[cfg(test)]
mod samples;
