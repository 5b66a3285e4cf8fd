//! One function for each capability: read or try, and say what it means.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};

use super::{Capability, Need, State};
use crate::selection::container;

/// The running kernel.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) release: String,
    version: (u32, u32),
}

impl Kernel {
    pub(super) fn running() -> Self {
        let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
        let version = parse_version(&release);
        Self { release, version }
    }
}

/// Major and minor; 0.0 when the text is no version.
fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Every check, in the order in which a person mends things.
/// `joins` is what a try said: whether the kernel tells of requests to mounts.
pub(super) fn all(kernel: &Kernel, joins: Option<bool>) -> Vec<Capability> {
    vec![
        kernel_version(kernel),
        privileges(),
        lockdown(),
        btf(),
        ring_buffer(),
        task_storage(),
        memlock(kernel),
        fentry(),
        kprobes(),
        cgroups(),
        pid_namespace(),
        fuse(),
        mount_privileges(),
        fuse_passthrough(kernel),
        join(kernel, joins),
        io_uring(),
    ]
}

fn capability(name: &'static str, need: Need, meaning: &'static str) -> Capability {
    Capability { name, state: State::Ok, need, found: String::new(), meaning, remedy: None }
}

impl Capability {
    fn ok(self, found: impl Into<String>) -> Self {
        Self { found: found.into(), ..self }
    }

    fn missing(self, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Missing, found: found.into(), remedy: Some(remedy.into()), ..self }
    }

    fn unknown(self, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Unknown, found: found.into(), remedy: Some(remedy.into()), ..self }
    }
}

/// `bpf_loop`, with which paths are walked, came with 5.17.
const OLDEST: (u32, u32) = (5, 17);

fn kernel_version(kernel: &Kernel) -> Capability {
    let check = capability("kernel", Need::Required, "Linux 5.17 or later has all that the programs call");
    if kernel.version >= OLDEST {
        check.ok(&kernel.release)
    } else {
        check.missing(&kernel.release, "boot Linux 5.17 or later")
    }
}

/// A privilege by its number.
type Privilege = (u32, &'static str);

const SYS_ADMIN: Privilege = (21, "CAP_SYS_ADMIN");
const PERFMON: Privilege = (38, "CAP_PERFMON");
const BPF: Privilege = (39, "CAP_BPF");
const FOR_MOUNTS: [Privilege; 5] =
    [SYS_ADMIN, (7, "CAP_SETUID"), (6, "CAP_SETGID"), (0, "CAP_CHOWN"), (3, "CAP_FOWNER")];

/// Those of them that this process has; nothing where that cannot be found out.
fn held(of: &[Privilege]) -> Option<Vec<Privilege>> {
    let held = effective(&read("/proc/self/status")?)?;
    Some(of.iter().copied().filter(|(bit, _)| held >> bit & 1 == 1).collect())
}

fn words(privileges: &[Privilege]) -> String {
    let names: Vec<_> = privileges.iter().map(|(_, name)| *name).collect();
    if names.is_empty() { "none that matters".to_owned() } else { names.join(", ") }
}

fn privileges() -> Capability {
    let check =
        capability("privileges", Need::Required, "CAP_BPF and CAP_PERFMON load programs that look into the kernel");
    let Some(held) = held(&[SYS_ADMIN, PERFMON, BPF]) else {
        return check.unknown("/proc/self/status has no CapEff", "mount /proc");
    };
    if held.contains(&SYS_ADMIN) || (held.contains(&BPF) && held.contains(&PERFMON)) {
        check.ok(words(&held))
    } else {
        check.missing(words(&held), "run as root, or give the process CAP_BPF and CAP_PERFMON")
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn lockdown() -> Capability {
    let check = capability(
        "lockdown",
        Need::Optional,
        "in mode `confidentiality` the kernel refuses programs that read its memory",
    );
    let file = "/sys/kernel/security/lockdown";
    let Some(modes) = read(file) else {
        return check.unknown(format!("{file} is not there"), "mount -t securityfs securityfs /sys/kernel/security");
    };
    let mode = modes.split(['[', ']']).nth(1).unwrap_or("none").to_owned();
    match mode.as_str() {
        "none" => check.ok(mode),
        "integrity" => check.ok("integrity (fentry may be refused; the BTF tracepoints are not)"),
        _ => check.missing(mode, "boot without `lockdown=confidentiality`"),
    }
}

fn btf() -> Capability {
    let check = capability(
        "btf",
        Need::Required,
        "the kernel's own types say where its fields are, so that one program fits all kernels",
    );
    let file = "/sys/kernel/btf/vmlinux";
    if Path::new(file).exists() {
        check.ok(file)
    } else {
        check.missing(format!("{file} is not there"), "use a kernel that is built with CONFIG_DEBUG_INFO_BTF=y")
    }
}

/// What a try says: yes, no, or not allowed to try.
fn tried<E: Error + 'static>(check: Capability, supported: Result<bool, E>, remedy: &str) -> Capability {
    match supported {
        Ok(true) => check.ok("tried: yes"),
        Ok(false) => check.missing("tried: no", remedy),
        Err(error) if is_denied(&error) => check.missing("tried: the kernel does not permit it", remedy),
        Err(error) => check.unknown(format!("could not be tried: {error}"), remedy),
    }
}

fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn ring_buffer() -> Capability {
    let check = capability(
        "ring_buffer",
        Need::Required,
        "operations cross to user space in order, without a wake-up for each",
    );
    let supported = is_map_supported(MapType::RingBuf);
    tried(check, supported, "as root, on Linux 5.8 or later")
}

fn task_storage() -> Capability {
    let check = capability(
        "task_storage",
        Need::Required,
        "each thread keeps its operation in flight, and whether it is selected",
    );
    let supported = is_map_supported(MapType::TaskStorage);
    tried(check, supported, "as root, on Linux 5.11 or later built with CONFIG_BPF_SYSCALL=y")
}

fn fentry() -> Capability {
    let check = capability(
        "fentry",
        Need::Optional,
        "programs on kernel functions would see io_uring and page faults too; not used yet",
    );
    let supported = is_program_supported(ProgramType::Tracing);
    tried(
        check,
        supported,
        "as root, boot without lockdown (`lockdown=none`) on a kernel with CONFIG_FUNCTION_TRACER=y",
    )
}

fn kprobes() -> Capability {
    let check = capability("kprobes", Need::Optional, "the next best where fentry is not allowed; not used yet");
    if Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        check.ok("the kernel has the kprobe event source")
    } else {
        check.missing("the kernel has no kprobe event source", "use a kernel that is built with CONFIG_KPROBE_EVENTS=y")
    }
}

fn memlock(kernel: &Kernel) -> Capability {
    let check = capability("memlock", Need::Required, "memory of maps and programs may be had");
    if kernel.version >= (5, 11) {
        return check.ok("charged to the cgroup, not to RLIMIT_MEMLOCK");
    }
    let limits = read("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap_or_default().to_owned();
    if limit.contains("unlimited") { check.ok(limit) } else { check.missing(limit, "ulimit -l unlimited") }
}

fn cgroups() -> Capability {
    let check =
        capability("cgroups", Need::Optional, "--cgroup and --container select by them, and metrics are kept by them");
    let table = read("/proc/self/mountinfo").unwrap_or_default();
    let of_kind = |kind: &str| table.lines().filter(|line| line.contains(&format!(" - {kind} "))).count();
    let (v1, v2) = (of_kind("cgroup"), of_kind("cgroup2"));
    let hierarchies = container::hierarchies().unwrap_or_default();
    let first = hierarchies.first().map(|path| path.display().to_string()).unwrap_or_default();
    match (v1, v2) {
        (0, 0) => check.missing("no hierarchy is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
        (0, _) => check.ok(format!("version 2, at {first}")),
        (_, 0) => check.ok(format!("version 1, {v1} hierarchies, the first at {first}")),
        (_, _) => check.ok(format!("hybrid: {v1} hierarchies of version 1 and version 2 beside them")),
    }
}

/// Inode of the first pid namespace, fixed in the kernel (`PROC_PID_INIT_INO`).
const INIT_PID_NAMESPACE: &str = "pid:[4026531836]";

fn pid_namespace() -> Capability {
    let check =
        capability("pid_namespace", Need::Optional, "in the first one, pids here are those that the kernel reports");
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == INIT_PID_NAMESPACE => check.ok("the first one"),
        Ok(link) => check.missing(
            format!("{}: a container's", link.display()),
            "run fsi in the host's pid namespace (docker run --pid=host); else reported pids are the host's",
        ),
        Err(error) => check.unknown(format!("/proc/self/ns/pid: {error}"), "mount /proc"),
    }
}

fn fuse() -> Capability {
    let check = capability("fuse", Need::Optional, "an interposer can be mounted");
    if Path::new("/dev/fuse").exists() {
        check.ok("/dev/fuse")
    } else {
        check.missing("/dev/fuse is not there", "modprobe fuse; in a container also pass the device in")
    }
}

fn fuse_passthrough(kernel: &Kernel) -> Capability {
    let check = capability(
        "fuse_passthrough",
        Need::Optional,
        "files that nothing concerns are read and written at native speed",
    );
    if kernel.version >= (6, 9) {
        check.ok(format!("Linux {}.{} has it", kernel.version.0, kernel.version.1))
    } else {
        check.missing(&kernel.release, "boot Linux 6.9 or later; without it every read goes through the interposer")
    }
}

fn mount_privileges() -> Capability {
    let check =
        capability("mount_privileges", Need::Optional, "`fsi mount` mounts, and does what callers ask for as they");
    let Some(held) = held(&FOR_MOUNTS) else {
        return check.unknown("/proc/self/status has no CapEff", "mount /proc");
    };
    let is_root = rustix::process::geteuid().is_root();
    let found = if is_root { words(&held) } else { format!("{}, but not root", words(&held)) };
    if is_root && held.len() == FOR_MOUNTS.len() {
        check.ok(found)
    } else {
        check.missing(found, format!("run as root, with {}", words(&FOR_MOUNTS)))
    }
}

fn join(kernel: &Kernel, joins: Option<bool>) -> Capability {
    let check = capability(
        "join",
        Need::Optional,
        "the agent tells an operation and what a mount did for it in one span, else apart",
    );
    // The file system that FUSE shows its connections by, built in or loaded.
    let is_loaded = Path::new("/sys/fs/fuse").exists();
    match joins {
        Some(true) => check.ok("tried: the kernel tells which operation sends a request to a mount"),
        Some(false) if !is_loaded => {
            check.missing("FUSE is not loaded", "modprobe fuse, then start the agent: it looks when it starts")
        }
        Some(false) if kernel.version < (6, 12) => {
            check.missing(format!("tried: no, {} has no tracepoint for it", kernel.release), "boot Linux 6.12 or later")
        }
        Some(false) => check.missing(
            "tried: no",
            "use a kernel that is built with CONFIG_DEBUG_INFO_BTF_MODULES=y: it does not say what FUSE's fields are",
        ),
        None => check.unknown("the programs do not load", "first get what observing needs"),
    }
}

fn io_uring() -> Capability {
    let check =
        capability("io_uring", Need::Optional, "what programs hand to io_uring is counted, but not seen one by one");
    match read("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") => check.ok("programs may use it; see `lost` for how much they do"),
        Some("1") => check.ok("only privileged programs may use it"),
        Some(_) => check.ok("nobody may use it"),
        None => check.unknown("the kernel does not say", "boot Linux 6.6 or later to know"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_capabilities_are_read() {
        assert_eq!(parse_version("6.18.5-cloud-amd64"), (6, 18));
        assert_eq!(parse_version("unknown"), (0, 0));
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_not_there_says_how_to_get_it() {
        for joins in [None, Some(false), Some(true)] {
            for check in all(&Kernel { release: "4.9.0".to_owned(), version: (4, 9) }, joins) {
                assert_eq!(check.remedy.is_some(), check.state != State::Ok, "{check:?}");
                assert!(!check.found.is_empty() && !check.meaning.is_empty(), "{check:?}");
            }
        }
    }

    #[test]
    fn the_join_is_what_the_try_says() {
        let old = Kernel { release: "6.1.0".to_owned(), version: (6, 1) };
        let new = Kernel { release: "6.12.0".to_owned(), version: (6, 12) };
        let states = [None, Some(false), Some(true)].map(|joins| join(&old, joins).state);
        assert_eq!(states, [State::Unknown, State::Missing, State::Ok]);
        let remedies = [&old, &new].map(|kernel| join(kernel, Some(false)).remedy);
        assert_ne!(remedies[0], None);
        assert_eq!(remedies[0] == remedies[1], !Path::new("/sys/fs/fuse").exists());
    }
}
