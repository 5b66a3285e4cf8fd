//! Rules as plain data: what was written, checked. Nothing here decides anything.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fsi_common::glob::Automaton;

use crate::probe::options::GlobList;
use crate::selection::glob::{self, GlobError, GlobStyle};
use crate::throttle::ThrottleSpec;
use crate::throttle::profile::Profile;

use super::decision::Corrupt;
use super::op::OpSet;

/// As many as a [`super::decision::Decision`] has bits.
pub const MAX_RULES: usize = 64;

/// Everything that one text says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    pub version: u64,
    pub seed: u64,
    /// In the order they were written, at most [`MAX_RULES`].
    pub rules: Vec<Rule>,
    pub throttle: Vec<ThrottleSpec>,
    pub capacity: Option<Capacity>,
    pub fake: Fake,
    /// The device that the volume is to be as slow as.
    pub profile: Option<Profile>,
}

impl RuleSet {
    /// Whether what was not synced can be lost, so that it has to be kept what was there before.
    #[must_use]
    pub fn loses_unsynced(&self) -> bool {
        self.rules.iter().any(|rule| rule.action.effect.as_ref().is_some_and(Injection::loses_unsynced))
    }
}

/// Match x when x do.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: Arc<str>,
    pub matching: Match,
    pub when: When,
    pub action: Action,
}

/// Which operations a rule is about. What is not said holds for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Never empty; with what the named operations cover.
    pub ops: OpSet,
    /// From the mount's root.
    pub path: Option<Globs>,
    /// Size of the file.
    pub min_size: Option<u64>,
    pub max_size: Option<u64>,
    pub uid: Option<Vec<u32>>,
    pub gid: Option<Vec<u32>>,
    pub process: Option<Globs>,
    /// Some byte of the operation's data lies in this.
    pub offset: Option<Range<u64>>,
}

/// Which of the matching operations it strikes. Counts are per rule, path and operation.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    pub probability: Probability,
    /// The first so many are left alone.
    pub skip: u64,
    /// Of the rest, each n-th.
    pub every: u64,
    /// At most so many are struck.
    pub limit: Option<u64>,
    /// From then on, since the rules were armed.
    pub after: Duration,
    /// Until then, since the rules were armed.
    pub until: Option<Duration>,
}

impl Default for When {
    fn default() -> Self {
        Self { probability: Probability::ALWAYS, skip: 0, every: 1, limit: None, after: Duration::ZERO, until: None }
    }
}

/// It strikes where the draw lies in `from..to`. Rules that share a draw and have bands side by side strike one at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Probability {
    pub from: f64,
    pub to: f64,
    /// Whose draw it is, when it is not the rule's own.
    pub shared: Option<Arc<str>>,
}

impl Probability {
    pub const ALWAYS: Self = Self { from: 0.0, to: 1.0, shared: None };

    /// How likely it is.
    #[must_use]
    pub fn chance(&self) -> f64 {
        self.to - self.from
    }
}

/// What is done to an operation that is struck: a delay, an effect, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Action {
    pub delay: Option<Delay>,
    pub effect: Option<Injection>,
}

/// How long a reply waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Delay {
    Fixed(Duration),
    /// Every length from `min` to `max` is equally likely.
    Uniform {
        min: Duration,
        max: Duration,
    },
    Normal {
        mean: Duration,
        stddev: Duration,
        min: Duration,
        max: Duration,
    },
    /// A long tail: of `shape` 1.5 one in 32 is longer than ten times `min`.
    Pareto {
        min: Duration,
        shape: f64,
        max: Duration,
    },
    /// From `from` to `to`, evenly over so many operations of the file, and `to` from then on.
    Ramp {
        from: Duration,
        to: Duration,
        over: u64,
    },
}

/// What a rule does to the operation itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    Errno(i32),
    Short(Portion),
    Corrupt(Corrupt),
    Torn(Portion),
    LoseUntilFsync,
    FailFsync(i32),
    LieFsync,
    Abort,
}

impl Injection {
    /// Whether changes since the last sync may have to be undone.
    #[must_use]
    pub const fn loses_unsynced(&self) -> bool {
        matches!(self, Self::FailFsync(_) | Self::LieFsync | Self::LoseUntilFsync)
    }
}

/// How much of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Portion {
    /// In `0..1`.
    Fraction(f64),
    Bytes(u64),
    /// Any amount is equally likely.
    Random,
}

/// How much fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub bytes: u64,
    /// `ENOSPC` or `EDQUOT`.
    pub errno: i32,
}

/// What stands in for the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fake {
    #[default]
    None,
    Null,
    Memory,
    Pattern,
}

/// Globs as written, and the automaton that runs them.
#[derive(Clone)]
pub struct Globs {
    pub texts: Vec<String>,
    style: GlobStyle,
    automaton: Arc<Automaton>,
}

impl Globs {
    /// Paths from the mount's root; a leading `/` changes nothing.
    ///
    /// # Errors
    /// One is malformed, or all together are too big.
    pub fn paths(texts: Vec<String>) -> Result<Self, GlobError> {
        let include = texts.iter().map(|text| format!("/{}", text.strip_prefix('/').unwrap_or(text))).collect();
        Self::compile(texts, include, GlobStyle::Path)
    }

    /// Command names.
    ///
    /// # Errors
    /// One is malformed or can never match, or all together are too big.
    pub fn names(texts: Vec<String>) -> Result<Self, GlobError> {
        let include = texts.clone();
        Self::compile(texts, include, GlobStyle::Name)
    }

    fn compile(texts: Vec<String>, include: Vec<String>, style: GlobStyle) -> Result<Self, GlobError> {
        let list = GlobList { include, exclude: Vec::new() };
        Ok(Self { texts, style, automaton: Arc::from(glob::compile(&list, style)?) })
    }

    /// Whether one of them matches; a path is given without a leading slash.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut state = [0; fsi_common::glob::WORDS];
        self.automaton.begin(&mut state);
        if self.style == GlobStyle::Path {
            self.automaton.advance(&mut state, b'/');
        }
        for byte in bytes {
            self.automaton.advance(&mut state, *byte);
        }
        self.automaton.selected(&state)
    }
}

impl fmt::Debug for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.texts.fmt(f)
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.style == other.style && self.texts == other.texts
    }
}
