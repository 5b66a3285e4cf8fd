//! Where spans go: to the collectors what the configuration wants, to each watcher what it asked for.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use fsi_common::probe_config::{EVENTS_EVERY, Policy};
use fsi_common::record::CgroupRecord;
use lru::LruCache;

use super::names::Whose;
use super::outputs::{Outputs, is_on_purpose};
use super::raise::{Both, Raised, keeps};
use crate::attach::MAX_WATCHERS;
use crate::attach::queue::{Inlet, Item};
use crate::attach::target::{Target, Wish};
use crate::attribution::identity::Identity;
use crate::span::{OpSpan, Span, SpanBody, SpanId, SpanSink};

/// Files and processes under which something was told: as many as the pipeline remembers.
const MAX_ABOVE: NonZeroUsize = NonZeroUsize::new(131_072).expect("not zero");
/// And for each watcher.
const MAX_ABOVE_WATCHED: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// Cgroups of which a watcher remembers whether it is about them.
const MAX_REMEMBERED: usize = 65_536;
/// After a watcher has gone: so long what crossed for it may still come.
const LINGER_NS: u64 = 2_000_000_000;

/// Stands for a cgroup of which nothing is known yet: all that crosses is told.
const UNKNOWN: Policy = Policy { events: EVENTS_EVERY, sample_every: 0, slower_ns: u64::MAX };

/// Collectors and watchers.
#[derive(Debug)]
pub(super) struct Taps {
    pub(super) outputs: Outputs,
    whose: Arc<Whose>,
    watchers: Vec<Watcher>,
    last_watch: u64,
    raised: Option<Raised>,
    lingers_until_ns: Option<u64>,
    /// Whether a collector was told of something under a file or a process.
    above: LruCache<SpanId, bool>,
    random: u64,
    /// What watchers that are gone had lost.
    dropped_before: u64,
}

/// One who watches.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) number: u64,
    pub(super) wish: Wish,
    pub(super) inlet: Inlet,
    has_started: bool,
    above: LruCache<SpanId, ()>,
    /// Whether it is about a cgroup.
    about: HashMap<u64, bool>,
}

impl Watcher {
    fn is_about(&mut self, cgroup: u64, identity: Option<&Identity>, both: &Both) -> bool {
        if let Target::All = self.wish.target {
            return both.configured.is_some();
        }
        let Some(identity) = identity else { return false };
        if self.about.len() >= MAX_REMEMBERED {
            self.about.clear();
        }
        *self.about.entry(cgroup).or_insert_with(|| self.wish.target.takes(identity))
    }

    fn tell(&mut self, span: &Arc<Span>) {
        self.inlet.span(span);
        if let Some(parent) = span.parent {
            self.above.put(parent, ());
        }
    }
}

impl Taps {
    pub(super) fn new(outputs: Outputs, whose: Arc<Whose>) -> Self {
        Self {
            outputs,
            whose,
            watchers: Vec::new(),
            last_watch: 0,
            raised: None,
            lingers_until_ns: None,
            above: LruCache::new(MAX_ABOVE),
            random: 0x9e37_79b9_7f4a_7c15,
            dropped_before: 0,
        }
    }

    /// One more; nothing when there are too many.
    pub(super) fn attach(&mut self, wish: Wish, inlet: Inlet) -> bool {
        if self.watchers.len() >= MAX_WATCHERS {
            return false;
        }
        self.last_watch += 1;
        tracing::info!(watch = self.last_watch, whom = wish.whom, "somebody watches");
        self.watchers.push(Watcher {
            number: self.last_watch,
            wish,
            inlet,
            has_started: false,
            above: LruCache::new(MAX_ABOVE_WATCHED),
            about: HashMap::new(),
        });
        true
    }

    /// Those who went away are forgotten; whether there were any.
    pub(super) fn forget_the_gone(&mut self) -> bool {
        let before = self.watchers.len();
        for gone in self.watchers.extract_if(.., |watcher| watcher.inlet.is_closed()) {
            self.dropped_before += gone.inlet.dropped();
            tracing::info!(
                watch = gone.number,
                told = gone.inlet.told(),
                dropped = gone.inlet.dropped(),
                "one who watched is gone"
            );
        }
        for watcher in &mut self.watchers {
            watcher.inlet.pay();
        }
        self.watchers.len() != before
    }

    pub(super) fn watchers(&self) -> &[Watcher] {
        &self.watchers
    }

    pub(super) fn wishes(&self) -> Vec<&Wish> {
        self.watchers.iter().map(|watcher| &watcher.wish).collect()
    }

    /// Spans that watchers lost because they were too slow.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped_before + self.watchers.iter().map(|watcher| watcher.inlet.dropped()).sum::<u64>()
    }

    /// The policies that the kernel side now has.
    pub(super) fn set_raised(&mut self, raised: Raised, now_ns: u64) {
        // Pods and cgroups may be others than before.
        for watcher in &mut self.watchers {
            watcher.about.clear();
        }
        if !self.watchers.is_empty() {
            (self.raised, self.lingers_until_ns) = (Some(raised), None);
        } else if self.raised.is_some() && self.lingers_until_ns.is_none() {
            self.lingers_until_ns = Some(now_ns.saturating_add(LINGER_NS));
        }
    }

    /// To be called now and then.
    pub(super) fn tick(&mut self, now_ns: u64) {
        if self.lingers_until_ns.is_some_and(|until_ns| until_ns <= now_ns) {
            (self.raised, self.lingers_until_ns) = (None, None);
        }
    }

    /// How many of the policies by number the configuration has; nothing: all.
    pub(super) fn own_policies(&self) -> Option<usize> {
        self.raised.as_ref().filter(|_| !self.watchers.is_empty()).map(|raised| raised.own_policies)
    }

    /// Says to those who came that everything is seen from here on.
    pub(super) fn start(&mut self, cgroups: impl Fn(&Target) -> u64) {
        for watcher in self.watchers.iter_mut().filter(|watcher| !watcher.has_started) {
            watcher.has_started = true;
            let cgroups = cgroups(&watcher.wish.target);
            watcher.inlet.owe(Item::Started { watch: watcher.number, cgroups });
        }
    }

    /// Marks a stream.
    pub(super) fn mark(&mut self, watch: u64, mark: u64) {
        if let Some(watcher) = self.watchers.iter_mut().find(|watcher| watcher.number == watch) {
            watcher.inlet.owe(Item::Mark(mark));
        }
    }

    /// The policies of a cgroup.
    pub(super) fn both(&mut self, cgroup: u64, identity: Option<&Identity>) -> Both {
        match (&mut self.raised, identity) {
            (Some(raised), Some(identity)) => raised.of(cgroup, &identity.cgroup),
            (_, _) => Both { configured: Some(UNKNOWN), now: Some(UNKNOWN) },
        }
    }

    fn operation(&mut self, span: &Arc<Span>, op: &OpSpan) {
        if self.raised.is_none() {
            return self.collect(span, true);
        }
        let cgroup = span.actor.cgroup;
        let identity = self.whose.identity(cgroup);
        let both = self.both(cgroup, identity.as_deref());
        let on_purpose = is_on_purpose(op);
        let Self { random, .. } = self;
        let mut draw = || {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(*random >> 33).unwrap_or(u32::MAX)
        };
        let wanted = on_purpose && both.configured.is_some_and(|policy| policy.events != 0)
            || both.configured == both.now
            || keeps(both.configured.as_ref(), both.now.as_ref(), op, &mut draw);
        for watcher in &mut self.watchers {
            if watcher.is_about(cgroup, identity.as_deref(), &both)
                && watcher.wish.selects(span, op)
                && (on_purpose || keeps(Some(&watcher.wish.policy), both.now.as_ref(), op, &mut draw))
            {
                watcher.tell(span);
            }
        }
        self.collect(span, wanted);
    }

    fn collect(&mut self, span: &Arc<Span>, is_wanted: bool) {
        if let Some(parent) = span.parent
            && (is_wanted || !self.above.contains(&parent))
        {
            self.above.put(parent, is_wanted);
        }
        if is_wanted {
            self.outputs.span(span);
        } else if let SpanBody::Operation(_) = span.body {
            self.outputs.leave_out();
        }
    }
}

impl SpanSink for Taps {
    fn span(&mut self, span: &Arc<Span>) {
        if let SpanBody::Operation(op) = &span.body {
            return self.operation(span, op);
        }
        for watcher in &mut self.watchers {
            if watcher.above.pop(&span.id).is_some() {
                watcher.tell(span);
            }
        }
        // A file or a process goes where what is under it went.
        let is_wanted = self.above.pop(&span.id).unwrap_or(true);
        self.collect(span, is_wanted);
    }

    fn cgroup(&mut self, made: &CgroupRecord) {
        self.whose.made(made);
    }
}
