//! A real Jaeger gets the agent's spans and shows what a program did on a mount: the process, its file, the write that was made to fail.
//!
//! With `FSI_TRACE_SVG=FILE` the trace is drawn as well; `docs/pictures/trace.svg` was made so.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::{env, fs};

use fsi_tests::agent::Agent;
use fsi_tests::cgroup::Cgroup;
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{succeed, text};
use fsi_tests::jaeger::Jaeger;
use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{self, Need, has};
use fsi_tests::spans::{Span, Spans};
use fsi_tests::waterfall;

/// Every third write finds the disk full; a sync takes its time.
const RULES: &str = "version: 1
seed: 1
rules:
  - { name: full-disk, match: { ops: [write], path: orders }, when: { every: 3 }, do: { errno: ENOSPC } }
  - { name: slow-sync, match: { ops: [fsync], path: orders }, do: { delay: 3ms } }
";

/// Writes five orders, each until it is written; says how many writes failed; has another program sync the file.
const WORK: &str = "exec 3>>orders
failed=0
for order in 1 2 3 4 5; do
  until echo \"order $order\" >&3; do failed=$((failed + 1)); done
done 2>/dev/null
exec 3>&-
echo $failed
exec 3>/dev/null
sync orders
exit 0";

/// Tells every operation on the mount by what is in the cgroup.
fn agent(jaeger: &Jaeger, cgroup: &Cgroup, mount: &Mount) -> Agent {
    Agent::start(&format!(
        "observe:
  cgroups: ['{}']
  default: {{ slower: none, failed: true, sample: 1/1 }}
  paths: ['{}/**']
kubernetes: {{ enabled: false }}
otlp: [{{ url: '{}' }}]
",
        cgroup.path(),
        mount.target().display(),
        jaeger.url()
    ))
}

/// Runs the work in the cgroup; how many of its writes failed.
fn work(mounted: &Mounted, cgroup: &Cgroup) -> usize {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("echo $$ >{}/cgroup.procs\n{WORK}", cgroup.path())]).current_dir(mounted.target());
    text(&succeed(&mut shell).stdout).trim().parse().expect("the work says a number")
}

/// The only one that it holds of an operation that a full disk ended.
fn trace(jaeger: &Jaeger) -> Spans {
    let mut ids = Vec::new();
    eventually("Jaeger finds the failed write", || {
        ids = jaeger.traces("fsi", "write", ("error.type", "ENOSPC"));
        !ids.is_empty()
    });
    assert_eq!(ids.len(), 1, "one program is one trace");
    let document = jaeger.trace(&ids[0]);
    let service = "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"fsi\"}}";
    assert!(document["resourceSpans"][0]["resource"].to_string().contains(service), "{document:#}");
    if let Some(picture) = env::var_os("FSI_TRACE_SVG") {
        let source = format!("Drawn from what Jaeger answered to /api/v3/traces/{}", ids[0]);
        fs::write(picture, waterfall::svg(&Spans::of(&document), &source)).expect("the picture can be written");
    }
    Spans::of(&document)
}

/// What is under a span, by name.
fn under<'a>(spans: &'a Spans, parent: &Span, name: &str) -> Vec<&'a Span> {
    spans.named(name).filter(|span| span.parent == parent.id).collect()
}

fn only<'a>(found: &[&'a Span]) -> &'a Span {
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0]
}

fn is_nested(spans: &Spans) {
    let by_id = spans.by_id();
    assert_eq!(by_id.len(), spans.all.len(), "every span once");
    let roots: Vec<_> = spans.all.iter().filter(|span| !by_id.contains_key(span.parent.as_str())).collect();
    assert_eq!(only(&roots).name, "process");
    for span in &spans.all {
        assert!(span.start_ns <= span.end_ns, "{span:#?}");
        for event in &span.events {
            assert!((span.start_ns..=span.end_ns).contains(&event.at_ns), "{span:#?}");
        }
        let Some(parent) = by_id.get(span.parent.as_str()) else { continue };
        assert!(parent.start_ns <= span.start_ns && span.end_ns <= parent.end_ns, "{span:#?} in {parent:#?}");
    }
}

#[test]
fn jaeger_shows_the_write_that_was_made_to_fail_in_its_file_and_process() {
    if !has(&[Need::Probes, Need::Mounts, Need::Tool("FSI_JAEGER"), Need::Program("sync")]) {
        return;
    }
    let Some(cgroup) = Cgroup::told_apart() else { return };
    let jaeger = Jaeger::start(&need::tool("FSI_JAEGER").expect("it is there"));
    let mount = Mount::with_rules(RULES);
    let agent = agent(&jaeger, &cgroup, &mount);
    let mounted = mount.run_in(agent.run_directory()).mount();
    eventually("the mount reports", || agent.metrics().total("fsi_mounts") == 1);
    let failed = work(&mounted, &cgroup);
    let orders = fs::read_to_string(mounted.source().join("orders")).expect("what was written");
    let path = mounted.target().join("orders").display().to_string();
    drop(mounted);
    agent.end();

    assert_eq!((failed, orders.lines().count()), (2, 5), "the program saw its failures and went on");
    let spans = trace(&jaeger);
    is_nested(&spans);
    let shell = only(
        &spans.named("process").filter(|span| span.attribute("process.executable.name") == "sh").collect::<Vec<_>>(),
    );
    let file = only(&under(&spans, shell, "file"));
    assert_eq!((file.path(), file.number("fsi.file.errors")), (path.as_str(), 2));
    let writes = under(&spans, file, "write");
    let (ill, well): (Vec<&Span>, Vec<&Span>) = writes.into_iter().partition(|span| span.status == 2);
    assert_eq!((ill.len(), well.len()), (failed, 5));
    assert!(well.iter().all(|span| span.events.is_empty()), "{well:#?}");
    let mut numbers = BTreeSet::new();
    for span in ill {
        assert_eq!((span.attribute("error.type"), span.path()), ("ENOSPC", path.as_str()), "{span:#?}");
        let [event] = span.events.as_slice() else { panic!("one fault: {span:#?}") };
        let said = |key: &str| event.attributes.get(key).map_or("", String::as_str);
        assert_eq!(event.name, "fsi.fault");
        assert_eq!(
            [said("fsi.fault.rule"), said("fsi.fault.errno"), said("fsi.fault.kind")],
            ["full-disk", "ENOSPC", "errno"]
        );
        numbers.insert(said("fsi.fault.sequence").to_owned());
    }
    assert_eq!(numbers.len(), failed, "each fault is of one write");

    let sync = only(&under(&spans, shell, "process"));
    let fsync = only(&under(&spans, only(&under(&spans, sync, "file")), "fsync"));
    assert_eq!((sync.attribute("process.executable.name"), fsync.status), ("sync", 0));
    assert_eq!(
        fsync.events.iter().map(|event| event.attributes["fsi.fault.rule"].as_str()).collect::<Vec<_>>(),
        ["slow-sync"]
    );
    assert!(fsync.end_ns - fsync.start_ns >= 3_000_000, "{fsync:#?}");
}
