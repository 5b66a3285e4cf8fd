//! The catalogue: every name that leaves the agent. Code takes names from here, and tests compare the documentation with it.

use fsi_common::loss::Counter;
use fsi_common::op::OpKind;

use crate::pipeline::loss::PipelineLoss;
use crate::rules::op::Op;

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

pub const LABEL_NAMESPACE: &str = "namespace";
pub const LABEL_POD: &str = "pod";
pub const LABEL_CONTAINER: &str = "container";
pub const LABEL_VOLUME: &str = "volume";
pub const LABEL_DEVICE: &str = "device";
pub const LABEL_OP: &str = "op";
pub const LABEL_ERRNO: &str = "errno";
pub const LABEL_DIRECTION: &str = "direction";
pub const LABEL_STAGE: &str = "stage";
pub const LABEL_REASON: &str = "reason";
pub const LABEL_OUTCOME: &str = "outcome";
pub const LABEL_TIER: &str = "tier";
pub const LABEL_VERSION: &str = "version";
pub const LABEL_ENDPOINT: &str = "endpoint";
pub const LABEL_PLACE: &str = "place";
pub const LABEL_RULE: &str = "rule";
pub const LABEL_KIND: &str = "kind";
pub const LABEL_OWNER: &str = "owner";
pub const LABEL_EVENT: &str = "event";

pub const OPERATIONS: MetricDef = MetricDef {
    name: "fsi_operations_total",
    kind: MetricKind::Counter,
    unit: "operations",
    help: "File operations that ended, failed ones included.",
    labels: &[LABEL_NAMESPACE, LABEL_POD, LABEL_CONTAINER, LABEL_VOLUME, LABEL_DEVICE, LABEL_OP],
};
pub const ERRORS: MetricDef = MetricDef {
    name: "fsi_errors_total",
    kind: MetricKind::Counter,
    unit: "operations",
    help: "File operations that failed, by errno.",
    labels: &[LABEL_NAMESPACE, LABEL_POD, LABEL_CONTAINER, LABEL_VOLUME, LABEL_DEVICE, LABEL_OP, LABEL_ERRNO],
};
pub const BYTES: MetricDef = MetricDef {
    name: "fsi_bytes_total",
    kind: MetricKind::Counter,
    unit: "bytes",
    help: "Bytes that file operations moved (returned, not asked for).",
    labels: &[LABEL_NAMESPACE, LABEL_POD, LABEL_CONTAINER, LABEL_VOLUME, LABEL_DEVICE, LABEL_OP, LABEL_DIRECTION],
};
pub const DURATION: MetricDef = MetricDef {
    name: "fsi_operation_duration_seconds",
    kind: MetricKind::Histogram,
    unit: "seconds",
    help: "Time from entry to exit of the system call, in seconds.",
    labels: &[LABEL_NAMESPACE, LABEL_POD, LABEL_CONTAINER, LABEL_VOLUME, LABEL_DEVICE, LABEL_OP],
};
pub const DIRECTORIES_NET: MetricDef = MetricDef {
    name: "fsi_directories_net",
    kind: MetricKind::Gauge,
    unit: "directories",
    help: "Directories created minus directories removed since the observation began.",
    labels: &[LABEL_NAMESPACE, LABEL_POD, LABEL_CONTAINER],
};
pub const FILES_NET: MetricDef = MetricDef {
    name: "fsi_files_net",
    kind: MetricKind::Gauge,
    unit: "names",
    help: "File names created (open, mknod, link, symlink) minus names removed (unlink) since the observation began.",
    labels: &[LABEL_NAMESPACE, LABEL_POD, LABEL_CONTAINER],
};
pub const OPEN_FILES: MetricDef = MetricDef {
    name: "fsi_open_files",
    kind: MetricKind::Gauge,
    unit: "files",
    help: "Open files that are followed now.",
    labels: &[],
};
pub const FAULTS_INJECTED: MetricDef = MetricDef {
    name: "fsi_faults_injected_total",
    kind: MetricKind::Counter,
    unit: "faults",
    help: "Faults that a mount injected.",
    labels: &[LABEL_NAMESPACE, LABEL_VOLUME, LABEL_RULE, LABEL_KIND, LABEL_ERRNO],
};
pub const THROTTLED: MetricDef = MetricDef {
    name: "fsi_throttled_operations_total",
    kind: MetricKind::Counter,
    unit: "operations",
    help: "Operations on a mount that met an empty bucket.",
    labels: &[LABEL_NAMESPACE, LABEL_VOLUME, LABEL_OUTCOME],
};
pub const THROTTLE_WAIT: MetricDef = MetricDef {
    name: "fsi_throttle_wait_seconds_total",
    kind: MetricKind::Counter,
    unit: "seconds",
    help: "Time that operations on a mount waited for tokens.",
    labels: &[LABEL_NAMESPACE, LABEL_VOLUME],
};
pub const OVERHEAD: MetricDef = MetricDef {
    name: "fsi_interposer_overhead_seconds",
    kind: MetricKind::Histogram,
    unit: "seconds",
    help: "Time of an operation on a mount that is neither the backing file system's nor waited on purpose.",
    labels: &[LABEL_NAMESPACE, LABEL_VOLUME, LABEL_OP],
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

pub const REPORTS: MetricDef = MetricDef {
    name: "fsi_reports_total",
    kind: MetricKind::Counter,
    unit: "reports",
    help: "Reports of mounts, by whether they found the operation they belong to.",
    labels: &[LABEL_OUTCOME],
};
pub const FUSE_REQUESTS: MetricDef = MetricDef {
    name: "fsi_fuse_requests_total",
    kind: MetricKind::Counter,
    unit: "requests",
    help: "Requests to mounts, by what sent them.",
    labels: &[LABEL_OWNER],
};
pub const MOUNTS: MetricDef = MetricDef {
    name: "fsi_mounts",
    kind: MetricKind::Gauge,
    unit: "mounts",
    help: "Mounts that report to the agent now.",
    labels: &[],
};
pub const RING_RECORDS: MetricDef = MetricDef {
    name: "fsi_ring_records_total",
    kind: MetricKind::Counter,
    unit: "records",
    help: "Records that the agent read from the kernel's ring.",
    labels: &[],
};
pub const PROBE_CPU: MetricDef = MetricDef {
    name: "fsi_probe_cpu_ratio",
    kind: MetricKind::Gauge,
    unit: "CPUs",
    help: "CPUs that the probes kept busy while they were last timed (one second in each minute).",
    labels: &[],
};
pub const AGENT_CPU: MetricDef = MetricDef {
    name: "fsi_agent_cpu_seconds_total",
    kind: MetricKind::Counter,
    unit: "seconds",
    help: "CPU time of the agent, probes not included.",
    labels: &[],
};
pub const AGENT_MEMORY: MetricDef = MetricDef {
    name: "fsi_agent_memory_bytes",
    kind: MetricKind::Gauge,
    unit: "bytes",
    help: "Resident memory of the agent.",
    labels: &[],
};
pub const KUBERNETES_UP: MetricDef = MetricDef {
    name: "fsi_kubernetes_up",
    kind: MetricKind::Gauge,
    unit: "1",
    help: "1 while the Kubernetes API tells the agent of pods, 0 while it does not; missing without Kubernetes.",
    labels: &[],
};
pub const ATTRIBUTION: MetricDef = MetricDef {
    name: "fsi_attribution_total",
    kind: MetricKind::Counter,
    unit: "what the event names",
    help: "What kept the agent from knowing whose an operation was.",
    labels: &[LABEL_EVENT],
};
pub const RELOADS: MetricDef = MetricDef {
    name: "fsi_config_reloads_total",
    kind: MetricKind::Counter,
    unit: "reloads",
    help: "Times that the agent was asked to read its configuration again, by what came of it.",
    labels: &[LABEL_OUTCOME],
};

pub const OTLP_SPANS: MetricDef = MetricDef {
    name: "fsi_otlp_spans_total",
    kind: MetricKind::Counter,
    unit: "spans",
    help: "Spans by what became of them at each collector.",
    labels: &[LABEL_ENDPOINT, LABEL_OUTCOME],
};
pub const OTLP_WAITING: MetricDef = MetricDef {
    name: "fsi_otlp_waiting_spans",
    kind: MetricKind::Gauge,
    unit: "spans",
    help: "Spans that wait for a collector, by where.",
    labels: &[LABEL_ENDPOINT, LABEL_PLACE],
};
pub const OTLP_SPOOL: MetricDef = MetricDef {
    name: "fsi_otlp_spool_bytes",
    kind: MetricKind::Gauge,
    unit: "bytes",
    help: "What the spool of a collector takes on disk.",
    labels: &[LABEL_ENDPOINT],
};
pub const OTLP_PUSHES: MetricDef = MetricDef {
    name: "fsi_otlp_pushes_total",
    kind: MetricKind::Counter,
    unit: "requests",
    help: "Pushes of metrics by what became of them at each collector.",
    labels: &[LABEL_ENDPOINT, LABEL_OUTCOME],
};

/// Every metric, in the order of the text.
pub const METRICS: [MetricDef; 29] = [
    OPERATIONS,
    ERRORS,
    BYTES,
    DURATION,
    DIRECTORIES_NET,
    FILES_NET,
    OPEN_FILES,
    FAULTS_INJECTED,
    THROTTLED,
    THROTTLE_WAIT,
    OVERHEAD,
    REPORTS,
    FUSE_REQUESTS,
    MOUNTS,
    RING_RECORDS,
    PROBE_CPU,
    AGENT_CPU,
    AGENT_MEMORY,
    KUBERNETES_UP,
    ATTRIBUTION,
    RELOADS,
    LOST,
    SPANS,
    OTLP_SPANS,
    OTLP_WAITING,
    OTLP_SPOOL,
    OTLP_PUSHES,
    PROBE_INFO,
    BUILD_INFO,
];

/// Operation spans the pipeline made.
pub const OUTCOME_MADE: &str = "made";
/// Operations whose span nobody asked for; counted by the kernel side.
pub const OUTCOME_SAMPLED_OUT: &str = "sampled_out";
/// Spans of all kinds a collector took.
pub const OUTCOME_EXPORTED: &str = "exported";
/// Spans of all kinds that are in a file.
pub const OUTCOME_WRITTEN: &str = "written";
/// The values of `outcome` of spans.
pub const SPAN_OUTCOMES: [&str; 4] = [OUTCOME_MADE, OUTCOME_SAMPLED_OUT, OUTCOME_EXPORTED, OUTCOME_WRITTEN];

/// Spans, or pushes of metrics, that one collector did not get.
pub const OUTCOME_LOST: &str = "lost";
/// Spans put into the spool; what becomes of them later is counted as well.
pub const OUTCOME_SPOOLED: &str = "spooled";
/// Spans that an earlier agent had left in the spool.
pub const OUTCOME_RECOVERED: &str = "recovered";
/// The values of `outcome` at a collector.
pub const OTLP_OUTCOMES: [&str; 4] = [OUTCOME_EXPORTED, OUTCOME_LOST, OUTCOME_SPOOLED, OUTCOME_RECOVERED];

/// It waited for tokens.
pub const OUTCOME_WAITED: &str = "waited";
/// It got EAGAIN at once.
pub const OUTCOME_AGAIN: &str = "again";
/// The values of `outcome` of throttled operations.
pub const THROTTLE_OUTCOMES: [&str; 2] = [OUTCOME_WAITED, OUTCOME_AGAIN];

/// It found its operation.
pub const OUTCOME_JOINED: &str = "joined";
/// It belongs to no operation that is looked at.
pub const OUTCOME_ALONE: &str = "alone";
/// The values of `outcome` of reports.
pub const REPORT_OUTCOMES: [&str; 2] = [OUTCOME_JOINED, OUTCOME_ALONE];
/// The configuration holds.
pub const OUTCOME_APPLIED: &str = "applied";
/// It was wrong; the one before holds.
pub const OUTCOME_REFUSED: &str = "refused";
/// The values of `outcome` of reloads.
pub const RELOAD_OUTCOMES: [&str; 2] = [OUTCOME_APPLIED, OUTCOME_REFUSED];

/// Stage of what a mount tells of its operations.
pub const STAGE_REPORTS: &str = "reports";
/// Answers of a mount wait.
pub const STAGE_HOLD: &str = "hold";
/// Faults are written to a mount's log file.
pub const STAGE_FAULT_LOG: &str = "fault_log";
/// Stage of the OTLP exporter's losses.
pub const STAGE_EXPORT: &str = "export";
/// Stage of the span file's losses.
pub const STAGE_SPANS_FILE: &str = "spans_file";
/// Stage of what those who attach to the agent are told.
pub const STAGE_WATCH: &str = "watch";
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
/// Stage of the spool.
pub const STAGE_SPOOL: &str = "spool";
/// The oldest gave way: the collector was away for longer than the spool holds.
pub const REASON_FULL: &str = "full";
/// The disk did not take them, or not give them back.
pub const REASON_DISK: &str = "disk";
/// A segment's end that is no record: an agent died while it wrote.
pub const REASON_TORN: &str = "torn";
/// `(stage, reason)` of the spool.
pub const SPOOL_LOSSES: [(&str, &str); 3] =
    [(STAGE_SPOOL, REASON_FULL), (STAGE_SPOOL, REASON_DISK), (STAGE_SPOOL, REASON_TORN)];
/// `(stage, reason)` of the span file.
pub const SPANS_FILE_LOSSES: [(&str, &str); 2] =
    [(STAGE_SPANS_FILE, REASON_QUEUE_FULL), (STAGE_SPANS_FILE, REASON_WRITE)];
/// `(stage, reason)` of the metrics.
pub const METRICS_LOSSES: [(&str, &str); 2] =
    [(STAGE_METRICS, REASON_SERIES), (STAGE_METRICS, REASON_UNKNOWN_OPERATION)];

/// They were waiting or on their way when a mount's server, the agent or the stream between them ended.
pub const REASON_UNSENT: &str = "unsent";
/// `(stage, reason)` of what mounts tell the agent, besides a full queue.
pub const MOUNTS_LOSSES: [(&str, &str); 1] = [(STAGE_REPORTS, REASON_UNSENT)];
/// More open files than are followed.
pub const REASON_FILES_FULL: &str = "files_full";
/// `(stage, reason)` of a mount's reports.
pub const REPORTS_LOSSES: [(&str, &str); 5] = [
    (STAGE_REPORTS, REASON_QUEUE_FULL),
    (STAGE_REPORTS, REASON_CLOSED),
    (STAGE_REPORTS, REASON_FILES_FULL),
    (STAGE_HOLD, REASON_QUEUE_FULL),
    (STAGE_FAULT_LOG, REASON_WRITE),
];

/// Every `(stage, reason)` of `fsi_lost_total`.
pub fn losses() -> impl Iterator<Item = (&'static str, &'static str)> {
    Counter::ALL
        .iter()
        .filter_map(|counter| counter.loss())
        .chain(PipelineLoss::ALL.iter().map(|loss| loss.labels()))
        .chain(EXPORT_LOSSES)
        .chain(SPOOL_LOSSES)
        .chain(SPANS_FILE_LOSSES)
        .chain(METRICS_LOSSES)
        .chain(REPORTS_LOSSES)
        .chain(MOUNTS_LOSSES)
        .chain([(STAGE_WATCH, REASON_QUEUE_FULL)])
}

/// Name of the span of a process.
pub const SPAN_PROCESS: &str = "process";
/// Name of the span of an open file.
pub const SPAN_FILE: &str = "file";

/// Name of the event of an injected fault.
pub const EVENT_FAULT: &str = "fsi.fault";

/// Every span name: the two above, the operations, and those that only a mount sees.
pub fn span_names() -> impl Iterator<Item = &'static str> {
    let only_mounts = Op::ALL.iter().filter(|op| op.kind().is_none()).map(|op| op.name());
    [SPAN_PROCESS, SPAN_FILE].into_iter().chain(OpKind::ALL.iter().map(|op| op.name())).chain(only_mounts)
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
    CONTAINER_IMAGE_NAME = "container.image.name";
    K8S_NAMESPACE_NAME = "k8s.namespace.name";
    K8S_POD_NAME = "k8s.pod.name";
    K8S_POD_UID = "k8s.pod.uid";
    K8S_CONTAINER_NAME = "k8s.container.name";
    K8S_DEPLOYMENT_NAME = "k8s.deployment.name";
    K8S_STATEFULSET_NAME = "k8s.statefulset.name";
    K8S_DAEMONSET_NAME = "k8s.daemonset.name";
    K8S_JOB_NAME = "k8s.job.name";
    /// What the pod uses the volume as.
    K8S_VOLUME_NAME = "k8s.volume.name";
    K8S_PVC_NAME = "k8s.persistentvolumeclaim.name";
    K8S_STORAGECLASS_NAME = "k8s.storageclass.name";
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
    VOLUME = "fsi.volume";
    REQUESTS = "fsi.requests";
    KERNEL_NS = "fsi.kernel_ns";
    OVERHEAD_NS = "fsi.overhead_ns";
    INJECTED_NS = "fsi.injected_ns";
    THROTTLE_NS = "fsi.throttle_ns";
    BACKING_NS = "fsi.backing_ns";
    FAULT_SEQUENCE = "fsi.fault.sequence";
    FAULT_RULE = "fsi.fault.rule";
    FAULT_KIND = "fsi.fault.kind";
    FAULT_ERRNO = "fsi.fault.errno";
    FAULT_DELAY_NS = "fsi.fault.delay_ns";
    FAULT_ASKED = "fsi.fault.asked";
    FAULT_DONE = "fsi.fault.done";
    FAULT_ORDINAL = "fsi.fault.ordinal";
    SERVICE_NAME = "service.name";
    SERVICE_VERSION = "service.version";
    HOST_NAME = "host.name";
    K8S_NODE_NAME = "k8s.node.name";
    K8S_CLUSTER_NAME = "k8s.cluster.name";
}

#[cfg(test)]
mod tests;
