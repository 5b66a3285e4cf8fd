//! What holds for all files of a mount: throttles, capacity, fakes, and what is lost unless it was synced. Made from one set of
//! rules; what must outlive a change of rules or of servers is taken over from what was there before.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::capacity::{self, Capacity, WhenFull};
use super::control::ControlError;
use super::durability::Durability;
use super::fake::{Memory, Sizes};
use super::gate::{Gate, Since};
use super::hold::Hold;
use super::state::{State, Word};
use super::under_way;
use crate::rules::model::{self, RuleSet};
use crate::throttle::Direction;

/// What `fake: memory` may take where no capacity is set.
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;
/// Longest time a successor counts what a volume takes; past it, it goes on with what its predecessor knew.
const RECOUNT: Duration = Duration::from_millis(500);

/// What a volume is made with; the keeper holds the files.
#[derive(Debug)]
pub(super) struct Stores {
    pub(super) state: Arc<State>,
    pub(super) hold: Hold,
    pub(super) source: OwnedFd,
    pub(super) undo: OwnedFd,
    pub(super) memory: OwnedFd,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Volume {
    pub(super) gate: Option<Gate>,
    pub(super) capacity: Option<Capacity>,
    pub(super) fake: Option<Fake>,
    pub(super) durability: Option<Arc<Durability>>,
}

/// Files whose bytes are not kept below.
#[derive(Clone, Debug)]
pub(super) enum Fake {
    Null(Arc<Sizes>),
    Pattern(Arc<Sizes>),
    Memory(Arc<Sizes>, Arc<Mutex<Memory>>),
}

impl Fake {
    pub(super) fn sizes(&self) -> &Sizes {
        match self {
            Self::Null(sizes) | Self::Pattern(sizes) | Self::Memory(sizes, _) => sizes,
        }
    }

    pub(super) fn memory(&self) -> Option<MutexGuard<'_, Memory>> {
        match self {
            // A table that is whole after every call.
            Self::Memory(_, memory) => Some(memory.lock().unwrap_or_else(PoisonError::into_inner)),
            Self::Null(_) | Self::Pattern(_) => None,
        }
    }
}

impl Volume {
    /// What a set of rules asks for; `before` is what is in force now.
    ///
    /// # Errors
    /// When the volume cannot be counted, or what the keeper holds cannot be read. Nothing is changed then.
    pub(super) fn build(set: &RuleSet, since: Since, stores: &Stores, before: &Self) -> Result<Self, ControlError> {
        let failed = |what: &str, error: std::io::Error| ControlError::Failed(format!("{what}: {error}"));
        let clone = |file: &OwnedFd| file.try_clone().map_err(|error| failed("duplicate a descriptor", error));
        let fake = match (set.fake, &before.fake) {
            (model::Fake::None, _) => None,
            (model::Fake::Null, _) => Some(Fake::Null(Arc::default())),
            (model::Fake::Pattern, _) => Some(Fake::Pattern(Arc::default())),
            (model::Fake::Memory, kept) => {
                let limit = set.capacity.map_or(DEFAULT_MEMORY_BYTES, |capacity| capacity.bytes);
                if let Some(fake @ Fake::Memory(..)) = kept {
                    fake.memory().into_iter().for_each(|mut memory| memory.set_limit(limit));
                    Some(fake.clone())
                } else {
                    let memory = Memory::open(clone(&stores.memory)?, limit);
                    let memory = memory.map_err(|error| failed("read the memory of fakes", error))?;
                    Some(Fake::Memory(Arc::default(), Arc::new(Mutex::new(memory))))
                }
            }
        };
        let durability = match (set.loses_unsynced(), &before.durability) {
            (false, _) => None,
            (true, Some(kept)) => Some(Arc::clone(kept)),
            (true, None) => {
                let kept = Durability::open(clone(&stores.undo)?);
                Some(Arc::new(kept.map_err(|error| failed("read what a power cut would take back", error))?))
            }
        };
        let capacity = match set.capacity {
            Some(capacity) if fake.is_none() => {
                count(since, stores).map_err(|error| failed("count what the volume takes", error))?;
                let when_full = if capacity.errno == libc::EDQUOT { WhenFull::Quota } else { WhenFull::NoSpace };
                Some(Capacity::new(capacity.bytes, when_full))
            }
            // Only memory is taken, and it has its own bound.
            Some(_) | None => None,
        };
        let limits: Vec<_> =
            set.throttle.iter().chain(set.profile.iter().flat_map(|profile| &profile.throttle)).cloned().collect();
        let gate = || Gate::new(&limits, since, Arc::clone(&stores.state), stores.hold.clone());
        let gate = (!limits.is_empty()).then(gate).transpose();
        let gate = gate.map_err(|error| failed("share the buckets of pods", error))?;
        Ok(Self { gate, capacity, fake, durability })
    }

    /// After another volume took this one's place: what nobody has a use for any more goes.
    pub(super) fn replaced_by(&self, next: &Self, stores: &Stores) {
        if let Some(gate) = &self.gate {
            gate.open();
        }
        if next.capacity.is_none() {
            stores.state.word(Word::UsedCounted).store(0, Ordering::Release);
        }
        if let (Some(durability), None) = (&self.durability, &next.durability) {
            durability.forget();
        }
        if let (Some(Fake::Memory(..)), None | Some(Fake::Null(_) | Fake::Pattern(_))) = (&self.fake, &next.fake)
            && let Err(error) = Memory::forget(&stores.memory)
        {
            tracing::warn!(%error, "memory of a fake is kept until the mount ends");
        }
    }

    /// Whether reads and writes of every file have to come here.
    pub(super) const fn sees_data(&self) -> bool {
        self.gate.is_some() || self.capacity.is_some() || self.fake.is_some()
    }

    /// Operations that passed a throttle without tokens.
    pub(super) fn overflowed(&self) -> u64 {
        self.gate.as_ref().map_or(0, Gate::overflowed)
    }

    /// The throttle, where it limits that direction.
    pub(super) fn gate(&self, direction: Option<Direction>) -> Option<&Gate> {
        let direction = direction?;
        self.gate.as_ref().filter(|gate| gate.limits(direction))
    }
}

/// Counts what the files of the volume take, unless that is known.
fn count(since: Since, stores: &Stores) -> std::io::Result<()> {
    let Stores { state, source, .. } = stores;
    let is_known = state.word(Word::UsedCounted).load(Ordering::Acquire) != 0;
    let patience = match (since, is_known) {
        (Since::Now, true) => return Ok(()),
        // A server that was killed while files grew may have left the count a little off.
        (Since::Before, true) => RECOUNT,
        (_, false) => Duration::MAX,
    };
    if let Some(used) = capacity::count(source.as_fd(), patience)? {
        state.word(Word::Used).store(used, Ordering::Release);
        state.word(Word::UsedCounted).store(1, Ordering::Release);
        under_way::forget_freed(state);
    }
    Ok(())
}
