//! What a span of the pipeline says after its conversion.

use opentelemetry_sdk::trace::SpanData;

use super::*;
use crate::telemetry::containers::NoContainers;
use crate::telemetry::samples;

fn convert(span: &Span) -> SpanData {
    Converter::new(Arc::new(NoContainers)).convert(span)
}

fn attribute_of(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.to_string())
}

#[track_caller]
fn check(span: &SpanData, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(attribute_of(span, key).as_deref(), Some(*value), "{key}");
    }
}

fn resolved(path: &[u8]) -> Path {
    samples::path(path, PathState::Resolved)
}

#[test]
fn an_operation_tells_everything() {
    let span = convert(&samples::op(OpKind::Read, 0, resolved(b"/data/f")));
    assert_eq!((span.name.as_ref(), &span.status), ("read", &Status::Unset));
    assert_eq!(span.parent_span_id.to_bytes(), [2; 8]);
    assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_nanos(1234));
    let expected = [
        ("file.path", "/data/f"),
        ("file.inode", "99"),
        ("file.mode", "0644"),
        ("process.pid", "42"),
        ("thread.id", "43"),
        ("process.user.id", "1000"),
        ("process.executable.name", "cat"),
        ("fsi.cgroup", "77"),
        ("fsi.device", "8:1"),
        ("fsi.file.type", "regular"),
        ("fsi.offset", "4096"),
        ("fsi.bytes.requested", "100"),
        ("fsi.bytes", "60"),
        ("fsi.result", "60"),
    ];
    check(&span, &expected);
    assert_eq!(attribute_of(&span, "fsi.path.state"), None);
    assert_eq!(attribute_of(&span, "error.type"), None);
}

#[test]
fn an_expected_miss_is_no_error_everything_else_is() {
    for (op, errno, failed) in [
        (OpKind::Open, libc::ENOENT, false),
        (OpKind::Stat, libc::ENOENT, false),
        (OpKind::Access, libc::ENOENT, false),
        (OpKind::Getxattr, libc::ENODATA, false),
        (OpKind::Getxattr, libc::ENOENT, true),
        (OpKind::Removexattr, libc::ENODATA, true),
        (OpKind::Unlink, libc::ENOENT, true),
        (OpKind::Open, libc::EACCES, true),
        (OpKind::Read, libc::EIO, true),
    ] {
        let errno = u16::try_from(errno).unwrap();
        let span = convert(&samples::op(op, errno, resolved(b"/x")));
        check(&span, &[("error.type", &errno::name(errno))]);
        assert_eq!(matches!(span.status, Status::Error { .. }), failed, "{op:?} {errno}");
        assert_eq!(attribute_of(&span, "fsi.result"), None);
    }
}

#[test]
fn a_path_that_is_no_text_is_told_twice() {
    let span = convert(&samples::op(OpKind::Read, 0, resolved(b"/a\xff\\b")));
    check(&span, &[("file.path", "/a\u{fffd}\\b"), ("fsi.path.bytes", "/a\\xff\\\\b")]);
}

#[test]
fn a_path_that_is_not_whole_says_why() {
    let span = convert(&samples::op(OpKind::Read, 0, samples::path(b"", PathState::Lost)));
    check(&span, &[("fsi.path.state", "lost")]);
    assert_eq!(attribute_of(&span, "file.path"), None);
}

#[test]
fn a_file_tells_its_totals_and_its_end() {
    let span = convert(&samples::file(resolved(b"/data/f")));
    assert_eq!(span.name, "file");
    let expected = [
        ("fsi.file.operations", "3"),
        ("fsi.file.bytes_read", "60"),
        ("fsi.file.errors", "1"),
        ("fsi.file.close", "closed"),
        ("fsi.file.open_before", "false"),
        ("fsi.file.segment", "0"),
        ("fsi.open_flags", "O_RDWR"),
    ];
    check(&span, &expected);
}

#[test]
fn a_process_tells_how_it_ended() {
    let span = convert(&samples::process(Some(3 << 8)));
    check(&span, &[("process.exit.code", "3"), ("process.parent_pid", "41")]);
    assert_eq!(span.parent_span_id, opentelemetry::SpanId::INVALID);
    check(&convert(&samples::process(Some(9))), &[("fsi.process.signal", "9")]);
    assert_eq!(attribute_of(&convert(&samples::process(None)), "process.exit.code"), None);
}

#[derive(Debug)]
struct Everything;

impl ContainerNames for Everything {
    fn container(&self, cgroup: u64) -> Option<Arc<str>> {
        Some(Arc::from(format!("container-of-{cgroup}")))
    }
}

#[test]
fn a_container_that_is_known_is_named() {
    let span = Converter::new(Arc::new(Everything)).convert(&samples::process(None));
    check(&span, &[("container.id", "container-of-77")]);
}

#[test]
fn every_attribute_is_of_the_catalogue() {
    for span in [
        samples::op(OpKind::Open, 2, resolved(b"/\xff")),
        samples::file(resolved(b"/f")),
        samples::process(Some(9)),
        samples::process(Some(0)),
    ] {
        for attribute in convert(&span).attributes {
            assert!(attribute::ALL.contains(&attribute.key.as_str()), "{}", attribute.key);
        }
    }
}

#[test]
fn the_resource_says_who_sends() {
    let resource = resource(&NoContainers);
    assert_eq!(resource.get(&attribute::SERVICE_NAME.into()).map(|name| name.to_string()).as_deref(), Some("fsi"));
    assert!(resource.get(&attribute::HOST_NAME.into()).is_some());
    assert!(resource.get(&attribute::K8S_NODE_NAME.into()).is_none());
}
