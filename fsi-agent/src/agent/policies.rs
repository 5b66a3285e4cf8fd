//! Which cgroups are looked at, and by which policy: from the configuration, and from what pods and namespaces ask for. Pure.
//!
//! A cgroup that has no policy of its own has that of the nearest above. What holds containers (the kubelet's and the runtimes' parents) has
//! the default one, so that a container is looked at from its first operation on; one that asks for something else has its own.

use std::collections::HashMap;
use std::sync::Arc;

use fsi_common::probe_config::{EVENTS_FAILED, EVENTS_SAMPLED, EVENTS_SLOW, MAX_POLICIES, Policy as KernelPolicy};

use crate::attribution::identity::Identity;
use crate::attribution::policy::Observe as Asked;
use crate::config::{Level, Observe, Policy, Scope};

/// A cgroup that exists.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: u64,
    pub(super) identity: Arc<Identity>,
}

/// What the kernel side is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By number; the first is 1, for 0 stands for "not looked at".
    pub(super) policies: Vec<KernelPolicy>,
    /// The number of each cgroup that has one of its own.
    pub(super) cgroups: HashMap<u64, u32>,
    /// Cgroups that have another policy than they should, because there are too many.
    pub(super) over: usize,
}

/// What is wanted of all cgroups that exist; `extra` are those the configuration names.
pub(super) fn wanted(observe: &Observe, candidates: &[Candidate], extra: &[u64]) -> Wanted {
    let mut wanted = Wanted::default();
    for Candidate { id, identity } in candidates {
        let path = &*identity.cgroup;
        let (is_node, is_nursery) = (path == "/", holds_containers(path));
        if is_node && observe.scope == Scope::Node || is_nursery && observe.scope == Scope::Containers {
            wanted.add(*id, observe.default);
        }
        let Some(container) = &identity.container_id else { continue };
        // Deeper ones have the container's.
        if !last(path).contains(&**container) {
            continue;
        }
        let policy = of(observe, identity);
        if policy != observe.default || observe.scope == Scope::Containers && !path.split('/').any(is_nursery_name) {
            wanted.add(*id, policy);
        }
    }
    for id in extra {
        wanted.add(*id, observe.default);
    }
    wanted
}

/// What holds for a container: what the configuration says for its namespace, then what the pod asks for.
fn of(observe: &Observe, identity: &Identity) -> Policy {
    let Some(pod) = &identity.pod else { return observe.default };
    let mut policy = observe.policy(&pod.namespace);
    if observe.annotations {
        match pod.policy.observe {
            Some(Asked::Spans) => policy.level = Level::Spans,
            Some(Asked::Metrics) => policy.level = Level::Metrics,
            Some(Asked::Off) => policy.level = Level::Off,
            None => {}
        }
        policy.slower = pod.policy.slower.or(policy.slower);
        policy.sample = pod.policy.sample.or(policy.sample);
    }
    policy
}

impl Wanted {
    fn add(&mut self, id: u64, policy: Policy) {
        let number = self.number(policy);
        match number {
            Some(number) => drop(self.cgroups.insert(id, number)),
            None => self.over += 1,
        }
    }

    fn number(&mut self, policy: Policy) -> Option<u32> {
        if policy.level == Level::Off {
            return Some(0);
        }
        let policy = of_kernel(policy);
        let place = self.policies.iter().position(|known| *known == policy).unwrap_or_else(|| {
            self.policies.push(policy);
            self.policies.len() - 1
        });
        let number = u32::try_from(place + 1).ok().filter(|number| *number < MAX_POLICIES);
        if number.is_none() {
            self.policies.truncate(place);
        }
        number
    }
}

fn of_kernel(policy: Policy) -> KernelPolicy {
    let events = policy.events();
    let flag = |condition: bool, bit: u32| if condition { bit } else { 0 };
    KernelPolicy {
        events: flag(events.slower.is_some(), EVENTS_SLOW)
            | flag(events.failed, EVENTS_FAILED)
            | flag(events.sample.is_some(), EVENTS_SAMPLED),
        sample_every: events.sample.map_or(0, std::num::NonZeroU32::get),
        slower_ns: events.slower.map_or(u64::MAX, |slower| u64::try_from(slower.as_nanos()).unwrap_or(u64::MAX)),
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn holds_containers(path: &str) -> bool {
    is_nursery_name(last(path))
}

/// Directories in which runtimes make containers and nothing else.
fn is_nursery_name(name: &str) -> bool {
    matches!(name, "kubepods" | "kubepods.slice" | "docker" | "libpod_parent") || name.ends_with("-kubepods.slice")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::attribution::identity::Pod;
    use crate::attribution::policy::Policy as Annotated;
    use crate::config::Namespace;

    const A: &str = "aaaa111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";

    fn candidate(id: u64, path: &str, container: Option<&str>, pod: Option<(&str, Annotated)>) -> Candidate {
        let pod = pod.map(|(namespace, policy)| Arc::new(Pod::sample(namespace, policy)));
        let identity = Identity {
            cgroup: path.into(),
            container_id: container.map(Arc::from),
            pod_uid: None,
            pod,
            container: None,
        };
        Candidate { id, identity: Arc::new(identity) }
    }

    fn events(wanted: &Wanted, id: u64) -> Option<KernelPolicy> {
        let number = *wanted.cgroups.get(&id)?;
        match number.checked_sub(1) {
            None => Some(KernelPolicy::default()),
            Some(at) => wanted.policies.get(usize::try_from(at).ok()?).copied(),
        }
    }

    fn tree() -> Vec<Candidate> {
        let asks = Annotated { observe: Some(Asked::Metrics), ..Annotated::default() };
        vec![
            candidate(1, "/", None, None),
            candidate(2, "/kubepods.slice", None, None),
            candidate(
                3,
                &format!("/kubepods.slice/pod1/cri-containerd-{A}.scope"),
                Some(A),
                Some(("shop", Annotated::default())),
            ),
            candidate(4, &format!("/kubepods.slice/pod2/cri-containerd-{A}.scope"), Some(A), Some(("shop", asks))),
            candidate(5, &format!("/kubepods.slice/pod2/cri-containerd-{A}.scope/inner"), Some(A), None),
            candidate(6, &format!("/system.slice/docker-{A}.scope"), Some(A), None),
            candidate(7, "/system.slice/ssh.service", None, None),
        ]
    }

    #[test]
    fn containers_have_the_policy_of_what_holds_them_unless_they_ask_for_another() {
        let observe = Observe::default();
        let wanted = wanted(&observe, &tree(), &[99]);
        let mut ids: Vec<_> = wanted.cgroups.keys().copied().collect();
        ids.sort_unstable();
        assert_eq!(ids, [2, 4, 6, 99]);
        let default = of_kernel(observe.default);
        assert_eq!([2, 6, 99].map(|id| events(&wanted, id)), [Some(default); 3]);
        assert_eq!(events(&wanted, 4), Some(KernelPolicy { slower_ns: u64::MAX, ..KernelPolicy::default() }));
    }

    #[test]
    fn a_node_is_looked_at_as_a_whole() {
        let observe = Observe { scope: Scope::Node, ..Observe::default() };
        let wanted = wanted(&observe, &tree(), &[]);
        assert!(wanted.cgroups.contains_key(&1) && wanted.cgroups.contains_key(&4));
        assert_eq!(wanted.cgroups.len(), 2);
    }

    #[test]
    fn a_namespace_has_its_own_and_the_pod_the_last_word() {
        let off = Policy { level: Level::Off, ..Policy::default() };
        let namespaces = vec![Namespace { name: "sh*".to_owned(), policy: off }];
        let observe = Observe { namespaces, ..Observe::default() };
        let found = wanted(&observe, &tree(), &[]);
        assert_eq!((found.cgroups[&3], found.cgroups[&4] == 0), (0, false), "off; the pod asks for metrics");
        let deaf = Observe { annotations: false, ..observe };
        assert_eq!(wanted(&deaf, &tree(), &[]).cgroups[&4], 0);
        let slow = Annotated { slower: Some(Duration::from_secs(1)), ..Annotated::default() };
        let pods = [candidate(3, &format!("/kubepods/pod1/{A}"), Some(A), Some(("x", slow)))];
        let found = wanted(&Observe::default(), &pods, &[]);
        assert_eq!(events(&found, 3).map(|policy| policy.slower_ns), Some(1_000_000_000));
    }

    #[test]
    fn there_are_only_so_many_policies() {
        let pods: Vec<_> = (0..2_000_u32)
            .map(|number| {
                let slow =
                    Annotated { slower: Some(Duration::from_nanos(u64::from(number) + 1)), ..Annotated::default() };
                candidate(u64::from(number), &format!("/kubepods/pod{number}/{A}"), Some(A), Some(("x", slow)))
            })
            .collect();
        let found = wanted(&Observe::default(), &pods, &[]);
        assert_eq!(found.policies.len(), MAX_POLICIES as usize - 1);
        assert_eq!(found.over + found.cgroups.len(), 2_000);
    }
}
