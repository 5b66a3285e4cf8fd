//! A span of the pipeline becomes a span of the OpenTelemetry SDK. Runs on the exporters' threads.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fsi_common::op::OpKind;
use fsi_common::record::{CloseKind, FileTotals, PathState};
use opentelemetry::trace::{Event, SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::containers::ContainerNames;
use super::defs::{EVENT_FAULT, SPAN_FILE, SPAN_PROCESS, attribute};
use super::errno;
use super::text::{device, file_type, open_flags};
use crate::rules::decision::{Fault, FaultEntry};
use crate::span::{Actor, FileSpan, Interposed, MountedVolume, NO_SYSCALL, OpSpan, Path, ProcessSpan, Span, SpanBody};

/// Converts spans; one per exporter.
#[derive(Debug)]
pub struct Converter {
    scope: InstrumentationScope,
    containers: Arc<dyn ContainerNames>,
}

/// What every exporter says about itself. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are respected.
#[must_use]
pub fn resource(names: &dyn ContainerNames) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let detected = Resource::builder().build();
    let name = detected.get(&attribute::SERVICE_NAME.into()).map(|name| name.to_string());
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new(attribute::SERVICE_VERSION, env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new(attribute::HOST_NAME, host));
    let mut place = Vec::new();
    names.place(&mut |key, value| place.push(KeyValue::new(key, value)));
    resource = resource.with_attributes(place);
    // The SDK's own word for "nobody said".
    if name.is_none_or(|name| name.starts_with("unknown_service")) {
        resource = resource.with_service_name("fsi");
    }
    resource.build()
}

impl Converter {
    #[must_use]
    pub fn new(containers: Arc<dyn ContainerNames>) -> Self {
        let scope = InstrumentationScope::builder("fsi").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { scope, containers }
    }

    /// The same span, in the SDK's form.
    #[must_use]
    pub fn convert(&self, span: &Span) -> SpanData {
        let mut attributes = Vec::with_capacity(24);
        let dev = match &span.body {
            SpanBody::Process(_) => 0,
            SpanBody::File(file) => file.dev,
            SpanBody::Operation(op) => op.dev,
        };
        self.actor(&mut attributes, &span.actor, dev);
        let (name, status) = match &span.body {
            SpanBody::Process(process) => (SPAN_PROCESS, process_attributes(&mut attributes, process)),
            SpanBody::File(file) => (SPAN_FILE, file_attributes(&mut attributes, file)),
            SpanBody::Operation(op) => (op_name(op), op_attributes(&mut attributes, op)),
        };
        let context = SpanContext::new(
            opentelemetry::TraceId::from_bytes(span.trace.0),
            opentelemetry::SpanId::from_bytes(span.id.0),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        let parent = span.parent.map_or(opentelemetry::SpanId::INVALID, |id| opentelemetry::SpanId::from_bytes(id.0));
        SpanData {
            span_context: context,
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(name),
            start_time: UNIX_EPOCH + Duration::from_nanos(span.start_unix_ns),
            end_time: UNIX_EPOCH + Duration::from_nanos(span.end_unix_ns),
            attributes,
            dropped_attributes_count: 0,
            events: events(&span.body),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn actor(&self, attributes: &mut Vec<KeyValue>, actor: &Actor, dev: u32) {
        let Actor { tgid, tid, uid, comm, cgroup } = actor;
        // A mount is told the thread only; what the kernel itself does has neither.
        for (key, id) in [(attribute::PROCESS_PID, *tgid), (attribute::THREAD_ID, *tid)] {
            if id != 0 {
                attributes.push(KeyValue::new(key, i64::from(id)));
            }
        }
        // All ones: nobody told.
        if *uid != u32::MAX {
            attributes.push(KeyValue::new(attribute::PROCESS_USER_ID, i64::from(*uid)));
        }
        let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        if end > 0 {
            let name = String::from_utf8_lossy(&comm[..end]).into_owned();
            attributes.push(KeyValue::new(attribute::PROCESS_EXECUTABLE_NAME, name));
        }
        if *cgroup != 0 {
            attributes.push(KeyValue::new(attribute::CGROUP, number(*cgroup)));
        }
        if let Some(container) = self.containers.container(*cgroup) {
            attributes.push(KeyValue::new(attribute::CONTAINER_ID, container));
        }
        self.containers.describe(*cgroup, dev, &mut |key, value| attributes.push(KeyValue::new(key, value)));
    }
}

/// OTLP has no unsigned integers.
fn number(value: u64) -> Value {
    Value::I64(i64::try_from(value).unwrap_or(i64::MAX))
}

fn process_attributes(attributes: &mut Vec<KeyValue>, process: &ProcessSpan) -> Status {
    let ProcessSpan { parent_tgid, exit_code } = process;
    if *parent_tgid != 0 {
        attributes.push(KeyValue::new(attribute::PROCESS_PARENT_PID, i64::from(*parent_tgid)));
    }
    let Some(wait_status) = exit_code else { return Status::Unset };
    // As wait(2) has it: the signal in the low seven bits, else the code in the next byte.
    match wait_status & 0x7f {
        0 => attributes.push(KeyValue::new(attribute::PROCESS_EXIT_CODE, i64::from(wait_status >> 8 & 0xff))),
        signal => attributes.push(KeyValue::new(attribute::PROCESS_SIGNAL, i64::from(signal))),
    }
    Status::Unset
}

fn file_attributes(attributes: &mut Vec<KeyValue>, file: &FileSpan) -> Status {
    let FileSpan { path, dev, ino, mode, open_flags: flags, open_before, close, totals, segment } = file;
    path_attributes(attributes, path.as_ref(), &FILE_KEYS);
    inode_attributes(attributes, *dev, *ino, *mode);
    attributes.push(KeyValue::new(attribute::OPEN_FLAGS, open_flags(*flags)));
    let FileTotals {
        operations,
        reads,
        writes,
        bytes_read,
        bytes_written,
        errors,
        duration_ns,
        max_ns,
        last_ns: _, // The end of the span.
    } = totals;
    attributes.extend([
        KeyValue::new(attribute::FILE_OPERATIONS, number(*operations)),
        KeyValue::new(attribute::FILE_READS, number(*reads)),
        KeyValue::new(attribute::FILE_WRITES, number(*writes)),
        KeyValue::new(attribute::FILE_BYTES_READ, number(*bytes_read)),
        KeyValue::new(attribute::FILE_BYTES_WRITTEN, number(*bytes_written)),
        KeyValue::new(attribute::FILE_ERRORS, number(*errors)),
        KeyValue::new(attribute::FILE_DURATION_NS, number(*duration_ns)),
        KeyValue::new(attribute::FILE_MAX_NS, number(*max_ns)),
        KeyValue::new(attribute::FILE_CLOSE, close_name(*close)),
        KeyValue::new(attribute::FILE_OPEN_BEFORE, *open_before),
        KeyValue::new(attribute::FILE_SEGMENT, i64::from(*segment)),
    ]);
    Status::Unset
}

const fn close_name(close: Option<CloseKind>) -> &'static str {
    match close {
        Some(CloseKind::Closed) => "closed",
        Some(CloseKind::Exit) => "exit",
        Some(CloseKind::Unseen) => "unseen",
        None => "open",
    }
}

fn op_attributes(attributes: &mut Vec<KeyValue>, op: &OpSpan) -> Status {
    let OpSpan {
        op: kind,
        duration_ns: _, // The length of the span.
        errno: code,
        ret,
        dev,
        ino,
        mode,
        offset,
        asked,
        bytes,
        open_flags: flags,
        syscall,
        path,
        target,
        interposed,
    } = op;
    path_attributes(attributes, path.as_ref(), &FILE_KEYS);
    path_attributes(attributes, target.as_ref(), &TARGET_KEYS);
    inode_attributes(attributes, *dev, *ino, *mode);
    if let Some(offset) = offset {
        attributes.push(KeyValue::new(attribute::OFFSET, *offset));
    }
    if let Some(asked) = asked {
        attributes.push(KeyValue::new(attribute::BYTES_REQUESTED, number(*asked)));
    }
    if let Some(bytes) = bytes {
        attributes.push(KeyValue::new(attribute::BYTES, number(*bytes)));
    }
    if let Some(flags) = flags {
        attributes.push(KeyValue::new(attribute::OPEN_FLAGS, open_flags(*flags)));
    }
    if *syscall != NO_SYSCALL {
        attributes.push(KeyValue::new(attribute::SYSCALL, i64::from(*syscall)));
    }
    if let Some(interposed) = interposed {
        interposed_attributes(attributes, interposed);
    }
    if *code == 0 {
        attributes.push(KeyValue::new(attribute::RESULT, *ret));
        return Status::Unset;
    }
    let name = errno::name(*code);
    attributes.push(KeyValue::new(attribute::ERROR_TYPE, Value::String(name.clone().into())));
    if is_expected_miss(*kind, *code) { Status::Unset } else { Status::Error { description: name } }
}

fn interposed_attributes(attributes: &mut Vec<KeyValue>, interposed: &Interposed) {
    let Interposed {
        op: _, // The name.
        requests,
        kernel_ns,
        overhead_ns,
        injected_ns,
        throttle_ns,
        backing_ns,
        volume,
        faults: _, // Events.
    } = interposed;
    attributes.push(KeyValue::new(attribute::REQUESTS, i64::from(*requests)));
    if let Some(kernel_ns) = kernel_ns {
        attributes.push(KeyValue::new(attribute::KERNEL_NS, number(*kernel_ns)));
    }
    attributes.extend([
        KeyValue::new(attribute::OVERHEAD_NS, number(*overhead_ns)),
        KeyValue::new(attribute::INJECTED_NS, number(*injected_ns)),
        KeyValue::new(attribute::THROTTLE_NS, number(*throttle_ns)),
        KeyValue::new(attribute::BACKING_NS, number(*backing_ns)),
    ]);
    let MountedVolume { name, namespace } = volume;
    if let Some(name) = name {
        attributes.push(KeyValue::new(attribute::VOLUME, Value::String(Arc::clone(name).into())));
    }
    // That of the pod is there already, and a pod's volume is in its namespace.
    if let Some(namespace) = namespace
        && !attributes.iter().any(|attribute| attribute.key.as_str() == attribute::K8S_NAMESPACE_NAME)
    {
        attributes.push(KeyValue::new(attribute::K8S_NAMESPACE_NAME, Value::String(Arc::clone(namespace).into())));
    }
}

/// What only a mount sees has the mount's name for it.
fn op_name(op: &OpSpan) -> &'static str {
    let only_mounts = op.interposed.as_ref().and_then(|interposed| interposed.op).filter(|op| op.kind().is_none());
    only_mounts.map_or_else(|| op.op.name(), |op| op.name())
}

fn events(body: &SpanBody) -> SpanEvents {
    let mut events = SpanEvents::default();
    match body {
        SpanBody::Process(_) | SpanBody::File(_) => {}
        SpanBody::Operation(op) => {
            let faults = op.interposed.iter().flat_map(|interposed| &interposed.faults);
            events.events.extend(faults.map(fault_event));
        }
    }
    events
}

fn fault_event(entry: &FaultEntry) -> Event {
    let FaultEntry {
        sequence,
        unix_ns,
        fault,
        op: _, // Those of the span.
        path: _,
        ordinal,
        ino: _,
        pid: _,
        uid: _,
        offset: _,
        asked,
        done,
        effect: _, // For a replay, from the log.
    } = entry;
    let Fault { rule, kind, errno: code, delay } = fault;
    let mut attributes = vec![
        KeyValue::new(attribute::FAULT_SEQUENCE, number(*sequence)),
        KeyValue::new(attribute::FAULT_RULE, Value::String(Arc::clone(rule).into())),
        KeyValue::new(attribute::FAULT_KIND, kind.name()),
        KeyValue::new(attribute::FAULT_ORDINAL, number(*ordinal)),
        KeyValue::new(attribute::FAULT_ASKED, number(*asked)),
        KeyValue::new(attribute::FAULT_DONE, number(*done)),
    ];
    if let Some(code) = code.and_then(|code| u16::try_from(code).ok()) {
        attributes.push(KeyValue::new(attribute::FAULT_ERRNO, Value::String(errno::name(code).into())));
    }
    if !delay.is_zero() {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        attributes.push(KeyValue::new(attribute::FAULT_DELAY_NS, number(delay_ns)));
    }
    Event::new(EVENT_FAULT, UNIX_EPOCH + Duration::from_nanos(*unix_ns), attributes, 0)
}

/// Programs ask whether a file is there by opening it or looking at it, and whether it has an attribute by reading that: absence is an
/// answer, not a failure.
fn is_expected_miss(op: OpKind, errno: u16) -> bool {
    match i32::from(errno) {
        libc::ENOENT => matches!(op, OpKind::Open | OpKind::Stat | OpKind::Access),
        libc::ENODATA => op == OpKind::Getxattr,
        _ => false,
    }
}

struct PathKeys {
    path: &'static str,
    state: &'static str,
    bytes: &'static str,
}

const FILE_KEYS: PathKeys =
    PathKeys { path: attribute::FILE_PATH, state: attribute::PATH_STATE, bytes: attribute::PATH_BYTES };
const TARGET_KEYS: PathKeys =
    PathKeys { path: attribute::TARGET_PATH, state: attribute::TARGET_PATH_STATE, bytes: attribute::TARGET_PATH_BYTES };

fn path_attributes(attributes: &mut Vec<KeyValue>, path: Option<&Path>, keys: &PathKeys) {
    let Some(Path { bytes, state }) = path else { return };
    if let Some(state) = unresolved(*state) {
        attributes.push(KeyValue::new(keys.state, state));
    }
    if bytes.is_empty() {
        return;
    }
    match str::from_utf8(bytes) {
        Ok(text) => attributes.push(KeyValue::new(keys.path, text.to_owned())),
        Err(_not_text) => {
            attributes.push(KeyValue::new(keys.path, String::from_utf8_lossy(bytes).into_owned()));
            attributes.push(KeyValue::new(keys.bytes, bytes.escape_ascii().to_string()));
        }
    }
}

/// Why there is no whole path.
const fn unresolved(state: PathState) -> Option<&'static str> {
    match state {
        PathState::None | PathState::Resolved => None,
        PathState::Unreachable => Some("unreachable"),
        PathState::TooLong => Some("too_long"),
        PathState::Fault => Some("fault"),
        PathState::Lost => Some("lost"),
        PathState::Race => Some("race"),
    }
}

fn inode_attributes(attributes: &mut Vec<KeyValue>, dev: u32, ino: u64, mode: u16) {
    if ino != 0 {
        attributes.push(KeyValue::new(attribute::FILE_INODE, ino.to_string()));
    }
    if dev != 0 {
        attributes.push(KeyValue::new(attribute::DEVICE, device(dev)));
    }
    if mode != 0 {
        attributes.push(KeyValue::new(attribute::FILE_TYPE, file_type(mode)));
        attributes.push(KeyValue::new(attribute::FILE_MODE, format!("{:04o}", mode & 0o7777)));
    }
}

#[cfg(test)]
mod tests;
