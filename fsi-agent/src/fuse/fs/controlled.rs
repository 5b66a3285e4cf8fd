//! What `fsi ctl` asks of a mount.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::bytes::both;
use super::{About, Interposer};
use crate::clock;
use crate::fuse::capacity;
use crate::fuse::control::{ControlError, Controlled, FaultPage, PowerCut, SetOutcome, Status};
use crate::fuse::durability::{Durability, TakenBack};
use crate::fuse::gate::Since;
use crate::fuse::keeper_link::Keeper;
use crate::fuse::open_files::Kind;
use crate::fuse::state::rules_text::MAX_RULES_BYTES;
use crate::fuse::state::{State, Word};
use crate::fuse::volume::Volume;
use crate::rules::decision::{Effect, Fault, FaultEntry, FaultKind};
use crate::rules::engine::{Decider, Engine};
use crate::rules::op::Op;
use crate::rules::parse;
use crate::rules::replay::Replay;

impl Interposer {
    /// Arms rules that were written down before: by `fsi mount`, or by a server before this one.
    ///
    /// # Errors
    /// When they have a mistake, or cannot be in force here.
    pub fn arm_kept(&self, text: &str) -> Result<SetOutcome, ControlError> {
        // The first server starts the clock of the rules; a successor goes on.
        let armed_at = self.state.word(Word::ArmedAt);
        let is_first = armed_at.compare_exchange(0, clock::monotonic_ns(), Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.arm_text(text, if is_first { Since::Now } else { Since::Before })
    }

    fn arm_text(&self, text: &str, since: Since) -> Result<SetOutcome, ControlError> {
        let set = match text.trim().is_empty() {
            true => None,
            false => Some(parse::parse(text).map_err(|problems| ControlError::Invalid(problems.to_string()))?),
        };
        let volume = match &set {
            Some(set) => Volume::build(set, since, &self.stores, &self.armed().volume)?,
            None => Volume::default(),
        };
        let rules = set.as_ref().map_or(0, |set| set.rules.len() as u64);
        let decider = set.map(|set| Arc::new(Engine::arm(set, Arc::<State>::clone(&self.state))) as Arc<dyn Decider>);
        self.arm(decider, volume);
        Ok(SetOutcome { rules, out_of_reach: self.out_of_reach() })
    }

    /// Injects the faults of a log again, and no others.
    ///
    /// # Errors
    /// When what the keeper holds cannot be read.
    pub fn arm_replay(&self, log: &[FaultEntry]) -> io::Result<()> {
        let replay = Replay::arm(log, Arc::<State>::clone(&self.state));
        let durability = Durability::open(self.stores.undo.try_clone()?)?;
        let volume = Volume { durability: Some(Arc::new(durability)), ..Volume::default() };
        self.arm(Some(Arc::new(replay)), volume);
        Ok(())
    }

    fn log_power_cut(&self, bytes: u64) {
        let fault = Fault { rule: "power-cut".into(), kind: FaultKind::PowerCut, errno: None, delay: Duration::ZERO };
        self.log().push(FaultEntry {
            sequence: self.state.word(Word::Faults).fetch_add(1, Ordering::AcqRel) + 1,
            unix_ns: self.clock.unix_ns(clock::monotonic_ns()),
            fault,
            // No operation brings it about; it is as if all writes since the last sync had not been.
            op: Op::Write,
            path: Arc::from([]),
            ordinal: self.state.word(Word::Era).load(Ordering::Acquire),
            ino: 0,
            pid: 0,
            uid: 0,
            offset: 0,
            asked: bytes,
            done: bytes,
            effect: Effect::Done,
        });
    }

    /// Open files that a rule wants to see and that the kernel reads and writes itself.
    fn out_of_reach(&self) -> u64 {
        let open = self.open_files.all();
        open.iter().filter(|open| open.kind == Kind::Passthrough && self.is_watched(open.node)).count() as u64
    }
}

impl Controlled for Arc<Interposer> {
    fn status(&self) -> Status {
        let About { source, target, device, keeper_pid } = &self.about;
        let open = self.open_files.all();
        let count = |word| self.state.word(word).load(Ordering::Acquire);
        let armed = self.armed();
        let volume = &armed.volume;
        let memory = volume.fake.as_ref().and_then(|fake| fake.memory()).map(|memory| (memory.limit(), memory.used()));
        Status {
            source: source.clone(),
            target: target.clone(),
            device: device.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rules_text: String::from_utf8_lossy(&self.state.rules_text()).into_owned(),
            paused: count(Word::Paused) != 0,
            passthrough: self.device.passthrough(),
            servers: count(Word::Servers),
            server_pid: std::process::id(),
            keeper_pid: *keeper_pid,
            nodes: self.nodes.len() as u64,
            open_files: open.iter().filter(|open| open.kind != Kind::Directory).count() as u64,
            open_passthrough: open.iter().filter(|open| open.kind == Kind::Passthrough).count() as u64,
            waiting: self.hold.len() as u64,
            requests: count(Word::Progress),
            faults_injected: count(Word::Faults),
            capacity: memory.or_else(|| volume.capacity.as_ref().map(|capacity| (capacity.limit(), count(Word::Used)))),
            unsynced_bytes: volume.durability.as_ref().map_or(0, |durability| durability.unsynced_bytes()),
            undelayed: self.undelayed(),
            unlogged: self.unlogged(),
        }
    }

    fn set(&self, text: &str) -> Result<SetOutcome, ControlError> {
        let _one_at_a_time = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() > MAX_RULES_BYTES {
            return Err(ControlError::Invalid(format!(
                "the rules have {} bytes, at most {MAX_RULES_BYTES} fit",
                text.len()
            )));
        }
        let outcome = self.arm_text(text, Since::Now)?;
        self.state.word(Word::ArmedAt).store(clock::monotonic_ns(), Ordering::Release);
        self.state.set_rules_text(text.as_bytes()).map_err(|error| ControlError::Failed(error.to_string()))?;
        Ok(outcome)
    }

    fn pause(&self) {
        self.state.word(Word::Paused).store(1, Ordering::Release);
    }

    fn resume(&self) {
        self.state.word(Word::Paused).store(0, Ordering::Release);
    }

    fn clear(&self) -> Result<(), ControlError> {
        self.set("").map(|_none| ())
    }

    fn faults(&self, after: u64, limit: usize) -> FaultPage {
        self.log().page(after, limit)
    }

    fn power_cut(&self) -> Result<PowerCut, ControlError> {
        let armed = self.armed();
        let Some(durability) = &armed.volume.durability else {
            let sentence =
                "no rule with `lose_until_fsync`, `fail_fsync` or `lie_fsync` is in force, so nothing would be lost";
            return Err(ControlError::Unavailable(sentence.to_owned()));
        };
        let mut handles = 0;
        let cut = || {
            self.state.word(Word::Era).fetch_add(1, Ordering::AcqRel);
            let all = self.open_files.all();
            handles = all.iter().filter(|open| matches!(open.kind, Kind::Direct | Kind::DirectBacked)).count() as u64;
        };
        let open = |number| both(self, number).ok().map(File::from);
        let TakenBack { nodes, bytes, outcome } = durability.power_cut(cut, open);
        if armed.volume.capacity.is_some() {
            // Files were cut and filled again without being asked one by one.
            let counted = capacity::count(self.stores.source.as_fd(), Duration::MAX);
            let counted =
                counted.map_err(|error| ControlError::Failed(format!("count what the volume takes: {error}")))?;
            counted.into_iter().for_each(|used| self.used().store(used, Ordering::Release));
        }
        let files = nodes.len() as u64;
        self.log_power_cut(bytes);
        self.device().forget_cached(nodes);
        outcome.map_err(|error| ControlError::Failed(format!("a file could not be put back: {error}")))?;
        Ok(PowerCut { files, bytes, handles })
    }

    fn upgrade(&self, binary: Option<PathBuf>) -> Result<(), ControlError> {
        let binary = match binary {
            Some(binary) => binary,
            None => {
                std::env::current_exe().map_err(|error| ControlError::Failed(format!("find the binary: {error}")))?
            }
        };
        // Returns only when nothing came of it.
        Err(ControlError::Invalid(Keeper::upgrade(&*self.keeper, &binary).to_string()))
    }
}
