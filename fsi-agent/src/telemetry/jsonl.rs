//! Spans as OTLP/JSON lines in a file: each line is one export request, as the OpenTelemetry file exporter writes them.
//!
//! A thread of its own converts and writes: the pipeline never waits for the disk.

use std::error::Error;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;

use super::containers::ContainerNames;
use super::defs;
use super::queue::{Queue, QueueCounts};
use super::span::{Converter, resource};
use crate::span::{Span, SpanSink};

/// Spans that may wait for the disk.
const MAX_QUEUED: usize = 524_288;
/// Spans on one line.
const MAX_BATCH: usize = 100;
/// Longest time a span waits for its line to fill.
const INTERVAL: Duration = Duration::from_millis(200);
/// Lines are written in pieces of this size.
const BUFFER_BYTES: usize = 256 << 10;

/// Why the file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum JsonLinesError {
    #[error("create {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("start the span writer's thread: {0}")]
    Thread(#[source] io::Error),
}

/// What became of the spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonLinesReport {
    /// Spans that are in the file.
    pub written: u64,
    /// `(stage, reason, spans)`, every reason, those that did not happen included.
    pub losses: Vec<(&'static str, &'static str, u64)>,
    /// The first thing that went wrong, as a sentence.
    pub error: Option<String>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    written: AtomicU64,
    unwritten: AtomicU64,
    error: OnceLock<String>,
}

/// Writes spans to a file.
#[derive(Debug)]
pub struct JsonLinesSink {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl JsonLinesSink {
    /// Creates (or empties) the file. `containers` has the names for `container.id`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path, containers: Arc<dyn ContainerNames>) -> Result<Self, JsonLinesError> {
        let file = File::create(path).map_err(|source| JsonLinesError::Create { path: path.to_owned(), source })?;
        let shared = Arc::new(Shared {
            queue: Queue::new(MAX_QUEUED, MAX_BATCH, INTERVAL),
            written: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            error: OnceLock::new(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            path: path.to_owned(),
            file,
            whole: 0,
            resource: (&resource(&*containers)).into(),
            converter: Converter::new(containers),
            lines: Vec::new(),
            pending: 0,
        };
        let writer = thread::Builder::new()
            .name("fsi-spans-file".into())
            .spawn(move || writer.run())
            .map_err(JsonLinesError::Thread)?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// What became of the spans so far; those still in memory count as neither. Does not block.
    #[must_use]
    pub fn report(&self) -> JsonLinesReport {
        let Shared { queue, written, unwritten, error } = &*self.shared;
        let QueueCounts { accepted: _, full, late: _, waiting: _ } = queue.counts();
        let reasons = [(defs::REASON_QUEUE_FULL, full), (defs::REASON_WRITE, unwritten.load(Ordering::Relaxed))];
        JsonLinesReport {
            written: written.load(Ordering::Relaxed),
            losses: reasons.map(|(reason, spans)| (defs::STAGE_SPANS_FILE, reason, spans)).to_vec(),
            error: error.get().cloned(),
        }
    }

    /// Writes what is buffered and says what became of all spans.
    #[must_use]
    pub fn finish(mut self) -> JsonLinesReport {
        self.join();
        self.report()
    }

    fn join(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            drop(self.shared.error.set("the span writer's thread panicked".to_owned()));
        }
    }
}

impl SpanSink for JsonLinesSink {
    fn span(&mut self, span: &Arc<Span>) {
        self.shared.queue.push(span);
    }
}

impl Drop for JsonLinesSink {
    fn drop(&mut self) {
        self.join();
    }
}

/// The thread's side.
struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file.
    whole: u64,
    converter: Converter,
    resource: ResourceAttributesWithSchema,
    /// Whole lines that are not in the file yet.
    lines: Vec<u8>,
    /// Spans in them.
    pending: u64,
}

impl Writer {
    fn run(mut self) {
        while let Some(spans) = self.shared.queue.take() {
            self.line(&spans);
            // A batch that is not full means that we have caught up: let readers see it.
            if self.lines.len() >= BUFFER_BYTES || spans.len() < MAX_BATCH {
                self.write();
            }
        }
        self.write();
    }

    fn line(&mut self, spans: &[Arc<Span>]) {
        let data = spans.iter().map(|span| self.converter.convert(span)).collect();
        let request =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(data, &self.resource) };
        let before = self.lines.len();
        match serde_json::to_writer(&mut self.lines, &request) {
            Ok(()) => {
                self.lines.push(b'\n');
                self.pending += spans.len() as u64;
            }
            Err(error) => {
                self.lines.truncate(before);
                self.lose(spans.len() as u64, &error);
            }
        }
    }

    /// A write that fails leaves no torn line behind, where the file allows it. The next one tries again: a full disk can be emptied.
    fn write(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        match self.file.write_all(&self.lines) {
            Ok(()) => {
                self.whole += self.lines.len() as u64;
                self.shared.written.fetch_add(pending, Ordering::Relaxed);
            }
            Err(error) => {
                self.lose(pending, &error);
                // A pipe or a terminal cannot be cut; its reader sees a torn line, and the report says why.
                if self.file.set_len(self.whole).is_ok() {
                    drop(self.file.seek(SeekFrom::Start(self.whole)));
                }
            }
        }
        self.lines.clear();
    }

    fn lose(&self, spans: u64, error: &(dyn Error + 'static)) {
        self.shared.unwritten.fetch_add(spans, Ordering::Relaxed);
        if self.shared.error.set(format!("write spans to {}: {error}", self.path.display())).is_ok() {
            tracing::warn!(path = %self.path.display(), error, "spans are being lost");
        }
    }
}

#[cfg(test)]
mod tests;
