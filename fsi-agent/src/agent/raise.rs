//! Looking closer for those who watch, for as long as they do: each cgroup gets the more talkative of what the configuration says and what
//! they ask for. And the way back: what would have crossed without them. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use fsi_common::probe_config::{EVENTS_EVERY, EVENTS_FAILED, EVENTS_SAMPLED, EVENTS_SLOW, Policy};

use super::policies::{Candidate, Wanted};
use crate::attach::target::Wish;
use crate::span::OpSpan;

/// Cgroups whose policies are remembered before all are looked up anew.
const MAX_REMEMBERED: usize = 65_536;

/// The policy of each cgroup; that of one without an entry is that of the nearest above. Nothing: it is not looked at.
type Policies = HashMap<Arc<str>, Option<Policy>>;

/// What holds while somebody watches.
#[derive(Debug, Default)]
pub(super) struct Raised {
    configured: Policies,
    raised: Policies,
    remembered: HashMap<u64, Both>,
    /// Policies by number that the configuration has; those after them are for who watches.
    pub(super) own_policies: usize,
}

/// The two policies of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Both {
    /// By the configuration.
    pub(super) configured: Option<Policy>,
    /// In force.
    pub(super) now: Option<Policy>,
}

/// Changes what is wanted so that every wish comes true.
pub(super) fn raise(wanted: &mut Wanted, candidates: &[Candidate], wishes: &[&Wish]) -> Raised {
    let paths: HashMap<u64, &Arc<str>> = candidates.iter().map(|one| (one.id, &one.identity.cgroup)).collect();
    let named =
        wanted.cgroups.iter().filter_map(|(id, number)| Some((Arc::clone(paths.get(id)?), wanted.policy(*number))));
    let configured: Policies = named.collect();
    let mut raised = configured.clone();
    let own_policies = wanted.policies.len();
    let mut order: Vec<_> = candidates.iter().collect();
    // What is above comes first.
    order.sort_by_key(|candidate| candidate.identity.cgroup.len());
    for Candidate { id, identity } in order {
        let path = &identity.cgroup;
        let base = nearest(&configured, path);
        let asked =
            wishes.iter().filter(|wish| wish.target.takes(identity) && (base.is_some() || wish.target.is_chosen()));
        let policy = asked.fold(base, |policy, wish| Some(more_talkative(policy, wish.policy)));
        let inherited = above(path).and_then(|above| nearest(&raised, above));
        if policy == inherited && !wanted.cgroups.contains_key(id) {
            continue;
        }
        let number = policy.map_or(Some(0), |policy| wanted.number_of(policy));
        match number {
            Some(number) => {
                wanted.cgroups.insert(*id, number);
                raised.insert(Arc::clone(path), policy);
            }
            None => wanted.over += 1,
        }
    }
    Raised { configured, raised, remembered: HashMap::new(), own_policies }
}

impl Raised {
    /// The policies of a cgroup whose path is known.
    pub(super) fn of(&mut self, cgroup: u64, path: &str) -> Both {
        if let Some(both) = self.remembered.get(&cgroup) {
            return *both;
        }
        let both = Both { configured: nearest(&self.configured, path), now: nearest(&self.raised, path) };
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(cgroup, both);
        both
    }
}

fn above(path: &str) -> Option<&str> {
    if path == "/" {
        return None;
    }
    path.rsplit_once('/').map(|(above, _name)| if above.is_empty() { "/" } else { above })
}

fn nearest(policies: &Policies, path: &str) -> Option<Policy> {
    let mut place = Some(path);
    while let Some(path) = place {
        if let Some(policy) = policies.get(path) {
            return *policy;
        }
        place = above(path);
    }
    None
}

/// What tells everything that either tells.
fn more_talkative(policy: Option<Policy>, other: Policy) -> Policy {
    let Some(policy) = policy else { return other };
    let least = |bit: u32, value: fn(&Policy) -> u64, none: u64| {
        [policy, other].iter().filter(|policy| policy.events & bit != 0).map(value).min().unwrap_or(none)
    };
    let sample_every = least(EVENTS_SAMPLED, |policy| u64::from(policy.sample_every.max(1)), 0);
    Policy {
        events: policy.events | other.events,
        sample_every: u32::try_from(sample_every).unwrap_or(u32::MAX),
        slower_ns: least(EVENTS_SLOW, |policy| policy.slower_ns, u64::MAX),
    }
}

/// Whether a policy names an operation, its sample aside.
const fn names(policy: &Policy, op: &OpSpan) -> bool {
    policy.events & EVENTS_EVERY != 0
        || policy.events & EVENTS_FAILED != 0 && op.errno != 0
        || policy.events & EVENTS_SLOW != 0 && op.duration_ns >= policy.slower_ns
}

/// Whether an operation that crossed by the policy in force would have crossed by this one. A sample is drawn again from what crossed, so that
/// as many stay as would have crossed.
pub(super) fn keeps(
    policy: Option<&Policy>,
    now: Option<&Policy>,
    op: &OpSpan,
    random: &mut impl FnMut() -> u32,
) -> bool {
    let Some(policy) = policy else { return false };
    if names(policy, op) {
        return true;
    }
    if policy.events & EVENTS_SAMPLED == 0 {
        return false;
    }
    // It crossed as one in so many.
    let drawn = match now {
        Some(now) if !names(now, op) && now.events & EVENTS_SAMPLED != 0 => now.sample_every.max(1),
        Some(_) | None => 1,
    };
    random() % policy.sample_every.max(1) < drawn
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fsi_common::op::OpKind;

    use super::*;
    use crate::agent::policies;
    use crate::attach::Whom;
    use crate::attach::target::Target;
    use crate::attribution::identity::Identity;
    use crate::config::{Level, Observe, Policy as Configured, Scope};
    use crate::span::NO_SYSCALL;

    const EVERY: Policy = Policy { events: EVENTS_EVERY, sample_every: 0, slower_ns: u64::MAX };
    const A: &str = "aaaa111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";

    fn op(duration_ns: u64, errno: u16) -> OpSpan {
        OpSpan {
            op: OpKind::Read,
            duration_ns,
            errno,
            ret: 0,
            dev: 0,
            ino: 0,
            mode: 0,
            offset: None,
            asked: None,
            bytes: None,
            open_flags: None,
            syscall: NO_SYSCALL,
            path: None,
            target: None,
            interposed: None,
        }
    }

    fn candidates() -> Vec<Candidate> {
        let paths = [
            "/",
            "/kubepods",
            &format!("/kubepods/{A}"),
            &format!("/kubepods/{A}/in"),
            "/system.slice",
            "/system.slice/a",
            "/b",
        ];
        let one = |(id, path): (u64, &&str)| {
            let container = path.contains(A).then(|| A.into());
            let identity =
                Identity { cgroup: (*path).into(), container_id: container, pod_uid: None, pod: None, container: None };
            Candidate { id, identity: Arc::new(identity) }
        };
        (1..).zip(&paths).map(one).collect()
    }

    fn wish(whom: &Whom, policy: Policy) -> Wish {
        let target = Target::of(whom, Some(Path::new("/cg"))).unwrap();
        Wish { whom: whom.words(), target, policy, paths: None, processes: None, operations: Vec::new() }
    }

    fn directory(path: &str) -> Whom {
        Whom::Cgroups { directories: vec![path.into()], containers: Vec::new() }
    }

    fn slow(ns: u64) -> Policy {
        Policy { events: EVENTS_SLOW, sample_every: 0, slower_ns: ns }
    }

    fn now(raised: &mut Raised, path: &str) -> Option<Policy> {
        raised.of(path.len() as u64, path).now
    }

    #[test]
    fn a_cgroup_is_raised_with_all_below_and_nothing_beside_it() {
        let (observe, candidates) = (Observe::default(), candidates());
        let before = policies::wanted(&observe, &candidates, &[]);
        let mut wanted = before.clone();
        let chosen =
            Whom::Cgroups { directories: vec!["/cg/system.slice".into()], containers: vec!["aaaa".to_owned()] };
        let wish = wish(&chosen, EVERY);
        let mut raised = raise(&mut wanted, &candidates, &[&wish]);
        let default = before.policy(before.cgroups[&2]);
        assert_eq!(now(&mut raised, "/kubepods"), default);
        for path in [format!("/kubepods/{A}"), format!("/kubepods/{A}/in/new")] {
            let policy = now(&mut raised, &path).unwrap();
            assert_eq!(policy.events, default.unwrap().events | EVENTS_EVERY, "{path}");
            assert_eq!(policy.slower_ns, default.unwrap().slower_ns);
        }
        assert_eq!(now(&mut raised, "/system.slice/a"), Some(EVERY), "it was not looked at");
        assert_eq!((now(&mut raised, "/b"), now(&mut raised, "/")), (None, None));
        // The numbers that the configuration gave stay, and what is below has no entry of its own.
        assert_eq!(wanted.policies[..before.policies.len()], before.policies[..]);
        assert_eq!(raised.own_policies, before.policies.len());
        let mut ids: Vec<_> = wanted.cgroups.keys().copied().collect();
        ids.sort_unstable();
        assert_eq!(ids, [2, 3, 5]);
        // It goes away again: as it was.
        let mut after = policies::wanted(&observe, &candidates, &[]);
        raise(&mut after, &candidates, &[]);
        assert_eq!(after, before);
    }

    #[test]
    fn of_several_the_more_talkative_holds_and_all_is_what_is_looked_at() {
        let default = Configured { level: Level::Metrics, ..Configured::default() };
        let observe = Observe { scope: Scope::Node, default, ..Observe::default() };
        let candidates = candidates();
        let mut wanted = policies::wanted(&observe, &candidates, &[]);
        let wishes =
            [wish(&directory("/cg/b"), slow(5)), wish(&directory("/cg/b"), slow(3)), wish(&Whom::All, slow(9))];
        let mut raised = raise(&mut wanted, &candidates, &wishes.each_ref());
        assert_eq!(now(&mut raised, "/b"), Some(slow(3)));
        assert_eq!(now(&mut raised, "/system.slice"), Some(slow(9)));
        assert_eq!(raised.of(99, "/b").configured.unwrap().events, 0);
        // Who asks for all does not make the agent look where it does not.
        let observe = Observe::default();
        let mut wanted = policies::wanted(&observe, &candidates, &[]);
        let mut raised = raise(&mut wanted, &candidates, &[&wish(&Whom::All, EVERY)]);
        assert_eq!(now(&mut raised, "/b"), None);
        assert!(now(&mut raised, "/kubepods").unwrap().events & EVENTS_EVERY != 0);
        assert_eq!(
            more_talkative(
                Some(Policy { events: EVENTS_SAMPLED, sample_every: 100, slower_ns: 7 }),
                Policy { sample_every: 10, events: EVENTS_SAMPLED, slower_ns: 3 }
            ),
            Policy { events: EVENTS_SAMPLED, sample_every: 10, slower_ns: u64::MAX }
        );
    }

    #[test]
    fn what_crossed_for_a_watcher_is_told_from_what_the_configuration_wants() {
        let (mut zero, mut high) = (|| 0, || 99);
        let failed = Policy { events: EVENTS_FAILED | EVENTS_SLOW, sample_every: 0, slower_ns: 10 };
        let now = Some(&EVERY);
        assert!(!keeps(Some(&failed), now, &op(9, 0), &mut zero));
        assert!(keeps(Some(&failed), now, &op(10, 0), &mut high) && keeps(Some(&failed), now, &op(0, 2), &mut high));
        assert!(!keeps(None, now, &op(10, 2), &mut zero), "it is not looked at");
        let sampled = Policy { events: EVENTS_SAMPLED, sample_every: 100, slower_ns: u64::MAX };
        let one_in = |now: &Policy| {
            let mut number = 0;
            let mut count = || {
                number += 1;
                number
            };
            (0..100).filter(|_| keeps(Some(&sampled), Some(now), &op(1, 0), &mut count)).count()
        };
        assert_eq!(one_in(&EVERY), 1);
        assert_eq!(one_in(&Policy { sample_every: 10, ..sampled }), 10, "of those that are one in ten");
        assert_eq!(one_in(&sampled), 100, "of those that are one in a hundred");
    }
}
