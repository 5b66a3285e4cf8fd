//! The pods of this node: those that are, and those that were.
//!
//! A pod is found by its uid, a container by its id whichever way its cgroup is named. What ended stays until as many others have,
//! so what a short pod did is still named when its events are told. `generation` says whether anything that was answered may have
//! changed since.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use lru::LruCache;

use super::cgroups::Cgroup;
use super::counters::{Counter, Counters};
use super::identity::{Container, Identity, Pod};
use super::policy::{Annotations, Policy};

/// Pods of one node: the kubelet's own limit is 110 unless it is raised.
const MAX_PODS: usize = 4096;
/// Pods that have ended.
const MAX_ENDED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Containers by their ids; a pod that restarts has a new one each time.
const MAX_CONTAINERS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Runs of one container of which the ids are kept.
const MAX_RUNS: usize = 16;
/// Namespaces that have annotations of ours.
const MAX_NAMESPACES: usize = 16_384;

#[derive(Debug)]
pub(super) struct Pods {
    state: RwLock<State>,
    generation: AtomicU64,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct State {
    /// By uid.
    live: HashMap<Arc<str>, Arc<Pod>>,
    ended: LruCache<Arc<str>, Arc<Pod>>,
    /// The uids of static pods by what the kubelet calls them.
    statics: LruCache<Arc<str>, Arc<str>>,
    /// The uids of pods by their containers' ids.
    containers: LruCache<Arc<str>, Arc<str>>,
    namespaces: HashMap<Arc<str>, Annotations>,
}

impl Pods {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        let state = State {
            live: HashMap::new(),
            ended: LruCache::new(MAX_ENDED),
            statics: LruCache::new(MAX_ENDED),
            containers: LruCache::new(MAX_CONTAINERS),
            namespaces: HashMap::new(),
        };
        Self { state: RwLock::new(state), generation: AtomicU64::default(), counters }
    }

    /// Grows when an answer may be another than before.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whose a cgroup is.
    pub(super) fn identity(&self, cgroup: &Cgroup) -> Identity {
        // Of the pod's own container if the cgroup is in one that this one made.
        let id = cgroup.pod.as_ref().map_or(&cgroup.container, |place| &place.container).as_ref();
        let pod = self.read(|state| {
            let by_container = || id.and_then(|id| state.containers.peek(id));
            let uid = cgroup.pod.as_ref().map(|place| &place.uid).or_else(by_container)?;
            state.pod(uid)
        });
        let holds = |container: &&Arc<Container>| id.is_some_and(|id| container.ids.contains(id));
        let container = pod.as_ref().and_then(|pod| pod.containers.iter().find(holds)).cloned();
        let pod_uid = cgroup.pod.as_ref().map(|place| &place.uid).or_else(|| pod.as_ref().map(|pod| &pod.uid)).cloned();
        Identity { cgroup: Arc::clone(&cgroup.path), container_id: cgroup.container.clone(), pod_uid, pod, container }
    }

    pub(super) fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.read(|state| state.pod(uid))
    }

    /// A pod as the API has it now.
    pub(super) fn apply(&self, pod: Pod) {
        let mut pod = pod;
        let changed = self.write(|state| {
            let before = state.pod(&pod.uid);
            if !state.live.contains_key(&pod.uid) && state.live.len() >= MAX_PODS {
                self.counters.add(Counter::PodsOver, 1);
                return false;
            }
            if let Some(before) = &before {
                keep_runs(&mut pod, before);
            }
            pod.policy = Policy::of(&pod.annotations, state.namespaces.get(&pod.namespace));
            state.ended.pop(&pod.uid);
            let changed = before.as_deref() != Some(&pod);
            state.keep(Arc::new(pod));
            changed
        });
        self.changed_if(changed);
    }

    /// A pod that is no more. It stays known.
    pub(super) fn end(&self, uid: &str) {
        self.write(|state| self.end_in(state, uid));
    }

    /// Every pod that is now, by uid; the others have ended.
    pub(super) fn retain(&self, now: &HashSet<Arc<str>>) {
        self.write(|state| {
            let ended: Vec<_> = state.live.keys().filter(|uid| !now.contains(*uid)).cloned().collect();
            ended.iter().for_each(|uid| self.end_in(state, uid));
        });
    }

    fn end_in(&self, state: &mut State, uid: &str) {
        let Some((uid, pod)) = state.live.remove_entry(uid) else { return };
        let forgotten = state.ended.push(uid, pod).is_some();
        self.counters.add(Counter::PodsForgotten, usize::from(forgotten));
    }

    /// A namespace's annotations.
    pub(super) fn apply_namespace(&self, name: &str, annotations: Annotations) {
        let changed = self.write(|state| {
            if state.namespaces.get(name).map_or(annotations.is_empty(), |before| *before == annotations) {
                return false;
            }
            if annotations.is_empty() {
                state.namespaces.remove(name);
            } else if state.namespaces.len() >= MAX_NAMESPACES && !state.namespaces.contains_key(name) {
                self.counters.add(Counter::NamespacesOver, 1);
                return false;
            } else {
                state.namespaces.insert(name.into(), annotations);
            }
            state.judge_again(name);
            true
        });
        self.changed_if(changed);
    }

    /// Every namespace that is now and has annotations.
    pub(super) fn retain_namespaces(&self, now: &HashSet<String>) {
        let gone: Vec<_> =
            self.read(|state| state.namespaces.keys().filter(|name| !now.contains(&***name)).cloned().collect());
        gone.iter().for_each(|name| self.apply_namespace(name, Annotations::new()));
    }

    /// Something else that answers depend on has changed.
    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn changed_if(&self, changed: bool) {
        if changed {
            self.changed();
        }
    }

    /// Nothing panics under the lock; were it so, what is known would still be true.
    fn read<T>(&self, ask: impl FnOnce(&State) -> T) -> T {
        ask(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        let uid = self.statics.peek(uid).map_or(uid, |uid| &**uid);
        self.live.get(uid).or_else(|| self.ended.peek(uid)).cloned()
    }

    fn keep(&mut self, pod: Arc<Pod>) {
        if let Some(own) = &pod.static_uid {
            self.statics.put(Arc::clone(own), Arc::clone(&pod.uid));
        }
        for id in pod.containers.iter().flat_map(|container| &container.ids) {
            self.containers.put(Arc::clone(id), Arc::clone(&pod.uid));
        }
        self.live.insert(Arc::clone(&pod.uid), pod);
    }

    /// The pods of a namespace whose annotations have changed.
    fn judge_again(&mut self, namespace: &str) {
        let annotations = self.namespaces.get(namespace);
        for pod in self.live.values_mut().filter(|pod| *pod.namespace == *namespace) {
            let policy = Policy::of(&pod.annotations, annotations);
            Arc::make_mut(pod).policy = policy;
        }
    }
}

/// The API tells of the present run of a container and the one before; earlier ones are remembered here.
fn keep_runs(pod: &mut Pod, before: &Pod) {
    for container in &mut pod.containers {
        let Some(earlier) = before.containers.iter().find(|earlier| earlier.name == container.name) else { continue };
        let is_new = |id: &&Arc<str>| !earlier.ids.contains(id);
        let mut ids: Vec<_> = earlier.ids.iter().chain(container.ids.iter().filter(is_new)).cloned().collect();
        ids.drain(..ids.len().saturating_sub(MAX_RUNS));
        Arc::make_mut(container).ids = ids;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, container_ids: &[&str]) -> Pod {
        let ids = container_ids.iter().map(|id| Arc::from(*id)).collect();
        Pod {
            uid: uid.into(),
            name: format!("name-of-{uid}").into(),
            namespace: "shop".into(),
            node: "n1".into(),
            workload: None,
            containers: vec![Arc::new(Container { name: "main".into(), image: "image:1".into(), ids })],
            volumes: Vec::new(),
            policy: Policy::default(),
            static_uid: None,
            annotations: Annotations::new(),
        }
    }

    fn cgroup(uid: Option<&str>, container: Option<&str>) -> Cgroup {
        let container: Option<Arc<str>> = container.map(Arc::from);
        let place = |uid: &str| super::super::cgroups::PodPlace { uid: uid.into(), container: container.clone() };
        Cgroup { path: "/x".into(), pod: uid.map(place), container }
    }

    fn pods() -> Pods {
        Pods::new(Arc::default())
    }

    #[test]
    fn a_pod_is_found_by_its_uid_and_by_its_containers() {
        let pods = pods();
        let before = pods.identity(&cgroup(Some("u1"), Some("c1")));
        assert_eq!((before.pod_uid.as_deref(), before.pod), (Some("u1"), None), "the API has not told yet");
        pods.apply(pod("u1", &["c1"]));
        for place in [cgroup(Some("u1"), Some("c1")), cgroup(None, Some("c1"))] {
            let identity = pods.identity(&place);
            assert_eq!(identity.pod.unwrap().name.as_ref(), "name-of-u1");
            assert_eq!(identity.container.unwrap().name.as_ref(), "main");
            assert_eq!(identity.pod_uid.as_deref(), Some("u1"));
        }
        let sandbox = pods.identity(&cgroup(Some("u1"), Some("sandbox")));
        assert!(sandbox.pod.is_some() && sandbox.container.is_none());
        let host = pods.identity(&cgroup(None, None));
        assert_eq!((host.pod, host.pod_uid, host.container_id), (None, None, None));
    }

    #[test]
    fn a_container_inside_a_container_is_the_outer_ones() {
        let pods = pods();
        pods.apply(pod("u1", &["outer"]));
        let mut nested = cgroup(Some("u1"), Some("outer"));
        nested.container = Some("inner".into());
        let identity = pods.identity(&nested);
        assert_eq!(identity.container_id.as_deref(), Some("inner"));
        assert_eq!(identity.container.unwrap().name.as_ref(), "main");
    }

    #[test]
    fn earlier_runs_of_a_container_are_remembered() {
        let pods = pods();
        for run in 0..20 {
            pods.apply(pod("u1", &[&format!("run{run}")]));
        }
        let named = |id: &str| pods.identity(&cgroup(Some("u1"), Some(id))).container.is_some();
        assert!(named("run19") && named("run4") && !named("run3"));
    }

    #[test]
    fn a_static_pod_goes_by_the_kubelets_name() {
        let pods = pods();
        pods.apply(Pod { static_uid: Some("hash".into()), ..pod("u1", &["c1"]) });
        assert_eq!(&*pods.identity(&cgroup(Some("hash"), Some("c1"))).pod.unwrap().uid, "u1");
    }

    #[test]
    fn what_ended_stays_known_until_there_is_no_room() {
        let pods = pods();
        pods.apply(pod("first", &[]));
        pods.apply(pod("second", &[]));
        pods.retain(&HashSet::from(["second".into()]));
        assert_eq!(pods.read(|state| state.live.len()), 1);
        assert!(pods.pod("first").is_some() && pods.pod("second").is_some());
        for number in 0..MAX_ENDED.get() {
            let uid = number.to_string();
            pods.apply(pod(&uid, &[]));
            pods.end(&uid);
        }
        assert!(pods.pod("first").is_none() && pods.pod("second").is_some());
        assert_eq!(pods.counters.get(Counter::PodsForgotten), 1);
        for number in 0..=MAX_PODS {
            pods.apply(pod(&format!("more{number}"), &[]));
        }
        assert_eq!(pods.counters.get(Counter::PodsOver), 2, "one lived already");
        assert!(pods.pod(&format!("more{MAX_PODS}")).is_none());
    }

    #[test]
    fn the_generation_grows_with_what_is_answered_and_only_then() {
        let pods = pods();
        let grown = || {
            let before = pods.generation();
            move |pods: &Pods| pods.generation() > before
        };
        let is = grown();
        pods.apply(pod("u1", &["c1"]));
        assert!(is(&pods));
        let is = grown();
        pods.apply(pod("u1", &["c1"]));
        pods.apply_namespace("shop", Annotations::new());
        pods.end("u1");
        assert!(!is(&pods), "nothing is answered otherwise");
        pods.apply(pod("u1", &["c1", "c2"]));
        assert!(is(&pods));
    }

    #[test]
    fn a_namespaces_annotations_concern_its_pods_whichever_comes_first() {
        let pods = pods();
        let off = || Annotations::from([("fsi.dev/observe".to_owned(), "off".to_owned())]);
        let observe = |uid: &str| pods.pod(uid).unwrap().policy.observe;
        pods.apply(pod("before", &[]));
        pods.apply_namespace("shop", off());
        pods.apply(pod("after", &[]));
        assert!(observe("before").is_some() && observe("after").is_some());
        pods.retain_namespaces(&HashSet::from(["other".to_owned()]));
        assert!(observe("before").is_none() && observe("after").is_none());
    }
}
