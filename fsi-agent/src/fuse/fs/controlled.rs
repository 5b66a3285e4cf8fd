//! What `fsi ctl` asks of a mount.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{About, Interposer};
use crate::clock;
use crate::fuse::control::{ControlError, Controlled, FaultPage, PowerCut, SetOutcome, Status};
use crate::fuse::keeper_link::Keeper;
use crate::fuse::open_files::Kind;
use crate::fuse::state::{State, Word};
use crate::rules::engine::Engine;
use crate::rules::model::RuleSet;
use crate::rules::op::Op;
use crate::rules::parse;
use crate::rules::replay::Replay;
use crate::rules::replay::line::{self, LineError};

impl Interposer {
    /// Arms rules that were written down before: by `fsi mount`, or by a server before this one.
    ///
    /// # Errors
    /// When they have a mistake.
    pub fn arm_text(self: &Arc<Self>, text: &str) -> Result<SetOutcome, ControlError> {
        if text.trim().is_empty() {
            self.arm(None);
            return Ok(SetOutcome::default());
        }
        let set = parse::parse(text).map_err(|problems| ControlError::Invalid(problems.to_string()))?;
        if let Some(sentence) = not_yet(&set) {
            return Err(ControlError::Unavailable(sentence.to_owned()));
        }
        // The first server arms the clock of the rules too; a successor goes on.
        let armed_at = self.state.word(Word::ArmedAt);
        armed_at.compare_exchange(0, clock::monotonic_ns(), Ordering::AcqRel, Ordering::Acquire).ok();
        let rules = set.rules.len() as u64;
        self.arm(Some(Arc::new(Engine::arm(set, Arc::<State>::clone(&self.state)))));
        Ok(SetOutcome { rules, out_of_reach: self.out_of_reach() })
    }

    /// Injects the faults of a log again, and no others.
    ///
    /// # Errors
    /// When the log has a line that is none.
    pub fn arm_replay(&self, log: &str) -> Result<(), LineError> {
        let entries = line::read_all(log)?;
        self.arm(Some(Arc::new(Replay::arm(&entries, Arc::<State>::clone(&self.state)))));
        Ok(())
    }

    /// Open files that a rule wants to see and that the kernel reads and writes itself.
    fn out_of_reach(&self) -> u64 {
        let data = [Op::Read, Op::Write].into_iter().collect();
        let hidden = |node: u64| self.concern(|| self.nodes.path(node)).intersects(data);
        let open = self.open_files.all();
        open.iter().filter(|open| open.kind == Kind::Passthrough && hidden(open.node)).count() as u64
    }
}

/// What a set of rules asks for and this version cannot do to a mount.
fn not_yet(set: &RuleSet) -> Option<&'static str> {
    use crate::rules::model::{Fake, Injection};
    if !set.throttle.is_empty() {
        return Some("`throttle` is not in force on mounts yet; take it out of the rules");
    }
    if set.capacity.is_some() {
        return Some("`capacity` is not in force on mounts yet; take it out of the rules");
    }
    if set.fake != Fake::None {
        return Some("`fake` is not in force on mounts yet; take it out of the rules");
    }
    if set.profile.is_some() {
        return Some("`profile` is not in force on mounts yet; take it out of the rules");
    }
    let loses = |rule: &crate::rules::model::Rule| matches!(rule.action.effect, Some(Injection::LoseUntilFsync));
    set.rules.iter().any(loses).then_some("`lose_until_fsync` is not in force on mounts yet; take the rule out")
}

impl Controlled for Arc<Interposer> {
    fn status(&self) -> Status {
        let About { source, target, device, keeper_pid } = &self.about;
        let open = self.open_files.all();
        let count = |word| self.state.word(word).load(Ordering::Acquire);
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
            capacity: None,
            unsynced_bytes: 0,
        }
    }

    fn set(&self, text: &str) -> Result<SetOutcome, ControlError> {
        let outcome = self.arm_text(text)?;
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
        let sentence = "no rule with `lose_until_fsync` is in force, so nothing would be lost";
        Err(ControlError::Unavailable(sentence.to_owned()))
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
