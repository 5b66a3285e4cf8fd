//! The file, read back as JSON; and disks that do not take it.

use serde_json::Value;

use super::*;
use crate::telemetry::containers::NoContainers;
use crate::telemetry::samples;
use fsi_common::op::OpKind;
use fsi_common::record::PathState;

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn create(path: &Path) -> Result<JsonLinesSink, JsonLinesError> {
    JsonLinesSink::create(path, Arc::new(NoContainers))
}

#[test]
fn a_line_is_an_export_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spans.jsonl");
    let mut sink = create(&path).unwrap();
    sink.span(&Arc::new(samples::process(Some(0))));
    sink.span(&Arc::new(samples::op(OpKind::Read, 5, samples::path(b"/data/f", PathState::Resolved))));
    let report = sink.finish();
    assert_eq!((report.written, report.error), (2, None));

    let [line] = lines(&path).try_into().unwrap();
    let resource = &line["resourceSpans"][0];
    let service = resource["resource"]["attributes"].as_array().unwrap();
    assert!(
        service
            .iter()
            .any(|attribute| attribute["key"] == "service.name" && attribute["value"]["stringValue"] == "fsi")
    );
    let scope = &resource["scopeSpans"][0];
    assert_eq!(scope["scope"]["name"], "fsi");
    let [process, read] = [&scope["spans"][0], &scope["spans"][1]];
    assert_eq!((&process["name"], &read["name"]), (&"process".into(), &"read".into()));
    // Ids are hexadecimal, 64-bit integers are strings, enumerations are numbers.
    assert_eq!(read["traceId"], "abababababababababababababababab");
    assert_eq!((&read["spanId"], &read["parentSpanId"]), (&"0303030303030303".into(), &"0202020202020202".into()));
    assert_eq!(read["startTimeUnixNano"], "1700000000000000001");
    assert_eq!(read["endTimeUnixNano"], "1700000000000001235");
    assert_eq!((&read["kind"], &read["status"]["code"]), (&1.into(), &2.into()));
    let attributes = read["attributes"].as_array().unwrap();
    let value = |key: &str| &attributes.iter().find(|attribute| attribute["key"] == key).unwrap()["value"];
    assert_eq!(value("fsi.offset")["intValue"], "4096");
    assert_eq!(value("file.path")["stringValue"], "/data/f");
    assert_eq!(value("error.type")["stringValue"], "EIO");
}

#[test]
fn lines_hold_a_hundred_spans_and_none_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spans.jsonl");
    let mut sink = create(&path).unwrap();
    (0..10_050).for_each(|_| sink.span(&samples::read("/f")));
    assert_eq!(sink.finish().written, 10_050);
    let counts: Vec<_> = lines(&path)
        .iter()
        .map(|line| line["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len())
        .collect();
    assert_eq!((counts.iter().sum::<usize>(), counts.iter().max()), (10_050, Some(&100)));
}

#[test]
fn a_full_disk_is_counted() {
    let mut sink = create(Path::new("/dev/full")).unwrap();
    (0..250).for_each(|_| sink.span(&samples::read("/f")));
    let report = sink.finish();
    assert_eq!((report.written, report.losses[1]), (0, ("spans_file", "write", 250)));
    let error = report.error.unwrap();
    assert!(error.starts_with("write spans to /dev/full: No space left"), "{error}");
}

#[test]
fn a_file_that_cannot_be_made_is_one_sentence() {
    let error = create(Path::new("/nowhere/spans")).unwrap_err();
    assert!(error.to_string().starts_with("create /nowhere/spans: No such file"), "{error}");
}

#[test]
fn a_sink_that_is_dropped_writes_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spans.jsonl");
    let mut sink = create(&path).unwrap();
    sink.span(&samples::read("/f"));
    drop(sink);
    assert_eq!(lines(&path).len(), 1);
}
