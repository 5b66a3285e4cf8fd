//! fsx: one file, thousands of random operations, and memory that knows what must come of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Results, last_words};
use crate::fsi::{output, text};
use crate::need::tool;

const SEEDS: [u32; 5] = [1, 22, 333, 4444, 55_555];
const OPERATIONS: &str = "4000";

/// Everything that it can do, mapped access as often as plain.
const CONFIGURATION: &str = "
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 5
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
";

pub(super) fn run(directory: &Path) -> Results {
    let configuration = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&configuration, CONFIGURATION).expect("it can be written");
    let mut results = Results::default();
    for seed in SEEDS {
        let mut command = Command::new(tool("FSI_FSX").expect("the test that calls has looked"));
        command.args(["-N", OPERATIONS, "-S", &seed.to_string(), "-f"]).arg(configuration.path());
        // Else it leaves what it found in the working directory.
        command.arg("-P").arg(directory).arg(directory.join(format!("seed-{seed}")));
        let output = output(&mut command);
        let said = || last_words(&format!("{}\n{}", text(&output.stdout), text(&output.stderr)));
        let result = if output.status.success() { "ok".to_owned() } else { format!("{}: {}", output.status, said()) };
        results.add(format!("seed {seed}"), result);
    }
    results
}
