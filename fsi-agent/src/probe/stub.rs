//! Stands where the loader will: loads nothing, sees nothing.

use std::process::{Child, Command};

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;

use super::options::ProbeOptions;

/// Why nothing is observed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("not permitted")]
    NotPermitted,
    #[error("start the command: {0}")]
    Spawn(#[source] std::io::Error),
}

/// Nothing.
#[derive(Debug)]
pub struct Probe {}

impl Probe {
    /// Loads nothing.
    ///
    /// # Errors
    /// Never.
    pub fn load(_options: &ProbeOptions) -> Result<Self, ProbeError> {
        Ok(Self {})
    }

    /// Starts the command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self, command: &mut Command) -> Result<Child, ProbeError> {
        command.spawn().map_err(ProbeError::Spawn)
    }

    pub fn drain(&mut self, _on_record: &mut dyn FnMut(&[u8])) -> usize {
        0
    }

    /// Nothing.
    ///
    /// # Errors
    /// Never.
    pub fn aggregates(&self) -> Result<Vec<(AggregateKey, AggregateValue)>, ProbeError> {
        Ok(Vec::new())
    }

    /// Nothing.
    ///
    /// # Errors
    /// Never.
    pub fn counters(&self) -> Result<[u64; Counter::COUNT as usize], ProbeError> {
        Ok([0; Counter::COUNT as usize])
    }

    /// Nothing.
    ///
    /// # Errors
    /// Never.
    pub fn sweep(&mut self) -> Result<(), ProbeError> {
        Ok(())
    }
}
