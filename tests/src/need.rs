//! What a test needs of the machine; where it is missing the test is skipped, and says so.

use std::env;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

/// Something that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Loading eBPF programs.
    Probes,
    /// Mounting a FUSE file system, and being several users.
    Mounts,
    /// A program on the path.
    Program(&'a str),
    /// A program that the cache of `cargo xtask setup` holds, by the variable that says where.
    Tool(&'a str),
}

impl Need<'_> {
    fn missing(self) -> Option<String> {
        match self {
            Need::Probes if !is_root() => Some("loading eBPF programs takes root".to_owned()),
            Need::Probes if !Path::new("/sys/kernel/btf/vmlinux").exists() => Some("the kernel has no BTF".to_owned()),
            Need::Probes => None,
            Need::Mounts if !is_root() => Some("mounting and changing the user take root".to_owned()),
            Need::Mounts if !Path::new("/dev/fuse").exists() => Some("there is no /dev/fuse".to_owned()),
            Need::Mounts => None,
            Need::Tool(variable) if tool(variable).is_none() => {
                Some(format!("{variable} names no program; `cargo xtask setup` gets it"))
            }
            Need::Tool(_) => None,
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

/// A program from the cache of `cargo xtask setup`: where `$FSI_...` says, or where setup leaves the newest of that name.
#[must_use]
pub fn tool(variable: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let name = variable.strip_prefix("FSI_")?.to_lowercase().replace('_', "-");
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let tools = std::fs::read_dir(cache.join("fsi/tools")).ok()?.filter_map(Result::ok);
    let ours = tools.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}-")));
    let programs = ours.flat_map(|entry| [entry.path().join("bin").join(&name), entry.path().join(&name)]);
    programs.filter(|path| path.is_file()).max()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn is_on_path(name: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|directory| directory.join(name).is_file())
}
