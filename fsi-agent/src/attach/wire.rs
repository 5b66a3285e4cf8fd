//! Spans, selections and numbers as messages, and back.

use std::path::PathBuf;
use std::sync::Arc;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::op::OpKind;
use fsi_common::record::{CloseKind, FileTotals, PathState};
use thiserror::Error;

use super::Whom;
use super::generated as wire;
use crate::control::convert::{self, ConvertError};
use crate::rules::op::Op;
use crate::span::{
    Above, Actor, FileSpan, Interposed, MountedVolume, OpSpan, Path, ProcessSpan, Span, SpanBody, SpanId, TraceId,
};

/// Why a message cannot be understood.
#[derive(Debug, Error)]
pub enum WireError {
    #[error("{0} that this version does not know")]
    Unknown(&'static str),
    #[error("{0}")]
    Fault(#[from] ConvertError),
}

pub(crate) fn whom_to_wire(whom: &Whom) -> wire::Whom {
    match whom {
        Whom::All => wire::Whom { all: true, ..wire::Whom::default() },
        Whom::Cgroups { directories, containers } => wire::Whom {
            cgroups: directories.iter().map(|path| path.display().to_string()).collect(),
            containers: containers.clone(),
            ..wire::Whom::default()
        },
        Whom::Pods { pod, namespace } => {
            wire::Whom { pod: pod.clone(), namespace: namespace.clone(), ..wire::Whom::default() }
        }
    }
}

pub(crate) fn whom_from_wire(whom: Option<wire::Whom>) -> Result<Whom, WireError> {
    let wire::Whom { all, cgroups, containers, pod, namespace } = whom.unwrap_or_default();
    let (by_cgroup, by_pod) = (!cgroups.is_empty() || !containers.is_empty(), pod.is_some() || namespace.is_some());
    match (all, by_cgroup, by_pod) {
        (true, false, false) => Ok(Whom::All),
        (false, true, false) => {
            Ok(Whom::Cgroups { directories: cgroups.into_iter().map(PathBuf::from).collect(), containers })
        }
        (false, false, true) => Ok(Whom::Pods { pod, namespace }),
        _ => Err(WireError::Unknown("a choice of whom to watch")),
    }
}

pub(crate) fn span_to_wire(span: &Span) -> wire::Span {
    let Span { trace, id, parent, above, start_unix_ns, end_unix_ns, actor, body } = span;
    let Actor { tgid, tid, uid, comm, cgroup } = actor;
    let (above, above_start_unix_ns) = match above {
        Above::Nothing => (wire::Above::Nothing, 0),
        Above::Process { start_unix_ns } => (wire::Above::Process, *start_unix_ns),
        Above::File { start_unix_ns } => (wire::Above::File, *start_unix_ns),
    };
    wire::Span {
        trace: trace.0.to_vec(),
        id: id.0.to_vec(),
        parent: parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        above: above.into(),
        above_start_unix_ns,
        start_unix_ns: *start_unix_ns,
        end_unix_ns: *end_unix_ns,
        tgid: *tgid,
        tid: *tid,
        uid: *uid,
        comm: comm.to_vec(),
        cgroup: *cgroup,
        body: Some(body_to_wire(body)),
    }
}

fn body_to_wire(body: &SpanBody) -> wire::span::Body {
    match body {
        SpanBody::Process(ProcessSpan { parent_tgid, exit_code }) => {
            wire::span::Body::Process(wire::Process { parent_tgid: *parent_tgid, exit_code: *exit_code })
        }
        SpanBody::File(file) => wire::span::Body::File(file_to_wire(file)),
        SpanBody::Operation(op) => wire::span::Body::Operation(op_to_wire(op)),
    }
}

fn file_to_wire(file: &FileSpan) -> wire::File {
    let FileSpan { path, dev, ino, mode, open_flags, open_before, close, totals, segment } = file;
    let FileTotals { operations, reads, writes, bytes_read, bytes_written, errors, duration_ns, max_ns, last_ns } =
        *totals;
    wire::File {
        path: path.as_ref().map(path_to_wire),
        dev: *dev,
        ino: *ino,
        mode: u32::from(*mode),
        open_flags: *open_flags,
        open_before: *open_before,
        close: close.map(|close| close as u32),
        segment: *segment,
        operations,
        reads,
        writes,
        bytes_read,
        bytes_written,
        errors,
        duration_ns,
        max_ns,
        last_ns,
    }
}

fn op_to_wire(op: &OpSpan) -> wire::Operation {
    wire::Operation {
        op: op.op.name().to_owned(),
        duration_ns: op.duration_ns,
        errno: u32::from(op.errno),
        ret: op.ret,
        dev: op.dev,
        ino: op.ino,
        mode: u32::from(op.mode),
        offset: op.offset,
        asked: op.asked,
        bytes: op.bytes,
        open_flags: op.open_flags,
        syscall: op.syscall,
        path: op.path.as_ref().map(path_to_wire),
        target: op.target.as_ref().map(path_to_wire),
        interposed: op.interposed.as_deref().map(interposed_to_wire),
    }
}

fn path_to_wire(path: &Path) -> wire::Path {
    wire::Path { bytes: path.bytes.to_vec(), state: path.state as u32 }
}

fn interposed_to_wire(interposed: &Interposed) -> wire::Interposed {
    wire::Interposed {
        op: interposed.op.map(|op| op.name().to_owned()).unwrap_or_default(),
        requests: interposed.requests,
        kernel_ns: interposed.kernel_ns,
        overhead_ns: interposed.overhead_ns,
        injected_ns: interposed.injected_ns,
        throttle_ns: interposed.throttle_ns,
        backing_ns: interposed.backing_ns,
        volume: interposed.volume.name.as_deref().map(str::to_owned),
        namespace: interposed.volume.namespace.as_deref().map(str::to_owned),
        faults: interposed.faults.iter().cloned().map(convert::fault_to_wire).collect(),
    }
}

fn bytes<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_length| WireError::Unknown(what))
}

pub(crate) fn span_from_wire(span: wire::Span) -> Result<Span, WireError> {
    let start_unix_ns = span.above_start_unix_ns;
    let above = match wire::Above::try_from(span.above).map_err(|_code| WireError::Unknown("a kind of parent"))? {
        wire::Above::Nothing => Above::Nothing,
        wire::Above::Process => Above::Process { start_unix_ns },
        wire::Above::File => Above::File { start_unix_ns },
    };
    let parent = if span.parent.is_empty() { None } else { Some(SpanId(bytes(&span.parent, "a span id")?)) };
    let body = match span.body.ok_or(WireError::Unknown("a kind of span"))? {
        wire::span::Body::Process(wire::Process { parent_tgid, exit_code }) => {
            SpanBody::Process(ProcessSpan { parent_tgid, exit_code })
        }
        wire::span::Body::File(file) => SpanBody::File(file_from_wire(file)?),
        wire::span::Body::Operation(op) => SpanBody::Operation(op_from_wire(op)?),
    };
    Ok(Span {
        trace: TraceId(bytes(&span.trace, "a trace id")?),
        id: SpanId(bytes(&span.id, "a span id")?),
        parent,
        above,
        start_unix_ns: span.start_unix_ns,
        end_unix_ns: span.end_unix_ns,
        actor: Actor {
            tgid: span.tgid,
            tid: span.tid,
            uid: span.uid,
            comm: bytes(&span.comm, "a command name")?,
            cgroup: span.cgroup,
        },
        body,
    })
}

fn short(value: u32, what: &'static str) -> Result<u16, WireError> {
    u16::try_from(value).map_err(|_long| WireError::Unknown(what))
}

fn file_from_wire(file: wire::File) -> Result<FileSpan, WireError> {
    let close = match file.close {
        None => None,
        Some(1) => Some(CloseKind::Closed),
        Some(2) => Some(CloseKind::Exit),
        Some(3) => Some(CloseKind::Unseen),
        Some(_) => return Err(WireError::Unknown("an end of a file")),
    };
    Ok(FileSpan {
        path: file.path.map(path_from_wire).transpose()?,
        dev: file.dev,
        ino: file.ino,
        mode: short(file.mode, "a mode")?,
        open_flags: file.open_flags,
        open_before: file.open_before,
        close,
        totals: FileTotals {
            operations: file.operations,
            reads: file.reads,
            writes: file.writes,
            bytes_read: file.bytes_read,
            bytes_written: file.bytes_written,
            errors: file.errors,
            duration_ns: file.duration_ns,
            max_ns: file.max_ns,
            last_ns: file.last_ns,
        },
        segment: file.segment,
    })
}

fn op_from_wire(op: wire::Operation) -> Result<OpSpan, WireError> {
    Ok(OpSpan {
        op: OpKind::from_name(&op.op).ok_or(WireError::Unknown("an operation"))?,
        duration_ns: op.duration_ns,
        errno: short(op.errno, "an errno")?,
        ret: op.ret,
        dev: op.dev,
        ino: op.ino,
        mode: short(op.mode, "a mode")?,
        offset: op.offset,
        asked: op.asked,
        bytes: op.bytes,
        open_flags: op.open_flags,
        syscall: op.syscall,
        path: op.path.map(path_from_wire).transpose()?,
        target: op.target.map(path_from_wire).transpose()?,
        interposed: op.interposed.map(interposed_from_wire).transpose()?.map(Box::new),
    })
}

fn path_from_wire(path: wire::Path) -> Result<Path, WireError> {
    let states = [
        PathState::None,
        PathState::Resolved,
        PathState::Unreachable,
        PathState::TooLong,
        PathState::Fault,
        PathState::Lost,
        PathState::Race,
    ];
    let state = states.into_iter().find(|state| *state as u32 == path.state);
    Ok(Path { bytes: path.bytes.into(), state: state.ok_or(WireError::Unknown("a state of a path"))? })
}

fn interposed_from_wire(interposed: wire::Interposed) -> Result<Interposed, WireError> {
    let op = match interposed.op.as_str() {
        "" => None,
        name => Some(Op::from_name(name).ok_or(WireError::Unknown("an operation of a mount"))?),
    };
    Ok(Interposed {
        op,
        requests: interposed.requests,
        kernel_ns: interposed.kernel_ns,
        overhead_ns: interposed.overhead_ns,
        injected_ns: interposed.injected_ns,
        throttle_ns: interposed.throttle_ns,
        backing_ns: interposed.backing_ns,
        volume: MountedVolume {
            name: interposed.volume.map(Arc::from),
            namespace: interposed.namespace.map(Arc::from),
        },
        faults: interposed.faults.into_iter().map(convert::fault_from_wire).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn aggregate_to_wire((key, value): (AggregateKey, AggregateValue)) -> wire::Aggregate {
    let AggregateKey { cgroup, dev, op, errno, bucket, flags, cpu: _ } = key;
    let AggregateValue { count, bytes, duration_ns, max_ns } = value;
    let [op, errno, bucket, flags] = [op, errno, bucket, flags].map(u32::from);
    wire::Aggregate { cgroup, dev, op, errno, bucket, flags, count, bytes, duration_ns, max_ns }
}

pub(crate) fn aggregate_from_wire(aggregate: &wire::Aggregate) -> Result<(AggregateKey, AggregateValue), WireError> {
    let wire::Aggregate { cgroup, dev, op, errno, bucket, flags, count, bytes, duration_ns, max_ns } = *aggregate;
    let key = AggregateKey {
        cgroup,
        dev,
        op: short(op, "an operation")?,
        errno: short(errno, "an errno")?,
        bucket: short(bucket, "a bucket")?,
        flags: short(flags, "a flag")?,
        cpu: 0,
    };
    Ok((key, AggregateValue { count, bytes, duration_ns, max_ns }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::tests::process;

    fn there_and_back(span: &Span) {
        let back = span_from_wire(span_to_wire(span)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{span:?}"));
    }

    #[test]
    fn spans_come_out_as_they_went_in() {
        let process = process();
        there_and_back(&process);
        let path = Some(Path { bytes: b"/a\xff".as_slice().into(), state: PathState::TooLong });
        let file = FileSpan {
            path: path.clone(),
            dev: 1,
            ino: 2,
            mode: 3,
            open_flags: 4,
            open_before: true,
            close: Some(CloseKind::Unseen),
            totals: FileTotals { operations: 1, reads: 2, max_ns: 3, ..FileTotals::default() },
            segment: 5,
        };
        let (parent, above) = (Some(SpanId([9; 8])), Above::Process { start_unix_ns: 11 });
        there_and_back(&Span { parent, above, body: SpanBody::File(file), ..Span::clone(&process) });
        let interposed = Interposed {
            op: Some(Op::Flush),
            requests: 1,
            kernel_ns: None,
            overhead_ns: 2,
            injected_ns: 3,
            throttle_ns: 4,
            backing_ns: 5,
            volume: MountedVolume { name: Some("data".into()), namespace: Some("shop".into()) },
            faults: Vec::new(),
        };
        let op = OpSpan {
            op: OpKind::Rename,
            duration_ns: 1,
            errno: 2,
            ret: -2,
            dev: 3,
            ino: 4,
            mode: 5,
            offset: Some(-6),
            asked: Some(7),
            bytes: None,
            open_flags: None,
            syscall: 8,
            path: path.clone(),
            target: path,
            interposed: Some(Box::new(interposed)),
        };
        let above = Above::File { start_unix_ns: 12 };
        there_and_back(&Span { parent, above, body: SpanBody::Operation(op), ..Span::clone(&process) });
    }

    #[test]
    fn choices_come_out_as_they_went_in_and_two_at_once_are_none() {
        let choices = [
            Whom::All,
            Whom::Cgroups { directories: vec!["/a".into()], containers: vec!["b".to_owned()] },
            Whom::Pods { pod: None, namespace: Some("n".to_owned()) },
        ];
        for whom in choices {
            assert_eq!(whom_from_wire(Some(whom_to_wire(&whom))).unwrap(), whom);
        }
        let both = wire::Whom { all: true, pod: Some("p".to_owned()), ..wire::Whom::default() };
        assert!(whom_from_wire(Some(both)).is_err() && whom_from_wire(None).is_err());
    }
}
