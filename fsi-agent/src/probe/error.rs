//! Why the kernel side cannot be used, each as one sentence with what to do.

use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use aya::{BtfError as AyaBtfError, EbpfError};

use super::btf::BtfError;
use super::cgroup::CgroupError;
use crate::selection::glob::GlobError;

/// The kernel side cannot be loaded, attached or read.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "loading eBPF programs is not permitted: run as root, or give the process CAP_BPF and CAP_PERFMON (`fsi doctor` says what is missing)"
    )]
    NotPermitted,
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error("read the kernel's BTF: {0}")]
    KernelTypes(#[from] AyaBtfError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Glob(#[from] GlobError),
    #[error("a ring of {0} bytes cannot be had: it must be a power of two and at least a page (4096)")]
    RingSize(u32),
    #[error("load the eBPF object: {0}")]
    Object(#[source] Box<EbpfError>),
    #[error("the kernel refuses the program {name}: {reason}")]
    Verifier { name: &'static str, reason: String },
    #[error("attach {name}: {source}")]
    Attach { name: &'static str, source: Box<ProgramError> },
    #[error("no process with pid {0}")]
    NoProcess(u32),
    #[error("{0} is a thread, not a process; give the pid of its process (Tgid in /proc/{0}/status)")]
    AThread(u32),
    #[error("the process ended before it could be observed")]
    Gone,
    #[error("mark a task: {0}")]
    Mark(#[source] io::Error),
    #[error("visit the tasks: {0}")]
    Iterate(#[source] io::Error),
    #[error(transparent)]
    Spawn(io::Error),
    #[error("the command must be started from the main thread")]
    NotTheMainThread,
    #[error("the eBPF object has no map {0}")]
    NoMap(&'static str),
    #[error("the eBPF object has no program {0}")]
    NoProgram(&'static str),
    #[error("eBPF map: {0}")]
    Map(#[source] Box<MapError>),
    #[error("eBPF program: {0}")]
    Program(#[source] Box<ProgramError>),
    #[error("eBPF link: {0}")]
    Link(#[from] LinkError),
    #[error("start the kernel-side log: {0}")]
    Log(String),
}

impl From<MapError> for ProbeError {
    fn from(error: MapError) -> Self {
        Self::Map(Box::new(error))
    }
}

impl From<ProgramError> for ProbeError {
    fn from(error: ProgramError) -> Self {
        Self::Program(Box::new(error))
    }
}
