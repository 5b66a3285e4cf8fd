//! What leaves the agent: spans over OTLP and as JSON lines, metrics as Prometheus text. One catalogue of names.

pub mod containers;
pub mod export;
pub mod jsonl;
pub mod metrics;
pub mod serve;
