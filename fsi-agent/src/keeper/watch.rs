//! The keeper's days: one server after another, until the connection ends.
//!
//! ```text
//! start -> ready -> dies -> start ...        unmounted: done; cannot be started: again after a pause
//!   |                 `-- 5 in a row that came to nothing: abort
//!   `-- no server ready by the deadline: abort (the first one: unmount)
//! SIGTERM: unmount; busy: detach and serve on; after the drain time, or a signal once it is detached: abort
//! upgrade: kill, start the new program; dead or late before it is ready: the old one again
//! ```

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::Interest;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::message::{self, ToKeeper, ToServer};
use super::mounted::{self, Mounted};
use super::program::Program;
use super::server::Server;
use super::{KeeperError, LONG_LIFE, Note};
use crate::fuse::state::Word;
use crate::sys::fd::Wait;
use crate::sys::mount::Unmount;

/// Deaths in a row that make a crash loop.
const CRASH_LOOP: u32 = 5;
/// How long a server that could not be started is left alone before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// What comes back from calls that may wait for a server.
enum Told {
    Answered(io::Result<()>),
    Unmounted(io::Result<()>),
}

enum Event {
    Died,
    Message,
    Signal,
    ServerLate,
    DrainOver,
    Told(Told),
    StartAgain,
}

pub(super) struct Watch<'a> {
    mounted: Mounted,
    server: Server,
    program: Program,
    /// The program to go back to while an upgrade is not ready.
    before: Option<Program>,
    notes: &'a mut (dyn FnMut(Note) + Send),
    told: mpsc::Receiver<Told>,
    tell: mpsc::Sender<Told>,
    signals: [Signal; 2],
    /// Some server was ready.
    was_ready: bool,
    failure: Option<String>,
    deaths: u32,
    progress: u64,
    late_at: Instant,
    /// `server` is dead, and the next one could not be started yet.
    again_at: Option<Instant>,
    /// Why not.
    not_started: Option<io::Error>,
    drained_at: Option<Instant>,
    /// The mount left its place and is served for those who still use it.
    is_detached: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        mounted: Mounted,
        program: Program,
        notes: &'a mut (dyn FnMut(Note) + Send),
    ) -> Result<Self, KeeperError> {
        let patience = mounted.config.deadline;
        mounted.state.word(Word::Servers).fetch_add(1, Ordering::Relaxed);
        let started = signals().and_then(|signals| Ok((signals, Server::start(&program, &mounted, patience)?)));
        let (signals, server) = match started {
            Ok(started) => started,
            Err(error) => {
                // Nobody was told of the mount yet.
                mounted::unmount(mounted.device(), Unmount::Detach).ok();
                mounted.close();
                return Err(KeeperError::Server(error));
            }
        };
        let (tell, told) = mpsc::channel(4);
        Ok(Self {
            mounted,
            server,
            program,
            before: None,
            notes,
            told,
            tell,
            signals,
            was_ready: false,
            failure: None,
            deaths: 0,
            progress: 0,
            late_at: Instant::now() + patience,
            again_at: None,
            not_started: None,
            drained_at: None,
            is_detached: false,
        })
    }

    pub(super) async fn run(mut self) -> Result<(), KeeperError> {
        let ended = loop {
            let event = self.next().await;
            match self.handle(event) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if ended.is_err() {
            self.give_up();
        }
        self.server.kill();
        self.server.reap().ok();
        self.mounted.close();
        ended
    }

    async fn next(&mut self) -> Event {
        let [terminate, interrupt] = &mut self.signals;
        let drained_at = self.drained_at.unwrap_or(self.late_at);
        let again_at = self.again_at.unwrap_or(self.late_at);
        let is_there = self.again_at.is_none();
        let is_ready = is_there && self.server.ready_at.is_some();
        tokio::select! {
            biased;
            _ = self.server.socket.readable(), if is_there && self.server.is_connected => Event::Message,
            _ = self.server.died.readable(), if is_there => Event::Died,
            _ = terminate.recv() => Event::Signal,
            _ = interrupt.recv() => Event::Signal,
            Some(told) = self.told.recv() => Event::Told(told),
            () = tokio::time::sleep_until(self.late_at), if !is_ready => Event::ServerLate,
            () = tokio::time::sleep_until(again_at), if !is_there => Event::StartAgain,
            () = tokio::time::sleep_until(drained_at), if self.drained_at.is_some() => Event::DrainOver,
        }
    }

    /// Whether the mount is over.
    fn handle(&mut self, event: Event) -> Result<bool, KeeperError> {
        match event {
            Event::Message => self.messages()?,
            Event::Died => return self.died(),
            Event::Signal if self.is_detached => return Err(KeeperError::Drained),
            // The first one is being seen to; Ctrl-C often comes twice.
            Event::Signal if self.drained_at.is_some() => {}
            Event::Signal => self.drain(),
            Event::DrainOver => return Err(KeeperError::Drained),
            Event::ServerLate => self.late()?,
            Event::StartAgain if self.mounted.ended() => return Ok(true),
            Event::StartAgain => self.start(),
            Event::Told(Told::Answered(result)) => {
                result.map_err(KeeperError::Answer)?;
                (self.notes)(Note::Ready { config: Box::new(self.mounted.config.clone()) });
            }
            Event::Told(Told::Unmounted(result)) => {
                if let Err(error) = result {
                    (self.notes)(Note::Busy { error });
                    mounted::unmount(self.mounted.device(), Unmount::Detach).map_err(KeeperError::Unmount)?;
                    self.is_detached = true;
                }
            }
        }
        Ok(false)
    }

    fn messages(&mut self) -> Result<(), KeeperError> {
        loop {
            let received = self
                .server
                .socket
                .try_io(Interest::READABLE, |socket| message::receive::<ToKeeper>(socket.as_fd(), Wait::Never));
            match received {
                Ok(Some((message, descriptors))) => self.message(message, descriptors)?,
                Ok(None) => {
                    self.server.is_connected = false;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // It speaks another language; its successor may not.
                Err(error) => {
                    self.failure = Some(error.to_string());
                    self.server.is_connected = false;
                    self.server.kill();
                    return Ok(());
                }
            }
        }
    }

    fn message(&mut self, message: ToKeeper, descriptors: Vec<OwnedFd>) -> Result<(), KeeperError> {
        match message {
            ToKeeper::Ready => self.ready(),
            ToKeeper::Failed { sentence } => self.failure = Some(sentence),
            ToKeeper::Hold { node } => {
                if let Some(descriptor) = descriptors.into_iter().next() {
                    self.mounted.held.insert(node, descriptor);
                }
            }
            ToKeeper::Drop { node } => drop(self.mounted.held.remove(&node)),
            ToKeeper::Upgrade { binary } => self.upgrade(&binary)?,
        }
        Ok(())
    }

    fn ready(&mut self) {
        let is_first = !self.was_ready;
        self.server.ready_at = Some(Instant::now());
        self.was_ready = true;
        self.failure = None;
        self.before = None;
        if is_first {
            let target = self.mounted.config.target.clone();
            self.ask(move || Told::Answered(std::fs::metadata(&*target).map(drop)));
        }
    }

    /// Calls that a server must answer run beside this loop, which may have to start that server.
    fn ask(&self, call: impl FnOnce() -> Told + Send + 'static) {
        let tell = self.tell.clone();
        tokio::task::spawn_blocking(move || {
            // Nobody listens once the mount is over.
            tell.blocking_send(call()).ok();
        });
    }

    fn died(&mut self) -> Result<bool, KeeperError> {
        // What it said before it died counts.
        if self.server.is_connected {
            self.messages()?;
        }
        let status = self.server.reap().map_err(KeeperError::Server)?;
        if self.mounted.ended() {
            return Ok(true);
        }
        let reason = self.failure.take().unwrap_or_else(|| describe(status));
        if !self.was_ready {
            return Err(KeeperError::FirstServer(reason));
        }
        if self.server.ready_at.is_some() {
            self.late_at = Instant::now() + self.mounted.config.deadline;
        }
        if let Some(before) = self.before.take() {
            (self.notes)(Note::UpgradeFailed { reason });
            self.program = before;
            self.late_at = Instant::now() + self.mounted.config.deadline;
        } else if self.is_crash_loop(status) {
            return Err(KeeperError::CrashLoop(reason));
        } else {
            (self.notes)(Note::Died { pid: self.server.pid(), reason });
        }
        self.start();
        Ok(false)
    }

    /// A server that crashes soon counts, whatever it answered before: the request that kills it comes to the next one too. One that
    /// was killed from outside counts when it answered nothing.
    fn is_crash_loop(&mut self, status: ExitStatus) -> bool {
        let progress = self.mounted.progress();
        let answered = std::mem::replace(&mut self.progress, progress) != progress;
        let lived = self.server.ready_at.is_some_and(|ready_at| ready_at.elapsed() >= LONG_LIFE);
        if lived || (answered && status.signal() == Some(rustix::process::Signal::KILL.as_raw())) {
            self.deaths = 0;
        } else {
            self.deaths += 1;
        }
        self.deaths >= CRASH_LOOP
    }

    /// Starts a server; when that fails (no process to be had, no memory), again after a pause, until it is late.
    fn start(&mut self) {
        let started = self.mounted.state.word(Word::Servers);
        started.fetch_add(1, Ordering::Relaxed);
        match Server::start(&self.program, &self.mounted, self.mounted.config.deadline) {
            Ok(server) => {
                self.server = server;
                (self.again_at, self.not_started) = (None, None);
            }
            Err(error) => {
                started.fetch_sub(1, Ordering::Relaxed);
                self.again_at = Some(Instant::now() + PAUSE);
                if self.not_started.is_none() {
                    (self.notes)(Note::NotStarted { error: error.to_string() });
                }
                self.not_started = Some(error);
            }
        }
    }

    fn late(&mut self) -> Result<(), KeeperError> {
        let not_started = self.not_started.take();
        let Some(before) = self.before.take() else {
            let late = KeeperError::Late(self.mounted.config.deadline);
            return Err(not_started.map_or(late, KeeperError::Server));
        };
        self.late_at = Instant::now() + self.mounted.config.deadline;
        if let Some(error) = not_started {
            (self.notes)(Note::UpgradeFailed { reason: error.to_string() });
            self.program = before;
            self.start();
        } else {
            // Its death takes the old program back.
            self.before = Some(before);
            self.failure = Some("it was not ready in time".to_owned());
            self.server.kill();
        }
        Ok(())
    }

    fn upgrade(&mut self, binary: &Path) -> Result<(), KeeperError> {
        let program = match check(binary) {
            Ok(program) => program,
            Err(sentence) => {
                let refusal = ToServer::UpgradeRefused { sentence };
                // The server that asked may have died.
                message::send(self.server.socket(), &refusal, &[]).ok();
                return Ok(());
            }
        };
        self.server.kill();
        self.server.reap().map_err(KeeperError::Server)?;
        // What else it said before it was killed counts.
        if self.server.is_connected {
            self.messages()?;
        }
        self.before = Some(std::mem::replace(&mut self.program, program));
        (self.deaths, self.progress) = (0, self.mounted.progress());
        // Half of the time, so that the old program has the other half.
        self.late_at = Instant::now() + self.mounted.config.deadline / 2;
        self.start();
        Ok(())
    }

    fn drain(&mut self) {
        self.drained_at = Some(Instant::now() + self.mounted.config.drain);
        let device = self.mounted.device();
        self.ask(move || Told::Unmounted(mounted::unmount(device, Unmount::Idle)));
    }

    /// Nobody will serve any more: whoever waits is let go. The mount stays in its place, unless nobody knows of it yet.
    fn give_up(&mut self) {
        if let Err(error) = self.mounted.abort() {
            // The connection also ends with its last descriptor.
            (self.notes)(Note::AbortFailed { error });
        }
        if !self.was_ready {
            // It may never have got there.
            mounted::unmount(self.mounted.device(), Unmount::Detach).ok();
        }
    }
}

/// The program, if it can take over from this one.
fn check(binary: &Path) -> Result<Program, String> {
    let name = binary.display();
    let program = Program::open(binary).map_err(|error| format!("open {name}: {error}"))?;
    let (theirs, ours) = (program.layout().map_err(|error| format!("run {name}: {error}"))?, message::layout());
    if theirs == ours {
        Ok(program)
    } else if theirs.is_empty() {
        Err(format!("{name} is no `fsi` that can serve a mount"))
    } else {
        Err(format!("{name} cannot take over: it has the layout `{theirs}`, this mount `{ours}`"))
    }
}

fn signals() -> io::Result<[Signal; 2]> {
    Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?])
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(signal)) => format!("it was killed by signal {signal}"),
        (Some(code), None) => format!("it exited with {code}"),
        (None, None) => status.to_string(),
    }
}
