//! Servers under the keeper of the node: each is a child of ours that serves, and is started again when it ends before its mount.
//!
//! What a server needs to go on where another one was is with the keeper, so that whatever ends us, and all our children with us, is a pause
//! for the pods: the next one of us finds the same servers missing and starts them. It may be of another version: each mount goes on under
//! a program of the layout that it has, see `programs`.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fsi_agent::keeper::READY;
use fsi_agent::keeper::node::client;

use super::programs::Programs;
use super::{STARTS_WITHIN, ServerError, Unserved};

/// How long a server is waited with when the one before it lived for less than the longest pause: at first, and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often one looks whether a server that is not ours is still there.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The keeper of the node, and whom we look after.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) socket: PathBuf,
    /// How long a mount is kept without a server.
    pub(super) deadline: Duration,
    programs: Arc<Programs>,
    /// Who looks after a place now; whoever did before may not have seen the end of it yet.
    places: Arc<Mutex<HashMap<PathBuf, Tended>>>,
    /// Places where a server ended, until somebody asks.
    ended: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A mount that we look after.
#[derive(Clone, Debug, Default)]
struct Tended(Arc<Mutex<Known>>);

/// What is known of it.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Whether the keeper has told of it.
    is_told: bool,
    /// Nothing until then.
    layout: Option<String>,
    /// Why no server could be started, when it was tried last.
    failure: Option<String>,
}

impl Tended {
    fn note(&self, layout: &str, failure: Option<String>) {
        // A keeper of an earlier version does not tell.
        let layout = Some(layout.to_owned()).filter(|layout| !layout.is_empty());
        *self.known() = Known { is_told: true, layout, failure };
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one server is started.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) run_dir: PathBuf,
    pub(super) id: String,
    pub(super) source: PathBuf,
    pub(super) place: PathBuf,
    pub(super) called: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) rules: PathBuf,
    pub(super) log: PathBuf,
}

/// What a server is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// A mount that the keeper does not have.
    New,
    /// A mount that the keeper had: the volume may be unstaged meanwhile, and is not to be mounted anew then.
    TakeOver,
}

/// How a mount is, as the keeper has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Served {
        layout: String,
    },
    Waits {
        layout: String,
    },
    /// It is over, or was given up.
    Unknown,
    /// The keeper does not answer.
    Away,
}

impl Kept {
    pub(super) fn new(socket: PathBuf, deadline: Duration, programs: Programs) -> Self {
        Self { socket, deadline, programs: Arc::new(programs), places: Arc::default(), ended: Arc::default() }
    }

    /// Has a server show what the recipe says; returns when it answers. From then on it is looked after.
    pub(super) fn start(&self, recipe: Recipe) -> Result<(), ServerError> {
        // When the keeper is away, the server says so.
        let child = self.spawn(&recipe, self.programs.own(), Start::New)?;
        let mount = Tended::default();
        mount.note(self.programs.layout().unwrap_or_default(), None);
        self.look_after(recipe, mount, Some(child));
        Ok(())
    }

    /// Looks after a mount that was there before us, whoever serves it.
    pub(super) fn adopt(&self, recipe: Recipe) {
        self.look_after(recipe, Tended::default(), None);
    }

    pub(super) fn take_ended(&self) -> Vec<PathBuf> {
        self.ended().drain().collect()
    }

    fn ended(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unserved(&self) -> HashMap<PathBuf, Unserved> {
        let why = |mount: &Tended| mount.known().failure.clone();
        let unserved = |why| Unserved { why, deadline: self.deadline };
        self.places().iter().filter_map(|(place, mount)| Some((place.clone(), unserved(why(mount)?)))).collect()
    }

    pub(super) fn pending(&self) -> usize {
        let is_pending = |mount: &&Tended| {
            let known = mount.known();
            !known.is_told || known.failure.is_some()
        };
        self.places().values().filter(is_pending).count()
    }

    pub(super) fn tidy(&self, noted: Option<&[&Path]>) -> usize {
        let places = self.places();
        let layout = |place: &&Path| places.get(*place)?.known().layout.clone();
        let needed: Option<HashSet<_>> = noted.and_then(|noted| noted.iter().map(layout).collect());
        drop(places);
        match needed {
            Some(needed) => self.programs.tidy(&needed),
            // A mount of which the layout is not known may need any of them.
            None => self.programs.count(),
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<PathBuf, Tended>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after(&self, recipe: Recipe, mount: Tended, child: Option<Child>) {
        self.places().insert(recipe.place.clone(), mount.clone());
        let (kept, place, tended) = (self.clone(), recipe.place.clone(), mount.clone());
        let looking = thread::Builder::new().name("fsi-server".to_owned()).spawn(move || {
            kept.keep_up(&recipe, &tended, child);
            kept.leave(&recipe.place, &tended);
        });
        if let Err(error) = looking {
            tracing::error!(%error, place = %place.display(), "nobody starts another server when this one ends");
            self.leave(&place, &mount);
        }
    }

    fn leave(&self, place: &Path, mount: &Tended) {
        let mut places = self.places();
        if is_tended(&places, place, mount) {
            places.remove(place);
        }
    }

    /// Has a server there until the mount is over.
    fn keep_up(&self, recipe: &Recipe, mount: &Tended, mut child: Option<Child>) {
        let mut pause = PAUSE;
        let mut started = Instant::now();
        loop {
            if let Some(mut child) = child.take() {
                match child.wait() {
                    Ok(status) if status.success() => return,
                    Ok(status) => tracing::warn!(place = %recipe.place.display(), %status, "a server ended"),
                    Err(error) => {
                        tracing::error!(place = %recipe.place.display(), %error, "a server cannot be waited for")
                    }
                }
            }
            match self.state(&recipe.id) {
                State::Unknown => return,
                State::Away => thread::sleep(LOOK_EVERY),
                State::Served { layout } => {
                    mount.note(&layout, None);
                    thread::sleep(LOOK_EVERY);
                }
                State::Waits { layout } => {
                    // What was at the place before, and is in use still, is nobody's news.
                    if is_tended(&self.places(), &recipe.place, mount) {
                        self.ended().insert(recipe.place.clone());
                    }
                    match started.elapsed() >= LONGEST_PAUSE {
                        true => pause = PAUSE,
                        false => {
                            thread::sleep(pause);
                            pause = LONGEST_PAUSE.min(pause * 2);
                        }
                    }
                    started = Instant::now();
                    let taken =
                        self.programs.of(&layout).and_then(|program| self.spawn(recipe, &program, Start::TakeOver));
                    let failure = taken.as_ref().err().map(ToString::to_string);
                    if let Some(error) = &failure {
                        tracing::error!(place = %recipe.place.display(), error, "no server takes over; it is tried again");
                    }
                    mount.note(&layout, failure);
                    child = taken.ok();
                }
            }
        }
    }

    fn state(&self, id: &str) -> State {
        match client::ask(&self.socket, id) {
            Ok(Some(kept)) if kept.waits.is_some() => State::Waits { layout: kept.layout },
            Ok(Some(served)) => State::Served { layout: served.layout },
            Ok(None) => State::Unknown,
            Err(_away) => State::Away,
        }
    }

    /// A server that answers. The program may be of any version, so that what is asked of one that takes over never changes.
    fn spawn(&self, recipe: &Recipe, program: &Path, start: Start) -> Result<Child, ServerError> {
        let Recipe { run_dir, id, source, place, called, namespace, rules, log } = recipe;
        let failed = |error| ServerError::Program { program: program.to_owned(), error };
        let mut command = Command::new(program);
        command.arg("mount").arg("--keeper").arg(&self.socket).arg("--id").arg(id);
        command.arg("--deadline").arg(format!("{}ms", self.deadline.as_millis()));
        if start == Start::TakeOver {
            command.arg("--take-over");
        }
        command.args(called.iter().flat_map(|name| ["--volume", name]));
        // A program of another version takes over all the same, and may not know this option; what is taken over has its name.
        if start == Start::New {
            command.args(namespace.iter().flat_map(|name| ["--namespace", name]));
        }
        command.arg("--rules").arg(rules).args([source, place]).current_dir("/").env("FSI_RUN_DIR", run_dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let said = match listen(&mut child, log) {
            Ok(said) => said,
            Err(error) => {
                // Nobody would look after it.
                end(&mut child).map_err(failed)?;
                return Err(ServerError::Write { path: log.clone(), error });
            }
        };
        match said.recv_timeout(STARTS_WITHIN) {
            Ok(Said::Ready) => Ok(child),
            Ok(Said::Ended(sentence)) => {
                let status = child.wait().map_err(failed)?;
                Err(ServerError::Refused(if sentence.is_empty() { status.to_string() } else { sentence }))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                end(&mut child).map_err(failed)?;
                Err(ServerError::Late)
            }
        }
    }
}

fn is_tended(places: &HashMap<PathBuf, Tended>, place: &Path, mount: &Tended) -> bool {
    places.get(place).is_some_and(|tended| Arc::ptr_eq(&tended.0, &mount.0))
}

enum Said {
    Ready,
    /// With its last words.
    Ended(String),
}

fn end(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// Waits for the word of a server on one thread, and copies what it says to its log on another.
fn listen(child: &mut Child, log: &Path) -> io::Result<Receiver<Said>> {
    let (say, said) = sync_channel(2);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut log = File::options().append(true).create(true).open(log)?;
    let ends = say.clone();
    thread::Builder::new().name("fsi-server-log".to_owned()).spawn(move || {
        let (mut stderr, mut bytes, mut last) = (BufReader::new(stderr), Vec::new(), String::new());
        while stderr.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            // Names of files are any bytes.
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches('\n');
            // A log that takes nothing more holds up nobody.
            writeln!(log, "{line}").ok();
            if let Some(sentence) = line.strip_prefix("fsi: ") {
                sentence.clone_into(&mut last);
            }
            bytes.clear();
        }
        // Nobody listens any more once it was ready.
        ends.try_send(Said::Ended(last)).ok();
    })?;
    thread::Builder::new().name("fsi-server-ready".to_owned()).spawn(move || {
        let mut line = String::new();
        if BufReader::new(stdout).read_line(&mut line).is_ok() && line.trim() == READY {
            say.try_send(Said::Ready).ok();
        }
    })?;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_after_bytes_that_are_no_text() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut shell = Command::new("sh");
        shell.args(["-c", r"printf 'a\377b\nfsi: no \376 more\n' >&2"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let said = listen(&mut child, &log).unwrap().recv_timeout(STARTS_WITHIN).unwrap();
        let Said::Ended(sentence) = said else { panic!("it never was ready") };
        assert_eq!(sentence, "no \u{fffd} more");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "a\u{fffd}b\nfsi: no \u{fffd} more\n");
        child.wait().unwrap();
    }

    #[test]
    fn a_server_that_nobody_can_look_after_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let programs = Programs::new(PathBuf::from("/bin/echo"), directory.path().join("programs"));
        let kept = Kept::new(directory.path().join("socket"), Duration::ZERO, programs);
        let program = directory.path().join("program");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let place = directory.path().join("place");
        let recipe = Recipe {
            run_dir: directory.path().to_owned(),
            id: "id".to_owned(),
            source: place.clone(),
            place: place.clone(),
            called: None,
            namespace: None,
            rules: place,
            // A directory is no log.
            log: directory.path().to_owned(),
        };
        let error = kept.spawn(&recipe, &program, Start::New).unwrap_err();
        assert!(matches!(error, ServerError::Write { .. }), "{error}");
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(children, "", "no child is left");
    }
}
