//! What a test needs of the machine; where it is missing the test is skipped, and says so.

use std::env;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;

/// Something that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Loading eBPF programs.
    Probes,
    /// A program on the path.
    Program(&'a str),
}

impl Need<'_> {
    fn missing(self) -> Option<String> {
        match self {
            Need::Probes if !is_root() => Some("loading eBPF programs takes root".to_owned()),
            Need::Probes if !Path::new("/sys/kernel/btf/vmlinux").exists() => Some("the kernel has no BTF".to_owned()),
            Need::Probes => None,
            Need::Program(name) => (!is_on_path(name)).then(|| format!("{name} is not installed")),
        }
    }
}

/// Whether all is there; otherwise says which test is skipped for what.
#[must_use]
pub fn has(needs: &[Need<'_>]) -> bool {
    let Some(reason) = needs.iter().find_map(|need| need.missing()) else { return true };
    skip(&reason);
    false
}

/// Says that the test that calls is skipped.
#[expect(clippy::print_stdout, reason = "the line is how a skipped test is told from a passed one")]
pub fn skip(reason: &str) {
    println!("SKIPPED {}: {reason}", thread::current().name().unwrap_or("a test"));
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn is_on_path(name: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|directory| directory.join(name).is_file())
}
