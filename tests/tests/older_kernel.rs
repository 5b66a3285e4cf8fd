//! The same `fsi` on an older kernel than this one: every program is verified there, and counts what it should.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use fsi_tests::need::{Need, has, skip};
use fsi_tests::vm;
use serde_json::Value;

/// Copies a file: one open of each, a sendfile, two closes, whatever the kernel.
const SCRIPT: &str = "echo hello > /etc/hello
fsi doctor
echo BEGIN
fsi observe --json --path '/**/hello' --spans /tmp/spans -- cp /etc/hello /tmp/hello
echo END
cat /tmp/spans";

#[test]
fn loads_and_counts() {
    if !has(&[Need::Program("qemu-system-x86_64"), Need::Program("busybox"), Need::Program("cpio")]) {
        return;
    }
    let Some(kernel) = vm::kernel() else { return skip("no older kernel was fetched (`cargo xtask setup`)") };
    let console = vm::run(&kernel, SCRIPT);
    assert!(console.contains("observing works: the programs load and attach"), "{console}");
    let (_, rest) = console.split_once("BEGIN\n").expect("the script ran");
    let (document, spans) = rest.split_once("END\n").expect("the script went on");
    let document: Value = serde_json::from_str(document.trim()).unwrap_or_else(|error| panic!("{error}: {console}"));
    let copied = |key: &str| document["totals"][key].as_u64();
    assert_eq!((copied("read_bytes"), copied("written_bytes")), (Some(6), Some(6)), "{document:#}");
    assert!(spans.contains("/tmp/hello") && spans.contains("\"sendfile\""), "{console}");
}
