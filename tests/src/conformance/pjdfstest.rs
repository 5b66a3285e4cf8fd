//! pjdfstest: each system call with each of its errors, as several users.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::{Results, last_words};
use crate::fsi::{output, text};
use crate::need::tool;

/// Users and groups that Debian and its kin have; and what Linux can.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

/// Holds another file system than any disk.
const SECONDARY: &str = "/dev/shm";

pub(super) fn run(directory: &Path) -> Results {
    let configuration = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&configuration, CONFIGURATION).expect("it can be written");
    let mut command = Command::new(tool("FSI_PJDFSTEST").expect("the test that calls has looked"));
    command.arg("--configuration-file").arg(configuration.path()).arg("--path").arg(directory);
    let device = |path: &Path| fs::metadata(path).ok().map(|file| file.dev());
    if device(Path::new(SECONDARY)).is_some_and(|other| Some(other) != device(directory)) {
        command.args(["--secondary-fs", SECONDARY]);
    }
    let output = output(&mut command);
    let said = text(&output.stdout);
    let results = read(&said);
    let summary = said.lines().last().unwrap_or_default();
    let counted = format!("{} total", results.cases.len());
    assert!(summary.contains(&counted), "read {counted}: {summary}\n{}", last_words(&text(&output.stderr)));
    results
}

/// `chmod::eperm    ok`; what a case says of itself is indented below it.
fn read(said: &str) -> Results {
    let mut results = Results::default();
    for line in said.lines().filter(|line| !line.starts_with(char::is_whitespace)) {
        let mut words = line.split_whitespace();
        if let (Some(case), Some(result), None) = (words.next(), words.next(), words.next())
            && case.contains("::")
        {
            results.add(case, result.to_lowercase());
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_told_from_what_they_say() {
        let results = read(concat!(
            "\nchmod::eperm               ok\n",
            "unlink::erofs_named              skipped\n",
            "\tRemounts (allow_remount) are not allowed in the configuration file\n",
            "link::mode                FAILED\n",
            "\n\tSummary of it: 1\n",
            "Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total\n",
        ));
        assert_eq!(results.not_ok(), ["link::mode: failed", "unlink::erofs_named: skipped"]);
        assert_eq!(results.count("ok"), 1);
    }
}
