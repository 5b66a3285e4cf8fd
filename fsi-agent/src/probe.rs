//! The kernel side, from here: what it can do on this kernel, loading it, selecting, reading what it saw.

pub mod features;
pub mod options;
mod stub;

pub use stub::{Probe, ProbeError};
