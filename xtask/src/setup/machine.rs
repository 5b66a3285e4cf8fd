//! What this machine is and lets us do, read from it without changing it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use xtask::tools;

use super::catalogue::{Get, LLVM};

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Which of the ways to get something are open here.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Machine {
    /// Root on a Debian or its kin.
    pub(super) apt: bool,
    pub(super) rustup: bool,
    pub(super) llvm: bool,
    pub(super) go: bool,
}

impl Machine {
    pub(super) fn read() -> Self {
        Self {
            apt: is_root() && tools::on_path("apt-get").is_some(),
            rustup: tools::on_path("rustup").is_some(),
            llvm: Path::new("/usr/lib").join(format!("llvm-{LLVM}")).join("bin/llvm-config").exists(),
            go: go_version().is_some_and(|version| version >= (1, 25)),
        }
    }

    /// Whether `get` can be done, given that `apt` comes first.
    pub(super) fn can(self, get: Get) -> bool {
        match get {
            Get::Apt(_) => self.apt,
            Get::RustupComponent(_) => self.rustup,
            Get::BpfLinker => self.llvm || self.apt,
            Get::OlderKernel => self.apt && cfg!(target_arch = "x86_64"),
            Get::PassthroughLl => self.apt,
            Get::Crate(_) => true,
            Get::Go(_) | Get::Schemas => self.go,
            Get::ByHand => false,
        }
    }
}

/// Whether this process may load the probes.
pub(crate) fn may_load_bpf() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = field(&status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    effective & CAP_SYS_ADMIN != 0 || effective & (CAP_BPF | CAP_PERFMON) == CAP_BPF | CAP_PERFMON
}

pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Real, effective, saved, file-system.
    field(&status, "Uid").and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The interpreter itself of a python3 with sqlite3: the first on PATH may be a hand-built one without, or a version
/// manager's script, which would be watched in its place.
pub(crate) fn python() -> Option<String> {
    ["python3", "/usr/bin/python3"].into_iter().find_map(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import sqlite3, sys; print(sys.executable)"]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let executable = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !executable.is_empty()).then_some(executable)
    })
}

/// (major, minor) of the Go on PATH.
pub(super) fn go_version() -> Option<(u32, u32)> {
    let mut command = Command::new("go");
    command.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    parse_go_version(std::str::from_utf8(&output.stdout).ok()?)
}

/// `go1.26.8`, `go1.25rc1`.
fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.trim().strip_prefix("go")?.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_compared_as_numbers() {
        assert_eq!(parse_go_version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.25rc1"), Some((1, 25)));
        assert_eq!(parse_go_version("devel"), None);
        assert!(parse_go_version("go1.9").expect("a version") < (1, 25));
    }

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        let status = "Name:\tfsi\nUid:\t1000\t0\t0\t0\nCapEff:\t000001ffffffffff\n";
        assert_eq!(field(status, "CapEff"), Some("000001ffffffffff"));
        assert_eq!(field(status, "Cap"), None);
    }
}
