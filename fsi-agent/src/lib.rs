//! FSI's agent as a library: probes in the kernel, one pipeline from their records to spans and metrics, and the commands.

pub mod agent;
pub mod attach;
pub mod attribution;
pub mod clock;
pub mod config;
pub mod control;
pub mod fuse;
pub mod keeper;
pub mod observe;
pub mod pipeline;
pub mod probe;
pub mod reports;
pub mod rules;
pub mod selection;
pub mod span;
pub mod summary;
pub mod sys;
pub mod telemetry;
pub mod throttle;
pub mod top;
mod yaml;
