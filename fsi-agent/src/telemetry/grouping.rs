//! Which spans make a trace: those of an open file, of a tree of processes, or of a pod or a workload for a while.
//!
//! Every id follows from the span and from who it is of, and from nothing else: nodes that never heard of each other give the
//! spans of one workload the same trace.

use std::time::Duration;

use ring::digest::{Context, SHA256};

use crate::span::{Above, Span, SpanBody, SpanId, TraceId};

/// What a trace is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// One open file (one segment of it) and its operations; what has no open file is alone.
    File,
    /// A process and its descendants.
    Process,
    /// All of a pod that begins in one window of time.
    Pod,
    /// All of a workload that does, on whichever node.
    Workload,
}

/// Whose span it is, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity<'a> {
    pub cluster: &'a str,
    pub namespace: &'a str,
    /// The name and the uid of the pod.
    pub pod_uid: &'a str,
    /// `Deployment`, `StatefulSet`, `Job`, ..
    pub workload_kind: &'a str,
    pub workload: &'a str,
}

impl Grouping {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::File, Self::Process, Self::Pod, Self::Workload];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Process => "process",
            Self::Pod => "pod",
            Self::Workload => "workload",
        }
    }
}

/// The same span in the trace it belongs to. Its own id stays, and so does its parent if that is in the same trace; else it is a root.
///
/// A span whose pod or workload is not known stays in the trace of its process. The window is that of the start, for an operation
/// that of the start of its file: a file and its operations are never torn apart. A `window` of zero is one that never ends.
#[must_use]
pub fn regroup(mut span: Span, grouping: Grouping, window: Duration, identity: &Identity<'_>) -> Span {
    let Identity { cluster, namespace, pod_uid, workload_kind, workload } = identity;
    let parts: [&str; 4] = match grouping {
        Grouping::Process => return span,
        Grouping::File => {
            alone(&mut span);
            return span;
        }
        Grouping::Pod if pod_uid.is_empty() => return span,
        Grouping::Pod => [pod_uid, "", "", ""],
        Grouping::Workload if workload.is_empty() => return span,
        Grouping::Workload => [cluster, namespace, workload_kind, workload],
    };
    let number = |unix_ns: u64| u128::from(unix_ns).checked_div(window.as_nanos()).unwrap_or(0);
    let (own, parent) = match span.above {
        Above::Nothing => (number(span.start_unix_ns), None),
        Above::Process { start_unix_ns } => (number(span.start_unix_ns), Some(number(start_unix_ns))),
        Above::File { start_unix_ns } => (number(start_unix_ns), Some(number(start_unix_ns))),
    };
    if parent != Some(own) {
        span.parent = None;
    }
    let number = own.to_be_bytes();
    let parts = [grouping.name(), parts[0], parts[1], parts[2], parts[3]];
    span.trace = trace(parts.iter().map(|part| part.as_bytes()).chain([&number[..]]));
    span
}

fn alone(span: &mut Span) {
    let file = match (&span.body, span.above, span.parent) {
        (SpanBody::Operation(_), Above::File { start_unix_ns: _ }, Some(file)) => file,
        (SpanBody::Operation(_) | SpanBody::File(_) | SpanBody::Process(_), _, _) => {
            span.parent = None;
            span.id
        }
    };
    let SpanId(bytes) = file;
    span.trace = trace([Grouping::File.name().as_bytes(), &bytes]);
}

/// Each part with its length, so that no two lists of parts are one text.
fn trace<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> TraceId {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&context.finish().as_ref()[..16]);
    // All zeros would mean "no trace"; it does not come about, but must not.
    id[15] |= u8::from(id == [0; 16]);
    TraceId(id)
}

#[cfg(test)]
mod tests {
    use fsi_common::op::OpKind;
    use fsi_common::record::PathState;

    use super::*;
    use crate::telemetry::samples;

    const WINDOW: Duration = Duration::from_secs(600);
    const WEB: Identity<'_> =
        Identity { cluster: "c", namespace: "shop", pod_uid: "uid-1", workload_kind: "Deployment", workload: "web" };

    /// As SHA-256 over the parts has it, each after its length in eight bytes.
    const FIXED: u128 = 0x8991_592c_5c2a_50a1_5966_81ab_15ec_85da;

    fn family() -> [Span; 3] {
        let path = || samples::path(b"/f", PathState::Resolved);
        [samples::process(None), samples::file(path()), samples::op(OpKind::Read, 0, path())]
    }

    fn grouped(grouping: Grouping, identity: &Identity<'_>) -> [Span; 3] {
        family().map(|span| regroup(span, grouping, WINDOW, identity))
    }

    #[test]
    fn a_process_is_as_it_was() {
        let before = family();
        for (span, before) in grouped(Grouping::Process, &WEB).iter().zip(&before) {
            assert_eq!((span.trace, span.parent), (before.trace, before.parent));
        }
    }

    #[test]
    fn a_file_is_a_trace_with_its_operations() {
        let [process, file, read] = grouped(Grouping::File, &WEB);
        assert_eq!((file.parent, file.trace), (None, read.trace));
        assert_eq!(read.parent, Some(file.id));
        assert_ne!(process.trace, file.trace);
        let mut unlink = samples::op(OpKind::Unlink, 0, samples::path(b"/f", PathState::Resolved));
        (unlink.id, unlink.above) = (SpanId([9; 8]), Above::Process { start_unix_ns: 1 });
        let unlink = regroup(unlink, Grouping::File, WINDOW, &WEB);
        assert_eq!(unlink.parent, None);
        assert_ne!(unlink.trace, file.trace);
    }

    #[test]
    fn a_workload_is_one_trace_wherever_it_runs() {
        let [process, file, read] = grouped(Grouping::Workload, &WEB);
        assert!(process.trace == file.trace && file.trace == read.trace);
        assert_eq!((process.parent, file.parent, read.parent), (None, Some(process.id), Some(file.id)));
        // Fixed: agents of different versions meet in one trace.
        assert_eq!(u128::from_be_bytes(read.trace.0), FIXED);
        let elsewhere = grouped(Grouping::Workload, &Identity { pod_uid: "uid-2", ..WEB });
        assert_eq!(elsewhere[1].trace, file.trace);
        let others = [
            Identity { cluster: "d", ..WEB },
            Identity { namespace: "sho", workload_kind: "pDeployment", ..WEB },
            Identity { workload_kind: "Job", ..WEB },
            Identity { workload: "db", ..WEB },
        ];
        for other in others {
            assert_ne!(grouped(Grouping::Workload, &other)[0].trace, process.trace, "{other:?}");
        }
        assert_ne!(
            grouped(Grouping::Pod, &WEB)[0].trace,
            grouped(Grouping::Pod, &Identity { pod_uid: "2", ..WEB })[0].trace
        );
    }

    #[test]
    fn what_is_not_known_stays_with_its_process() {
        let unknown = Identity::default();
        for grouping in [Grouping::Pod, Grouping::Workload] {
            assert_eq!(grouped(grouping, &unknown)[2].trace, family()[2].trace);
        }
    }

    #[test]
    fn a_window_ends_a_trace_but_tears_no_file_from_its_operations() {
        let [_, mut file, mut read] = family();
        let edge = samples::START_NS.next_multiple_of(600_000_000_000);
        // The process began before the edge, the file after it, the read a window later.
        file.start_unix_ns = edge + 1;
        file.above = Above::Process { start_unix_ns: edge - 1 };
        read.start_unix_ns = edge + 600_000_000_001;
        read.above = Above::File { start_unix_ns: edge + 1 };
        let [file, read] = [file, read].map(|span| regroup(span, Grouping::Pod, WINDOW, &WEB));
        assert_eq!((file.parent, read.parent), (None, Some(file.id)));
        assert_eq!(file.trace, read.trace);
        let earlier = grouped(Grouping::Pod, &WEB);
        assert_ne!(earlier[1].trace, file.trace);
        let endless = regroup(family()[1].clone(), Grouping::Pod, Duration::ZERO, &WEB);
        assert_eq!(endless.parent, family()[1].parent);
    }
}
