//! FSI's agent as a library: probes in the kernel, one pipeline from their records to spans and metrics, and the commands.

pub mod cgroups;
pub mod clock;
pub mod observe;
pub mod pipeline;
pub mod probe;
pub mod selection;
pub mod span;
pub mod summary;
pub mod sys;
pub mod telemetry;
pub mod top;
