//! The catalogue: every name that leaves the agent. Code takes names from here, and tests compare the documentation with it.

use fsi_common::loss::Counter;
use fsi_common::op::OpKind;

use crate::pipeline::loss::PipelineLoss;

/// What a metric is, in Prometheus's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricDef {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

pub const LABEL_CONTAINER: &str = "container";
pub const LABEL_DEVICE: &str = "device";
pub const LABEL_OP: &str = "op";
pub const LABEL_ERRNO: &str = "errno";
pub const LABEL_DIRECTION: &str = "direction";
pub const LABEL_STAGE: &str = "stage";
pub const LABEL_REASON: &str = "reason";
pub const LABEL_OUTCOME: &str = "outcome";
pub const LABEL_TIER: &str = "tier";
pub const LABEL_VERSION: &str = "version";

pub const OPERATIONS: MetricDef = MetricDef {
    name: "fsi_operations_total",
    kind: MetricKind::Counter,
    unit: "operations",
    help: "File operations that ended, failed ones included.",
    labels: &[LABEL_CONTAINER, LABEL_DEVICE, LABEL_OP],
};
pub const ERRORS: MetricDef = MetricDef {
    name: "fsi_errors_total",
    kind: MetricKind::Counter,
    unit: "operations",
    help: "File operations that failed, by errno.",
    labels: &[LABEL_CONTAINER, LABEL_DEVICE, LABEL_OP, LABEL_ERRNO],
};
pub const BYTES: MetricDef = MetricDef {
    name: "fsi_bytes_total",
    kind: MetricKind::Counter,
    unit: "bytes",
    help: "Bytes that file operations moved (returned, not asked for).",
    labels: &[LABEL_CONTAINER, LABEL_DEVICE, LABEL_OP, LABEL_DIRECTION],
};
pub const DURATION: MetricDef = MetricDef {
    name: "fsi_operation_duration_seconds",
    kind: MetricKind::Histogram,
    unit: "seconds",
    help: "Time from entry to exit of the system call, in seconds.",
    labels: &[LABEL_CONTAINER, LABEL_DEVICE, LABEL_OP],
};
pub const DIRECTORIES_NET: MetricDef = MetricDef {
    name: "fsi_directories_net",
    kind: MetricKind::Gauge,
    unit: "directories",
    help: "Directories created minus directories removed since the observation began.",
    labels: &[LABEL_CONTAINER],
};
pub const FILES_NET: MetricDef = MetricDef {
    name: "fsi_files_net",
    kind: MetricKind::Gauge,
    unit: "names",
    help: "File names created (open, mknod, link, symlink) minus names removed (unlink) since the observation began.",
    labels: &[LABEL_CONTAINER],
};
pub const OPEN_FILES: MetricDef = MetricDef {
    name: "fsi_open_files",
    kind: MetricKind::Gauge,
    unit: "files",
    help: "Open files that are followed now.",
    labels: &[],
};
pub const LOST: MetricDef = MetricDef {
    name: "fsi_lost_total",
    kind: MetricKind::Counter,
    unit: "what the reason names",
    help: "What was lost or could not be seen, by the stage and the reason.",
    labels: &[LABEL_STAGE, LABEL_REASON],
};
pub const SPANS: MetricDef = MetricDef {
    name: "fsi_spans_total",
    kind: MetricKind::Counter,
    unit: "spans",
    help: "Spans by what became of them.",
    labels: &[LABEL_OUTCOME],
};
pub const PROBE_INFO: MetricDef = MetricDef {
    name: "fsi_probe_info",
    kind: MetricKind::Gauge,
    unit: "1",
    help: "The hooks in use; always 1.",
    labels: &[LABEL_TIER],
};
pub const BUILD_INFO: MetricDef = MetricDef {
    name: "fsi_build_info",
    kind: MetricKind::Gauge,
    unit: "1",
    help: "The version of the agent; always 1.",
    labels: &[LABEL_VERSION],
};

/// Every metric, in the order of the text.
pub const METRICS: [MetricDef; 11] =
    [OPERATIONS, ERRORS, BYTES, DURATION, DIRECTORIES_NET, FILES_NET, OPEN_FILES, LOST, SPANS, PROBE_INFO, BUILD_INFO];

/// Operation spans the pipeline made.
pub const OUTCOME_MADE: &str = "made";
/// Operations whose span nobody asked for; counted by the kernel side.
pub const OUTCOME_SAMPLED_OUT: &str = "sampled_out";
/// Spans of all kinds a collector took.
pub const OUTCOME_EXPORTED: &str = "exported";
/// Spans of all kinds that are in a file.
pub const OUTCOME_WRITTEN: &str = "written";
/// The values of `outcome`.
pub const SPAN_OUTCOMES: [&str; 4] = [OUTCOME_MADE, OUTCOME_SAMPLED_OUT, OUTCOME_EXPORTED, OUTCOME_WRITTEN];

/// Stage of the OTLP exporter's losses.
pub const STAGE_EXPORT: &str = "export";
/// Stage of the span file's losses.
pub const STAGE_SPANS_FILE: &str = "spans_file";
/// Stage of what the metrics could not show apart.
pub const STAGE_METRICS: &str = "metrics";
/// The queue was full: the other end is slower than the spans come.
pub const REASON_QUEUE_FULL: &str = "queue_full";
/// The exporter had ended already.
pub const REASON_CLOSED: &str = "closed";
/// The collector said no, or asked to be left alone for longer than a batch may take.
pub const REASON_REFUSED: &str = "refused";
/// The batch's deadline passed: the collector is away, stalls or is busy.
pub const REASON_TIMEOUT: &str = "timeout";
/// The deadline of the last flush passed.
pub const REASON_FLUSH_DEADLINE: &str = "flush_deadline";
/// The file could not be written.
pub const REASON_WRITE: &str = "write";
/// Operations shown under `other`: there were too many series.
pub const REASON_SERIES: &str = "series";
/// Aggregates of an operation this agent does not know.
pub const REASON_UNKNOWN_OPERATION: &str = "unknown_operation";

/// `(stage, reason)` of the OTLP exporter.
pub const EXPORT_LOSSES: [(&str, &str); 5] = [
    (STAGE_EXPORT, REASON_QUEUE_FULL),
    (STAGE_EXPORT, REASON_CLOSED),
    (STAGE_EXPORT, REASON_REFUSED),
    (STAGE_EXPORT, REASON_TIMEOUT),
    (STAGE_EXPORT, REASON_FLUSH_DEADLINE),
];
/// `(stage, reason)` of the span file.
pub const SPANS_FILE_LOSSES: [(&str, &str); 2] =
    [(STAGE_SPANS_FILE, REASON_QUEUE_FULL), (STAGE_SPANS_FILE, REASON_WRITE)];
/// `(stage, reason)` of the metrics.
pub const METRICS_LOSSES: [(&str, &str); 2] =
    [(STAGE_METRICS, REASON_SERIES), (STAGE_METRICS, REASON_UNKNOWN_OPERATION)];

/// Every `(stage, reason)` of `fsi_lost_total`.
pub fn losses() -> impl Iterator<Item = (&'static str, &'static str)> {
    Counter::ALL
        .iter()
        .filter_map(|counter| counter.loss())
        .chain(PipelineLoss::ALL.iter().map(|loss| loss.labels()))
        .chain(EXPORT_LOSSES)
        .chain(SPANS_FILE_LOSSES)
        .chain(METRICS_LOSSES)
}

/// Name of the span of a process.
pub const SPAN_PROCESS: &str = "process";
/// Name of the span of an open file.
pub const SPAN_FILE: &str = "file";

/// Every span name: the two above and the operations.
pub fn span_names() -> impl Iterator<Item = &'static str> {
    [SPAN_PROCESS, SPAN_FILE].into_iter().chain(OpKind::ALL.iter().map(|op| op.name()))
}

/// One list makes the constants and the list of all of them.
macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        /// Keys of span and resource attributes.
        pub mod attribute {
            $($(#[$doc])* pub const $name: &str = $key;)*
            /// Every key.
            pub const ALL: &[&str] = &[$($name,)*];
        }
    };
}

attributes! {
    /// The path as the process sees it.
    FILE_PATH = "file.path";
    /// Inode number, decimal.
    FILE_INODE = "file.inode";
    /// Permission bits, octal.
    FILE_MODE = "file.mode";
    PROCESS_PID = "process.pid";
    PROCESS_PARENT_PID = "process.parent_pid";
    /// The command name (`comm`), at most 15 bytes.
    PROCESS_EXECUTABLE_NAME = "process.executable.name";
    PROCESS_USER_ID = "process.user.id";
    PROCESS_EXIT_CODE = "process.exit.code";
    THREAD_ID = "thread.id";
    CONTAINER_ID = "container.id";
    /// Name of the errno.
    ERROR_TYPE = "error.type";
    PROCESS_SIGNAL = "fsi.process.signal";
    CGROUP = "fsi.cgroup";
    DEVICE = "fsi.device";
    FILE_TYPE = "fsi.file.type";
    OFFSET = "fsi.offset";
    BYTES_REQUESTED = "fsi.bytes.requested";
    BYTES = "fsi.bytes";
    RESULT = "fsi.result";
    SYSCALL = "fsi.syscall";
    OPEN_FLAGS = "fsi.open_flags";
    PATH_STATE = "fsi.path.state";
    PATH_BYTES = "fsi.path.bytes";
    TARGET_PATH = "fsi.target.path";
    TARGET_PATH_STATE = "fsi.target.path.state";
    TARGET_PATH_BYTES = "fsi.target.path.bytes";
    FILE_OPERATIONS = "fsi.file.operations";
    FILE_READS = "fsi.file.reads";
    FILE_WRITES = "fsi.file.writes";
    FILE_BYTES_READ = "fsi.file.bytes_read";
    FILE_BYTES_WRITTEN = "fsi.file.bytes_written";
    FILE_ERRORS = "fsi.file.errors";
    FILE_DURATION_NS = "fsi.file.duration_ns";
    FILE_MAX_NS = "fsi.file.max_ns";
    FILE_CLOSE = "fsi.file.close";
    FILE_OPEN_BEFORE = "fsi.file.open_before";
    FILE_SEGMENT = "fsi.file.segment";
    SERVICE_NAME = "service.name";
    SERVICE_VERSION = "service.version";
    HOST_NAME = "host.name";
}

#[cfg(test)]
mod tests;
