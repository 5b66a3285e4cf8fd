//! Interposers: how one is started, given other rules, looked at, and how one sees that it is over. Nothing else knows how a server runs.
//!
//! Without a keeper of the node one is started by `fsi mount`, which returns when the mount answers and leaves a keeper and a server that
//! outlive us. With one, servers are children of ours: see `kept`.

mod kept;
mod programs;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use fsi_agent::control::client::{Client, ClientError};
use fsi_agent::control::target;
use fsi_agent::sys::mount::{Device, Mount};
use rustix::process::WaitOptions;
use thiserror::Error;

use self::kept::{Kept, Recipe};
use self::programs::Programs;
use crate::durable;
use crate::records::Record;
use crate::volume_id;

/// The time that a mount gets to answer.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// The time that the control service of a mount gets to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The time that a keeper gets to put away what it had.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// After this time a start has mounted, or never will.
const LEFT_AFTER: Duration = STARTS_WITHIN.saturating_mul(3);
const POLL: Duration = Duration::from_millis(2);

/// Why an interposer does not do what it should.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("run {}: {error}", program.display())]
    Program { program: PathBuf, error: io::Error },
    #[error("write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("the interposer did not start: {0}")]
    Refused(String),
    #[error(
        "it has the layout `{layout}`, of which no program is kept in {}; the version that it was started by can serve it",
        folder.display()
    )]
    NoProgram { layout: String, folder: PathBuf },
    #[error("the interposer did not answer within {STARTS_WITHIN:?}; it is tried again")]
    Late,
    #[error("the interposer at {}: {error}", place.display())]
    Control { place: PathBuf, error: ClientError },
}

impl ServerError {
    /// Whether it may come yet.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        matches!(self, Self::Late)
    }
}

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Servers that the mount has had, this one included.
    pub servers: u64,
}

/// What a server shows.
#[derive(Clone, Copy, Debug)]
pub struct Shows<'a> {
    /// Whose files.
    pub source: &'a Path,
    pub place: &'a Path,
    /// What spans and metrics call it.
    pub called: Option<&'a str>,
    /// The namespace that they say it is in.
    pub namespace: Option<&'a str>,
    /// Which of the mounts that were at the place it is.
    pub number: Option<u64>,
}

impl<'a> Shows<'a> {
    /// As it was noted.
    #[must_use]
    pub fn of_record(record: &'a Record) -> Self {
        let Record { data, place, called, namespace, number, .. } = record;
        Self { source: data, place, called: called.as_deref(), namespace: namespace.as_deref(), number: *number }
    }
}

/// Why a mount has no server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    pub why: String,
    /// How long it is kept without one.
    pub deadline: Duration,
}

/// All interposers of this node.
#[derive(Clone, Debug)]
pub struct Servers {
    program: PathBuf,
    run_dir: PathBuf,
    kept: Option<Kept>,
    /// Read while somebody waits for a child, written while the children of others are reaped.
    children: Arc<RwLock<()>>,
}

impl Servers {
    /// Those that are started by `program`, with sockets and files in `run_dir`.
    #[must_use]
    pub fn new(program: PathBuf, run_dir: PathBuf) -> Self {
        Self { program, run_dir, kept: None, children: Arc::default() }
    }

    /// With the keeper of the node, which keeps a mount without a server for so long. In `programs` versions of the driver leave one another
    /// the programs of their servers.
    #[must_use]
    pub fn kept_by(self, keeper: Option<PathBuf>, deadline: Duration, programs: PathBuf) -> Self {
        let kept = keeper.map(|socket| Kept::new(socket, deadline, Programs::new(self.program.clone(), programs)));
        Self { kept, ..self }
    }

    /// Looks after a server that was started before us.
    pub fn adopt(&self, shows: &Shows<'_>) {
        if let Some(kept) = &self.kept {
            kept.adopt(self.recipe(shows));
        }
    }

    /// Where servers ended since this was asked last and we had to start another; by count of servers only who saw the one before can tell.
    #[must_use]
    pub fn take_ended(&self) -> Vec<PathBuf> {
        self.kept.as_ref().map_or_else(Vec::new, Kept::take_ended)
    }

    fn recipe(&self, shows: &Shows<'_>) -> Recipe {
        let Shows { source, place, called, namespace, number } = *shows;
        // A mount that was at the place before may be in use still, and be kept.
        let number = number.map_or_else(String::new, |number| format!("#{number}"));
        Recipe {
            run_dir: self.run_dir.clone(),
            id: format!("{}{number}", place.display()),
            source: source.to_owned(),
            place: place.to_owned(),
            called: called.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
            rules: self.rules_file(place),
            log: self.log_file(place),
        }
    }

    /// Has a server show it under these rules; returns when it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&self, shows: &Shows<'_>, rules: &str) -> Result<(), ServerError> {
        let Shows { source, place, called, namespace, number: _ } = *shows;
        let rules_file = self.rules_file(place);
        write(&rules_file, rules)?;
        if let Some(kept) = &self.kept {
            return kept.start(self.recipe(shows));
        }
        let mut command = Command::new(&self.program);
        command
            .arg("mount")
            .arg("--rules")
            .arg(&rules_file)
            .arg("--log")
            .arg(self.log_file(place))
            .args(called.into_iter().flat_map(|name| ["--volume", name]))
            .args(namespace.into_iter().flat_map(|name| ["--namespace", name]))
            .args([source, place])
            .current_dir("/")
            .env("FSI_RUN_DIR", &self.run_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let failed = |error| ServerError::Program { program: self.program.clone(), error };
        let _is_ours = self.children.read().unwrap_or_else(PoisonError::into_inner);
        let mut child = command.spawn().map_err(failed)?;
        let Some(status) = wait(&mut child, STARTS_WITHIN).map_err(failed)? else {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(ServerError::Late);
        };
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said).map_err(failed)?;
        }
        let sentence = said.trim().trim_start_matches("fsi: ").replace('\n', "; ");
        Err(ServerError::Refused(if sentence.is_empty() { status.to_string() } else { sentence }))
    }

    /// Puts other rules in force at a mount, made of those that are; none changes nothing.
    ///
    /// # Errors
    /// When they are refused, or nobody answers.
    pub fn change_rules(&self, mount: &Mount, change: impl FnOnce(&str) -> Option<String>) -> Result<(), ServerError> {
        let control = |error| ServerError::Control { place: mount.point.clone(), error };
        let mut client = Client::connect(&self.socket(mount.device), ANSWERS_WITHIN).map_err(control)?;
        match change(&client.show().map_err(control)?.rules_text) {
            Some(rules) => client.set(rules).map(drop).map_err(control),
            None => Ok(()),
        }
    }

    /// Looks at the server of a mount; none when nobody answers.
    #[must_use]
    pub fn look(&self, mount: &Mount) -> Option<Seen> {
        let mut client = Client::connect(&self.socket(mount.device), ANSWERS_WITHIN).ok()?;
        Some(Seen { servers: client.show().ok()?.servers })
    }

    /// After a mount was taken away: waits until its keeper has put everything away, and forgets it.
    pub fn ended(&self, mount: &Mount) {
        let socket = self.socket(mount.device);
        let deadline = Instant::now() + ENDS_WITHIN;
        // A keeper that was killed leaves its socket, at which nobody listens.
        while std::os::unix::net::UnixStream::connect(&socket).is_ok() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        for file in [self.rules_file(&mount.point), self.log_file(&mount.point)] {
            // They may have been forgotten before.
            fs::remove_file(file).ok();
        }
    }

    /// Mounts that wait because no server could be started for them, and why.
    #[must_use]
    pub fn unserved(&self) -> HashMap<PathBuf, Unserved> {
        self.kept.as_ref().map(Kept::unserved).unwrap_or_default()
    }

    /// How many mounts were there before us of which nobody has been seen to serve them yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.kept.as_ref().map_or(0, Kept::pending)
    }

    /// Removes programs that none of the interposers at these places needs, where all are known. How many are kept for the versions that follow.
    pub fn tidy(&self, places: Option<&[&Path]>) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.tidy(places))
    }

    /// Takes note of keepers that ended. The first process of a container inherits them, and they would stay as zombies.
    pub fn reap(&self) {
        if self.kept.is_some() {
            // There are none, and each server has somebody who waits for it.
            return;
        }
        if let Ok(_nobody_waits) = self.children.try_write() {
            while let Ok(Some(_ended)) = rustix::process::wait(WaitOptions::NOHANG) {}
        }
    }

    /// Whether a server was started at this place and not ended.
    #[must_use]
    pub fn has_started(&self, place: &Path) -> bool {
        self.rules_file(place).exists()
    }

    /// Forgets starts that came to nothing, killed with us before they mounted: all but those at these places.
    ///
    /// # Errors
    /// When they cannot be looked at, or removed.
    pub fn forget_left<'a>(&self, places: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let known: HashSet<_> = places.map(|place| volume_id::hex(place.as_os_str().as_encoded_bytes())).collect();
        let entries = match fs::read_dir(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_known = path.file_stem().and_then(|name| name.to_str()).is_some_and(|name| known.contains(name));
            // One that goes on without us mounts within that time, and is known then.
            if !is_known && durable::is_older(&path, LEFT_AFTER) {
                durable::remove(&path)?;
            }
        }
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.run_dir.join("csi/servers")
    }

    fn socket(&self, device: Device) -> PathBuf {
        target::socket_in(&self.run_dir, device)
    }

    fn rules_file(&self, place: &Path) -> PathBuf {
        self.file(place, "yaml")
    }

    fn log_file(&self, place: &Path) -> PathBuf {
        self.file(place, "log")
    }

    fn file(&self, place: &Path, extension: &str) -> PathBuf {
        let name = volume_id::hex(place.as_os_str().as_encoded_bytes());
        self.folder().join(format!("{name}.{extension}"))
    }
}

fn write(path: &Path, text: &str) -> Result<(), ServerError> {
    durable::write(path, text.as_bytes()).map_err(|error| ServerError::Write { path: path.to_owned(), error })
}

/// Waits for a child; none when it goes on for longer.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}
