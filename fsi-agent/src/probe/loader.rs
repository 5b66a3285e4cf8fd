//! From options to programs in the kernel: knobs and offsets become constants, maps get their sizes, hooks are attached.

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{BtfTracePoint, Iter, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use fsi_common::ABI_VERSION;
use fsi_common::glob::Automaton;
use fsi_common::probe_config::{
    EVENTS_BY_POLICY, EVENTS_EVERY, EVENTS_FAILED, EVENTS_SAMPLED, EVENTS_SLOW, FOLLOW_ALL, FOLLOW_WANTED, ProbeConfig,
    Select,
};

use super::btf::KernelTypes;
use super::cgroup::{self, Hierarchy};
use super::error::ProbeError;
use super::options::{EventPolicy, GlobList, ProbeOptions, Selection};
use super::{offsets, syscalls};
use crate::selection::glob::{GlobStyle, compile};
use crate::sys::memory::give_back;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FSI_EBPF_OBJECT"));

/// The hooks on tasks, attached before anything is marked, so that no child slips through.
const TASK_HOOKS: [(&str, &str); 3] =
    [("fsi_new_task", "task_newtask"), ("fsi_exec", "sched_process_exec"), ("fsi_process_exit", "sched_process_exit")];
/// The hook on new cgroups, where many are looked at: attached before those that are there are read.
const CGROUP_HOOK: (&str, &str) = ("fsi_new_cgroup", "cgroup_mkdir");
/// The hooks on system calls, attached last.
const CALL_HOOKS: [(&str, &str); 2] = [("fsi_exit", "sys_exit"), ("fsi_enter", "sys_enter")];

/// The kernel side's debug log, printed to stderr.
pub(super) type KernelLog = Log;

/// Wraps the logger, which cannot print itself.
pub(super) struct Log(EbpfLogger<&'static dyn log::Log>);

impl Log {
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

/// What [`load`] gives.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) ring: RingBuf<MapData>,
    pub(super) log: Option<KernelLog>,
    pub(super) cgroups: Vec<u64>,
    /// Requests to mounts of ours are told.
    pub(super) joins: bool,
}

/// Loads everything, attaches the hooks on tasks.
pub(super) fn load(options: &ProbeOptions) -> Result<Loaded, ProbeError> {
    if !options.ring_bytes.is_power_of_two() || options.ring_bytes < 4096 {
        return Err(ProbeError::RingSize(options.ring_bytes));
    }
    let paths = automaton(&options.paths, GlobStyle::Path)?;
    let names = automaton(&options.processes, GlobStyle::Name)?;
    let types = KernelTypes::of_running_kernel()?;
    let offsets = offsets::of(&types)?;
    let (hierarchy, cgroups) = match &options.selection {
        Selection::Cgroups(directories) => cgroup::ids_of(&types, directories)?,
        Selection::Command | Selection::Pid(_) | Selection::All | Selection::Policies => {
            (cgroup::default_hierarchy(&types), Vec::new())
        }
    };
    let config = config(options, paths.is_some(), names.is_some(), hierarchy);
    let follows = config.follow_files != 0;
    let calls = syscalls::table(&options.operations, follows);
    let can_join = options.interposed && offsets::fuse(&types).is_some();
    // The kernel's types take megabytes, and aya reads them into its own.
    drop(types);
    let btf = Btf::from_sys_fs()?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .allow_unsupported_maps()
        .override_global("OFFSETS", &offsets, true)
        .override_global("CONFIG", &config, true)
        .override_global("SYSCALLS", &calls, true)
        .map_max_entries("RING", options.ring_bytes)
        .load(OBJECT)
        .map_err(object_error)?;
    for (index, automaton) in [(0, paths), (1, names)] {
        let Some(automaton) = automaton else { continue };
        let map = ebpf.map_mut("GLOBS").ok_or(ProbeError::NoMap("GLOBS"))?;
        Array::try_from(map)?.set(index, *automaton, 0)?;
    }
    let log = if options.debug { Some(kernel_log(&mut ebpf)?) } else { None };
    load_programs(&mut ebpf, &btf)?;
    let joins = can_join && attach_requests(&mut ebpf)?;
    attach(&mut ebpf, &TASK_HOOKS)?;
    if options.selection == Selection::Policies {
        let (name, hook) = CGROUP_HOOK;
        tracepoint(&mut ebpf, name)?.load(hook, &btf).map_err(|error| load_error(name, error))?;
        attach(&mut ebpf, &[CGROUP_HOOK])?;
    }
    let ring = RingBuf::try_from(ebpf.take_map("RING").ok_or(ProbeError::NoMap("RING"))?)?;
    drop(btf);
    give_back();
    Ok(Loaded { ebpf, ring, log, cgroups, joins })
}

/// Attaches the hooks on system calls.
pub(super) fn attach_calls(ebpf: &mut Ebpf) -> Result<(), ProbeError> {
    attach(ebpf, &CALL_HOOKS)
}

/// Attaches the hook on requests to FUSE servers; false where the kernel does not have it (before Linux 6.12, or FUSE is not loaded).
fn attach_requests(ebpf: &mut Ebpf) -> Result<bool, ProbeError> {
    let name = "fsi_request";
    let program: &mut RawTracePoint = ebpf.program_mut(name).ok_or(ProbeError::NoProgram(name))?.try_into()?;
    program.load().map_err(|error| load_error(name, error))?;
    match program.attach("fuse_request_send") {
        Ok(_link) => Ok(true),
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(source) => Err(ProbeError::Attach { name, source: Box::new(source) }),
    }
}

/// Detaches them.
pub(super) fn detach_calls(ebpf: &mut Ebpf) -> Result<(), ProbeError> {
    for (name, _) in CALL_HOOKS {
        // An unloaded program is detached from everything.
        tracepoint(ebpf, name)?.unload()?;
    }
    Ok(())
}

fn automaton(globs: &GlobList, style: GlobStyle) -> Result<Option<Box<Automaton>>, ProbeError> {
    if globs.include.is_empty() && globs.exclude.is_empty() {
        return Ok(None);
    }
    Ok(Some(compile(globs, style)?))
}

fn config(options: &ProbeOptions, path_filter: bool, comm_filter: bool, hierarchy: Hierarchy) -> ProbeConfig {
    let EventPolicy { every, slower, failed, sample } = options.events;
    let flag = |condition: bool, bit: u32| if condition { bit } else { 0 };
    let events = flag(every, EVENTS_EVERY)
        | flag(slower.is_some(), EVENTS_SLOW)
        | flag(failed, EVENTS_FAILED)
        | flag(sample.is_some(), EVENTS_SAMPLED)
        | flag(options.selection == Selection::Policies, EVENTS_BY_POLICY);
    // The verdict of the path globs is kept with the followed file.
    let follows_wanted = events != 0 || path_filter;
    let select = match options.selection {
        Selection::Command | Selection::Pid(_) => Select::Marked,
        Selection::Cgroups(_) => Select::Cgroup,
        Selection::All => Select::All,
        Selection::Policies => Select::Policy,
    };
    ProbeConfig {
        abi_version: ABI_VERSION,
        select: select as u32,
        events,
        sample_every: sample.map_or(1, std::num::NonZeroU32::get),
        slower_ns: slower.map_or(u64::MAX, |slower| u64::try_from(slower.as_nanos()).unwrap_or(u64::MAX)),
        operations: syscalls::mask(&options.operations),
        follow_files: if options.follow_files { FOLLOW_ALL } else { flag(follows_wanted, FOLLOW_WANTED) },
        follow_processes: u32::from(options.follow_processes),
        path_filter: u32::from(path_filter),
        comm_filter: u32::from(comm_filter),
        cgroup_subsystem: hierarchy.0,
        debug: u32::from(options.debug),
    }
}

fn kernel_log(ebpf: &mut Ebpf) -> Result<KernelLog, ProbeError> {
    let logger: &'static dyn log::Log = &StderrLog;
    EbpfLogger::init_with_logger(ebpf, logger).map(Log).map_err(|error| ProbeError::Log(error.to_string()))
}

/// Prints what the kernel side logs.
#[derive(Debug)]
struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    #[expect(clippy::print_stderr, reason = "the log was asked for by --debug-probes and goes to stderr")]
    fn log(&self, record: &log::Record<'_>) {
        eprintln!("[probe] {}", record.args());
    }

    fn flush(&self) {}
}

fn load_programs(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProbeError> {
    for (name, hook) in CALL_HOOKS.iter().chain(&TASK_HOOKS) {
        tracepoint(ebpf, name)?.load(hook, btf).map_err(|error| load_error(name, error))?;
    }
    let name = "fsi_tasks";
    let program: &mut Iter = ebpf.program_mut(name).ok_or(ProbeError::NoProgram(name))?.try_into()?;
    program.load("task", btf).map_err(|error| load_error(name, error))
}

fn tracepoint<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, ProbeError> {
    Ok(ebpf.program_mut(name).ok_or(ProbeError::NoProgram(name))?.try_into()?)
}

fn attach(ebpf: &mut Ebpf, hooks: &[(&'static str, &'static str)]) -> Result<(), ProbeError> {
    for (name, _) in hooks {
        tracepoint(ebpf, name)?.attach().map_err(|source| ProbeError::Attach { name, source: Box::new(source) })?;
    }
    Ok(())
}

fn is_not_permitted(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// Maps are made first, so missing privileges show here.
fn object_error(error: EbpfError) -> ProbeError {
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(current) = source {
        if current.downcast_ref::<std::io::Error>().is_some_and(is_not_permitted) {
            return ProbeError::NotPermitted;
        }
        source = current.source();
    }
    ProbeError::Object(Box::new(error))
}

/// The verifier's reason stands at the end of its log.
fn load_error(name: &'static str, error: ProgramError) -> ProbeError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
            if lines.is_empty() && is_not_permitted(&io_error) {
                return ProbeError::NotPermitted;
            }
            let last = lines.len().saturating_sub(12);
            ProbeError::Verifier { name, reason: format!("{io_error}: {}", lines[last..].join(" | ")) }
        }
        other => other.into(),
    }
}
