//! stress-ng's calls on file systems, all at once and each checking what it can. Left out are those of its class that have
//! nothing to do with the directory (eventfd, procfs), change the machine (bind-mount, binderfs), or are not put to any FUSE
//! server (fiemap: Linux asks the file system in the kernel, and FUSE has no such request).

use std::path::Path;
use std::process::Command;

use super::{Results, last_words};
use crate::fsi::{output, text};

const SECONDS: &str = "4s";

const STRESSORS: &[&str] = &[
    "access",
    "chattr",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dup",
    "fallocate",
    "fcntl",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inode-flags",
    "inotify",
    "io",
    "iomix",
    "lease",
    "link",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

/// What syncs the whole disk before it asks for what it is about: in a run that ends by the clock it may not come so far, and
/// what it then says is about the disk's other users.
const UNTIMED: &str = "verity";

/// As large as it takes and no larger: a mount may be slow.
const BOUNDS: &[&str] = &[
    "--chdir-dirs",
    "128",
    "--dentries",
    "256",
    "--dirdeep-inodes",
    "512",
    "--fallocate-bytes",
    "16M",
    "--copy-file-bytes",
    "128M",
    "--hdd-bytes",
    "16M",
    "--iomix-bytes",
    "16M",
    "--sync-file-bytes",
    "16M",
];

pub(super) fn run(directory: &Path) -> Results {
    let mut results = Results::default();
    let mut timed = stress_ng(directory, SECONDS);
    timed.args(BOUNDS);
    for stressor in STRESSORS {
        timed.args([&format!("--{stressor}"), "1"]);
    }
    judge("all of them", &mut timed, STRESSORS, &mut results);
    let mut untimed = stress_ng(directory, "0");
    untimed.args([&format!("--{UNTIMED}"), "1", &format!("--{UNTIMED}-ops"), "1"]);
    judge("the one by itself", &mut untimed, &[UNTIMED], &mut results);
    results
}

/// For so long; `0` is without an end but that of its operations.
fn stress_ng(directory: &Path, timeout: &str) -> Command {
    let mut command = Command::new("stress-ng");
    command.args(["--timeout", timeout, "--verify", "--metrics", "--temp-path"]).arg(directory);
    command
}

/// Runs them, each a case, and one more case for how the whole run ended.
fn judge(whole: &str, command: &mut Command, stressors: &[&str], results: &mut Results) {
    let output = output(command);
    let said = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    for stressor in stressors {
        results.add(*stressor, judged(stressor, &said));
    }
    let result =
        if output.status.success() { "ok".to_owned() } else { format!("{}: {}", output.status, last_words(&said)) };
    results.add(whole, result);
}

/// What it said of one: `stress-ng: fail:  [31727] open: ...`, and `... skipping` where it could not be run.
fn judged(stressor: &str, said: &str) -> String {
    let own = said.lines().filter_map(|line| {
        let (level, rest) = line.strip_prefix("stress-ng: ")?.split_once(':')?;
        let (name, words) = rest.split_once("] ")?.1.split_once(": ")?;
        (name.trim_start_matches("stress-ng-") == stressor).then_some((level, words))
    });
    for (level, words) in own {
        match level {
            "fail" | "error" => return format!("failed: {words}"),
            _ if words.contains("skipping") || words.contains("skipped") => return "skipped".to_owned(),
            _ => {}
        }
    }
    "ok".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_judged_by_its_own_lines() {
        let said = concat!(
            "stress-ng: info:  [7] dispatching hogs: 1 open, 1 verity\n",
            "stress-ng: info:  [8] open: using a maximum of 20000 file descriptors\n",
            "stress-ng: info:  [9] verity: verity is not supported on the file system or by the kernel, skipping stress test\n",
            "stress-ng: fail:  [9] rename: rename failed, errno=5 (Input/output error)\n",
        );
        let of = |stressor| judged(stressor, said);
        assert_eq!([of("open"), of("verity"), of("touch")], ["ok", "skipped", "ok"]);
        assert_eq!(of("rename"), "failed: rename failed, errno=5 (Input/output error)");
    }
}
