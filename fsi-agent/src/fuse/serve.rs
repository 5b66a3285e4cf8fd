//! A server's life: take over from the keeper, build the file system, serve until the connection ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::adapter::Adapter;
use super::agent_link::{AgentLink, AgentLinkConfig, LinkCounts};
use super::config::{FilePath, MountConfig};
use super::control::ControlError;
use super::device::Device;
use super::exports::{Exports, ExportsConfig, ExportsError, MountLosses};
use super::fs::{self, About, Interposer};
use super::keeper_link::{Keeper as _, KeeperLink};
use super::report::{FanOut, NoReports, Reports};
use super::session::{self, SessionError};
use super::state::{State, StateError, Word};
use crate::control::service;
use crate::keeper;
use crate::keeper::message::{self, Given, ToServer};
use crate::keeper::node::client::Place;
use crate::reports::{self, MountInfo};
use crate::rules::replay::line::{self, LineError};
use crate::sys::caller;
use crate::sys::fd::Wait;

/// Everything a file system is made of.
#[derive(Debug)]
pub struct Parts {
    /// The directory whose files are shown; a private mount.
    pub source: OwnedFd,
    pub state: Arc<State>,
    /// What a power cut takes back, and the bytes of fakes.
    pub undo: OwnedFd,
    pub memory: OwnedFd,
    /// The last faults.
    pub faults: OwnedFd,
    /// Listens for control connections; they wait while there is no server.
    pub control: OwnedFd,
    pub config: MountConfig,
    pub keeper: Arc<KeeperLink>,
}

/// Why a server ends.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("a server is started by `fsi mount`, which hands it the mount on its stdin")]
    NotStartedByKeeper,
    #[error("take over from the keeper: {0}")]
    TakeOver(#[source] io::Error),
    #[error("leave supplementary groups: {0}")]
    Groups(#[source] io::Error),
    #[error("the keeper said {0}")]
    Unexpected(&'static str),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("rules: {0}")]
    Rules(#[source] ControlError),
    #[error("{0}")]
    Exports(#[from] ExportsError),
    #[error("replay {}: {source}", path.display())]
    Replay { path: std::path::PathBuf, source: LineError },
    #[error("open the fault log {}: {source}", path.display())]
    FaultLog { path: std::path::PathBuf, source: io::Error },
}

/// Serves the mount that the keeper hands over on stdin.
///
/// # Errors
/// When it cannot, or the connection ends badly.
pub fn run() -> Result<(), ServeError> {
    serve_from(socket()?, None, &mut || {})
}

/// Serves a mount that the keeper of the node hands over; says when it does.
///
/// # Errors
/// When it cannot, or the connection ends badly.
pub fn run_kept(socket: OwnedFd, place: Place, ready: &mut dyn FnMut()) -> Result<(), ServeError> {
    serve_from(socket, Some(place), ready)
}

fn serve_from(socket: OwnedFd, place: Option<Place>, ready: &mut dyn FnMut()) -> Result<(), ServeError> {
    rustix::thread::set_name(c"fsi-server").ok();
    end_with_a_panic();
    raise_limits();
    caller::leave_groups().map_err(ServeError::Groups)?;
    let is_kept_by_node = place.is_some();
    let (connection, parts) = take_over(socket, place)?;
    let (state, keeper, threads) = (Arc::clone(&parts.state), Arc::clone(&parts.keeper), parts.config.threads);
    let control = is_kept_by_node.then(|| keeper::socket_path(parts.config.device()));
    if is_kept_by_node {
        state.word(Word::Servers).fetch_add(1, Ordering::Relaxed);
    }
    let served = serve(parts, &connection, &state, threads, ready);
    if let (Ok(()), Some(control)) = (&served, control) {
        // It may be gone with its directory.
        std::fs::remove_file(control).ok();
    }
    if let Err(error) = &served {
        // A keeper that is gone does not need the reason.
        keeper.failed(&error.to_string()).ok();
    }
    served
}

/// A thread that answers requests and panics would leave some without an answer for ever: the server ends instead, and the keeper starts
/// another, which gets them again. Threads of telemetry and control end alone.
fn end_with_a_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        let thread = std::thread::current();
        if thread.name().is_none_or(|name| ANSWERING.iter().any(|answering| name.starts_with(answering))) {
            std::process::abort();
        }
    }));
}

/// How the names of threads begin that answer requests.
const ANSWERING: [&str; 3] = ["main", "fuser", "fsi-hold"];

fn serve(
    parts: Parts,
    connection: &OwnedFd,
    state: &State,
    threads: usize,
    ready: &mut dyn FnMut(),
) -> Result<(), ServeError> {
    let keeper = Arc::clone(&parts.keeper);
    let Built { fs, control, told } = build(parts, connection)?;
    // A service that cannot be had is no reason to leave the mount without a server; `fsi ctl` says that nobody answers.
    let control = match service::serve(control.into(), Arc::new(Arc::clone(&fs))) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::error!(%error, "the mount cannot be controlled");
            None
        }
    };
    session::run(Adapter::new(Arc::clone(&fs)), connection, state, threads, |notifier| {
        fs.device().speaks_by(notifier);
        // Without a keeper the mount is served all the same.
        keeper.ready().ok();
        ready();
    })?;
    if let Some(control) = control {
        control.stop();
    }
    told.finish();
    Ok(())
}

/// Who takes reports.
#[derive(Debug)]
struct Told {
    exports: Option<Arc<Exports>>,
    agent: Option<Arc<AgentLink>>,
}

impl Told {
    fn start(config: &MountConfig, state: &Arc<State>) -> Result<Self, ServeError> {
        let exports = exports(config)?.map(Arc::new);
        let agent = config.agent.then(|| agent_link(config, state)).transpose();
        // A mount that nobody watches is better than none.
        let agent = agent.unwrap_or_else(|error| {
            tracing::error!(%error, "the agent is not told of this mount");
            None
        });
        Ok(Self { exports, agent: agent.map(Arc::new) })
    }

    fn reports(&self) -> Arc<dyn Reports> {
        let exports = self.exports.clone().map(|exports| -> Arc<dyn Reports> { exports });
        let agent = self.agent.clone().map(|agent| -> Arc<dyn Reports> { agent });
        match (exports, agent) {
            (None, None) => Arc::new(NoReports),
            (Some(one), None) | (None, Some(one)) => one,
            (Some(exports), Some(agent)) => Arc::new(FanOut(vec![exports, agent])),
        }
    }

    fn finish(self) {
        let Self { exports, agent } = self;
        if let Some(counts) = agent.map(|agent| agent.finish()) {
            let (LinkCounts { full, .. }, unsent) = (counts, counts.unsent());
            if full + unsent > 0 {
                tracing::warn!(full, unsent, "the agent was not told everything");
            }
        }
        for error in exports.and_then(|exports| exports.finish()).into_iter().flat_map(|summary| summary.errors) {
            tracing::error!(%error, "telemetry");
        }
    }
}

fn agent_link(config: &MountConfig, state: &Arc<State>) -> io::Result<AgentLink> {
    let device = config.device();
    let mount = MountInfo {
        dev: config.device_minor,
        device_major: device.major,
        device_minor: device.minor,
        target: config.target.to_path_buf(),
        source: config.source.to_path_buf(),
        volume: config.volume.clone(),
        namespace: config.namespace.clone(),
        server_pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        servers: state.word(Word::Servers).load(Ordering::Relaxed),
        dropped: 0,
    };
    AgentLink::start(AgentLinkConfig { socket: reports::agent_socket(), mount }, Arc::clone(state))
}

/// Telemetry, where some was asked for.
fn exports(config: &MountConfig) -> Result<Option<Exports>, ServeError> {
    let path = |path: &Option<FilePath>| path.as_ref().map(|path| path.to_path_buf());
    let (spans, metrics) = (path(&config.spans), path(&config.metrics));
    if config.otlp.is_none() && spans.is_none() && metrics.is_none() {
        return Ok(None);
    }
    let exports = Exports::start(ExportsConfig {
        target: config.target.to_path_buf(),
        volume: config.volume.clone(),
        namespace: config.namespace.clone(),
        otlp: config.otlp.clone(),
        otlp_deadline: OTLP_DEADLINE,
        spans,
        metrics,
    })?;
    Ok(Some(exports))
}

/// Longest time the end of a mount waits for the collector.
const OTLP_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

/// The file system, who listens for control, and who takes reports.
struct Built {
    fs: Arc<Interposer>,
    control: OwnedFd,
    told: Told,
}

/// The file system, with the rules that are in force.
fn build(parts: Parts, connection: &OwnedFd) -> Result<Built, ServeError> {
    let Parts { source, state, undo, memory, faults, control, config, keeper } = parts;
    let connection = connection.try_clone().map_err(ServeError::TakeOver)?;
    let about = About {
        source: config.source.to_path_buf(),
        target: config.target.to_path_buf(),
        device: format!("{}:{}", config.device_major, config.device_minor),
        keeper_pid: config.keeper_pid,
    };
    let held = keeper.held();
    let told = Told::start(&config, &state)?;
    let fs = Interposer::build(fs::Parts {
        source,
        device: Device::new(connection, config.device_minor, config.passthrough),
        keeper,
        reports: told.reports(),
        held,
        ttl: config.attr_timeout,
        about,
        undo,
        memory,
        faults,
        state: Arc::clone(&state),
    })
    .map_err(ServeError::TakeOver)?;
    if let Some(exports) = &told.exports {
        let fs = Arc::downgrade(&fs);
        exports.asks_for_losses(move || {
            let losses = |fs: Arc<Interposer>| MountLosses { undelayed: fs.undelayed(), unlogged: fs.unlogged() };
            fs.upgrade().map_or_else(MountLosses::default, losses)
        });
    }
    if let Some(path) = &config.fault_log {
        let log = File::options().append(true).create(true).open(&**path);
        fs.log_to(log.map_err(|source| ServeError::FaultLog { path: path.to_path_buf(), source })?);
    }
    match &config.replay {
        Some(path) => {
            let log = std::fs::read_to_string(&**path);
            let log = log.map_err(|source| ServeError::FaultLog { path: path.to_path_buf(), source })?;
            let entries = line::read_all(&log);
            let entries = entries.map_err(|source| ServeError::Replay { path: path.to_path_buf(), source })?;
            fs.arm_replay(&entries).map_err(ServeError::TakeOver)?;
        }
        None => {
            let rules = state.rules_text();
            fs.arm_kept(&String::from_utf8_lossy(&rules)).map_err(ServeError::Rules)?;
        }
    }
    Ok(Built { fs, control, told })
}

/// The keeper's socket, taken off stdin.
fn socket() -> Result<OwnedFd, ServeError> {
    let stdin = rustix::stdio::stdin();
    if rustix::net::sockopt::socket_type(stdin).ok() != Some(rustix::net::SocketType::SEQPACKET) {
        return Err(ServeError::NotStartedByKeeper);
    }
    let socket = stdin.try_clone_to_owned().map_err(ServeError::TakeOver)?;
    let nothing = File::open("/dev/null").map_err(ServeError::TakeOver)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| ServeError::TakeOver(error.into()))?;
    Ok(socket)
}

fn take_over(socket: OwnedFd, place: Option<Place>) -> Result<(OwnedFd, Parts), ServeError> {
    let (count, descriptors) = match receive(&socket)? {
        (ToServer::Start { held }, descriptors) => (held, descriptors),
        (ToServer::Held { .. } | ToServer::UpgradeRefused { .. }, _) => {
            return Err(ServeError::Unexpected("something before the start"));
        }
    };
    let Some(given) = Given::from_all(descriptors) else {
        return Err(ServeError::Unexpected("a start without its descriptors"));
    };
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        match receive(&socket)? {
            (ToServer::Held { nodes }, files) if nodes.len() == files.len() && !nodes.is_empty() => {
                held.extend(nodes.into_iter().zip(files));
            }
            (ToServer::Held { .. }, _) => return Err(ServeError::Unexpected("nodes that do not match descriptors")),
            (ToServer::Start { .. } | ToServer::UpgradeRefused { .. }, _) => {
                return Err(ServeError::Unexpected("something else than held descriptors"));
            }
        }
    }
    let copies = place.is_some().then(|| given.try_clone()).transpose().map_err(ServeError::TakeOver)?;
    let Given { connection, source, state, undo, memory, faults, control, config } = given;
    let state = State::open(state.as_fd())?;
    let config = read_config(config).map_err(ServeError::TakeOver)?;
    let keeper = match place.zip(copies) {
        Some((place, copies)) => {
            KeeperLink::of_node(socket, held, copies, place, config.deadline).map_err(ServeError::TakeOver)?
        }
        None => Arc::new(KeeperLink::new(socket, held).map_err(ServeError::TakeOver)?),
    };
    Ok((connection, Parts { source, state, undo, memory, faults, control, config, keeper }))
}

fn receive(socket: &OwnedFd) -> Result<(ToServer, Vec<OwnedFd>), ServeError> {
    let received = message::receive(socket.as_fd(), Wait::Block).map_err(ServeError::TakeOver)?;
    received.ok_or_else(|| ServeError::TakeOver(io::ErrorKind::UnexpectedEof.into()))
}

/// All servers share the descriptor and with it the position, so nobody reads at it.
fn read_config(file: OwnedFd) -> io::Result<MountConfig> {
    use std::os::unix::fs::FileExt as _;
    let file = File::from(file);
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// As many open files as the kernel gives; each file that is open through the mount is open here.
pub(crate) fn raise_limits() {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let limit = getrlimit(Resource::Nofile);
    let wanted = most.or(limit.maximum);
    if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }).is_err() {
        // Without the privilege, as far as it goes.
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};
    use std::thread;

    use super::*;

    const THREAD: &str = "FSI_TEST_PANIC_IN";

    #[test]
    fn a_panic_of_a_thread_that_answers_ends_the_server() {
        if let Ok(name) = std::env::var(THREAD) {
            end_with_a_panic();
            let panics = thread::Builder::new().name(name).spawn(|| panic!("as it is told"));
            panics.unwrap().join().unwrap_err();
            return;
        }
        for (thread, signal) in
            [("fuser-3", Some(libc::SIGABRT)), ("fsi-hold", Some(libc::SIGABRT)), ("fsi-reports", None)]
        {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "fuse::serve::tests::a_panic_of_a_thread_that_answers_ends_the_server"]);
            let ended = again.env(THREAD, thread).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert_eq!((ended.signal(), ended.success()), (signal, signal.is_none()), "{thread}");
        }
    }
}
