//! Spans as OTLP/JSON lines in a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::containers::{ContainerNames, NoContainers};
use crate::span::{Span, SpanSink};

/// Why the file could not be made.
#[derive(Debug, Error)]
#[error("create {}: {source}", path.display())]
pub struct JsonLinesError {
    path: PathBuf,
    source: io::Error,
}

/// What became of the spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonLinesReport {
    /// Spans that are in the file.
    pub written: u64,
    /// `(stage, reason, spans)`
    pub losses: Vec<(&'static str, &'static str, u64)>,
    /// The first thing that went wrong, as a sentence.
    pub error: Option<String>,
}

/// Writes spans to a file.
#[derive(Debug)]
pub struct JsonLinesSink {}

impl JsonLinesSink {
    /// Creates (or empties) the file.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<Self, JsonLinesError> {
        Self::create_with(path, Arc::new(NoContainers))
    }

    /// The same, with names for `container.id`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create_with(_path: &Path, _containers: Arc<dyn ContainerNames>) -> Result<Self, JsonLinesError> {
        Ok(Self {})
    }

    /// Writes what is buffered and says what became of all spans.
    #[must_use]
    pub fn finish(self) -> JsonLinesReport {
        JsonLinesReport::default()
    }
}

impl SpanSink for JsonLinesSink {
    fn span(&mut self, _span: &Arc<Span>) {}
}
