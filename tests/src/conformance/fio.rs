//! fio, which writes blocks that know where they belong and reads them back, in every way to write and to read.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Results, last_words};
use crate::fsi::{output, text};

const MIBIBYTES: u64 = 16;

/// (case, its options). O_DIRECT asks of the disk below what not every disk can, but every way here is tried natively first.
const JOBS: &[(&str, &[&str])] = &[
    ("4 KiB at random", &["--rw=randwrite", "--bs=4k", "--ioengine=psync"]),
    ("128 KiB in order", &["--rw=write", "--bs=128k", "--ioengine=psync"]),
    ("odd sizes at random", &["--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--ioengine=psync"]),
    ("several at once", &["--rw=randwrite", "--bs=8k", "--ioengine=psync", "--numjobs=4", "--thread"]),
    ("vectors", &["--rw=randwrite", "--bs=16k", "--ioengine=pvsync2"]),
    ("mapped", &["--rw=randwrite", "--bs=4k", "--ioengine=mmap"]),
    ("past the cache", &["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--direct=1"]),
    ("past the cache, 16 deep", &["--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--direct=1", "--iodepth=16"]),
    ("synced often", &["--rw=randwrite", "--bs=16k", "--ioengine=psync", "--fsync=32"]),
];

pub(super) fn run(directory: &Path) -> Results {
    let mut results = Results::default();
    for (number, (case, options)) in JOBS.iter().enumerate() {
        let mut command = Command::new("fio");
        command
            .arg(format!("--name=job{number}"))
            .arg(format!("--size={MIBIBYTES}m"))
            .arg("--directory")
            .arg(directory);
        command.args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7", "--group_reporting"]);
        command.args(["--output-format=json"]).args(*options).current_dir(directory);
        let output = output(&mut command);
        let said = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
        let result = match (output.status.success(), counted(&output.stdout)) {
            (true, Some((0, written, read))) if written == read && written > 0 => "ok".to_owned(),
            (_, counted) => format!("{}, (error, written, read) {counted:?}: {}", output.status, last_words(&said)),
        };
        results.add(*case, result);
    }
    results
}

/// (error, bytes written, bytes read back).
fn counted(report: &[u8]) -> Option<(i64, u64, u64)> {
    let report: Value = serde_json::from_slice(report).ok()?;
    let [job] = report["jobs"].as_array()?.as_slice() else { return None };
    Some((job["error"].as_i64()?, job["write"]["io_bytes"].as_u64()?, job["read"]["io_bytes"].as_u64()?))
}
