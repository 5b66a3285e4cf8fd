//! Whose an operation is: from the id of a cgroup, as the kernel side reports it, to container, pod and workload; from a device to
//! the volume.
//!
//! ```text
//! cgroup id --cgroups--> path: container id, pod uid --pods--> pod, container, workload, policy
//! device ----volumes---> pod uid, name in the kubelet's folder --claims--> claim, storage class
//! ```
//!
//! Everything is answered from memory. Threads of its own fill it: `watch` from the hierarchy of cgroups, `mounts` from the table of
//! mounts, `kubernetes` from the API; any of them may be slow or away, and what was learnt stays. What ended is remembered for a while,
//! since its events are told after it. Every memory has a bound; what is over it is in [`Counters`].
//!
//! An answer gets better, never worse: whoever asks again later may hear of a pod that the API had not told of yet.

pub mod cgroups;
mod claims;
pub mod counters;
pub mod identity;
pub mod kubernetes;
mod memo;
mod mounts;
mod objects;
pub(crate) mod place;
mod pods;
pub mod policy;
mod volumes;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cgroups::Cgroups;
use claims::Claims;
use counters::{Counter, Counters};
use identity::{Claim, Identity, Volume};
use kubernetes::{Kubernetes, Learns, Status, Watch};
use memo::Memo;
use mounts::MountWatch;
use pods::Pods;
use volumes::{Mounted, Volumes};
use watch::CgroupWatch;

use crate::selection::container;
use crate::telemetry::containers::ContainerNames;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the hierarchy of cgroups is mounted whose ids the kernel side reports; none: the preferred one of this machine.
    pub hierarchy: Option<PathBuf>,
    /// The kubelet's folder; without one no volume is known.
    pub kubelet: Option<PathBuf>,
    /// The table in which the kubelet's mounts show up.
    pub mounts: PathBuf,
    /// The table is looked at when it changes, and at least so often.
    pub mounts_every: Duration,
    /// Without it containers have ids and no names.
    pub kubernetes: Option<Kubernetes>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hierarchy: None,
            kubelet: Some(PathBuf::from("/var/lib/kubelet")),
            mounts: PathBuf::from("/proc/self/mountinfo"),
            mounts_every: Duration::from_secs(30),
            kubernetes: None,
        }
    }
}

/// Why nothing can be attributed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("watch cgroups: {0}")]
    Cgroups(#[source] io::Error),
    #[error("watch the table of mounts at {path}: {source}")]
    Mounts { path: PathBuf, source: io::Error },
    #[error("start the thread that asks the Kubernetes API: {0}")]
    Kubernetes(#[source] io::Error),
}

/// Knows whose an operation is. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Attribution {
    // Threads first: they end before what they fill.
    kubernetes: Option<Watch>,
    _mounts: Option<MountWatch>,
    cgroups: CgroupWatch,
    pods: Arc<Pods>,
    claims: Arc<Claims>,
    volumes: Option<Arc<Volumes>>,
    identities: Memo<u64, Identity>,
    told_volumes: Memo<(u32, Option<Arc<str>>), Volume>,
    counters: Arc<Counters>,
}

impl Attribution {
    /// When it returns, the cgroups and mounts of now are known; the API is heard of later.
    ///
    /// # Errors
    /// A thread or the table of mounts is not to be had. An API that is away is no error: see [`Self::status`].
    pub fn start(config: Config) -> Result<Arc<Self>, StartError> {
        let Config { hierarchy, kubelet, mounts, mounts_every, kubernetes } = config;
        let counters = Arc::<Counters>::default();
        let pods = Arc::new(Pods::new(Arc::clone(&counters)));
        let hierarchy = hierarchy.or_else(|| container::hierarchies().ok()?.into_iter().next());
        let cgroups = Arc::new(Cgroups::below(hierarchy, Arc::clone(&counters)));
        let cgroups = CgroupWatch::start(cgroups, Arc::clone(&counters)).map_err(StartError::Cgroups)?;
        let volumes = kubelet.map(|kubelet| Arc::new(Volumes::new(&kubelet, Arc::clone(&counters))));
        let watch_mounts = |volumes: &Arc<Volumes>| {
            let (fills, changes) = ((Arc::clone(volumes), Arc::clone(&counters)), Arc::clone(&pods));
            MountWatch::start(&mounts, mounts_every, fills, move || changes.changed())
        };
        let _mounts = volumes.as_ref().map(watch_mounts).transpose();
        let _mounts = _mounts.map_err(|source| StartError::Mounts { path: mounts.clone(), source })?;
        let (claims, kubernetes) = match kubernetes {
            None => (Arc::new(Claims::none(Arc::clone(&counters))), None),
            Some(config) => {
                let (claims, asked) = Claims::of_cluster(Arc::clone(&counters));
                let claims = Arc::new(claims);
                let learns =
                    Learns { pods: Arc::clone(&pods), claims: Arc::clone(&claims), counters: Arc::clone(&counters) };
                (claims, Some(Watch::start(config, learns, asked).map_err(StartError::Kubernetes)?))
            }
        };
        let (identities, told_volumes) = (Memo::default(), Memo::default());
        Ok(Arc::new(Self { kubernetes, _mounts, cgroups, pods, claims, volumes, identities, told_volumes, counters }))
    }

    /// Whose a cgroup is; nothing for one that is not known (yet).
    #[must_use]
    pub fn of_cgroup(&self, id: u64) -> Option<Arc<Identity>> {
        self.identities.get(self.pods.generation(), &id, || {
            let cgroup = self.cgroups.sought().cgroup(id)?;
            Some(self.pods.identity(&cgroup))
        })
    }

    /// The volume behind a device as the kernel side has it (20 bits of minor below the major), as the pod with that uid sees it;
    /// nothing for a device that is no volume's alone.
    #[must_use]
    pub fn volume_of(&self, device: u32, pod: Option<&Arc<str>>) -> Option<Arc<Volume>> {
        let volumes = self.volumes.as_ref()?;
        self.told_volumes.get(self.pods.generation(), &(device, pod.cloned()), || {
            let mounted = volumes.behind(device, pod.map(|pod| &**pod))?;
            Some(self.told(mounted))
        })
    }

    /// The kernel side says that a cgroup was made in another one. It may be gone already.
    pub fn made(&self, id: u64, parent: u64, name: &str) {
        self.cgroups.sought().cgroups().made(id, parent, name);
    }

    /// Where the hierarchy is mounted whose cgroups are known.
    #[must_use]
    pub fn hierarchy(&self) -> Option<&Path> {
        self.cgroups.sought().cgroups().hierarchy()
    }

    /// All cgroups that are there, by their ids.
    #[must_use]
    pub fn cgroups(&self) -> Vec<(u64, Arc<Identity>)> {
        let there = self.cgroups.sought().cgroups().there();
        there.into_iter().map(|(id, cgroup)| (id, Arc::new(self.pods.identity(&cgroup)))).collect()
    }

    /// Grows when there is another cgroup, or one less.
    #[must_use]
    pub fn cgroup_changes(&self) -> u64 {
        self.cgroups.sought().cgroups().changes()
    }

    /// Whether nothing can happen in a cgroup any more. Asks the file system; one that nobody knows is looked for, and known to be gone later.
    #[must_use]
    pub fn is_gone(&self, id: u64) -> bool {
        let sought = self.cgroups.sought();
        // Has it looked for, if need be.
        let _known_or_sought = sought.cgroup(id);
        sought.cgroups().is_gone(id)
    }

    /// Grows when an answer may be another than before, other than by a cgroup that is new.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.pods.generation()
    }

    /// How it stands with the Kubernetes API; nothing where there is none.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.kubernetes.as_ref().map(Watch::status)
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What was counted so far, by name.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL.into_iter().map(|counter| (counter.name(), self.counters.get(counter))).collect()
    }

    fn told(&self, mounted: Mounted) -> Volume {
        let Mounted { pod, kind, name, driver, is_ephemeral } = mounted;
        let pod = self.pods.pod(&pod);
        let in_pod = pod.as_ref().map(|pod| pod.volumes.as_slice()).unwrap_or_default();
        if is_ephemeral || in_pod.iter().any(|volume| volume.name == name && volume.claim.is_none()) {
            return Volume { name, kind, driver, claim: None, storage_class: None };
        }
        let volume = self.claims.volume(&name);
        let storage_class = volume.as_ref().and_then(|volume| volume.storage_class.clone());
        let by_api = volume.as_ref().and_then(|volume| volume.claim.clone());
        // The kubelet's folder has the volume's name and the pod the claim's, so that only a pod with a single claim tells.
        let by_pod = || {
            let pod = pod.as_ref()?;
            let mut claims = in_pod.iter().filter_map(|volume| volume.claim.as_ref());
            let (Some(name), None) = (claims.next(), claims.next()) else { return None };
            Some(Claim { namespace: Arc::clone(&pod.namespace), name: Arc::clone(name) })
        };
        Volume { name, kind, driver, claim: by_api.or_else(by_pod), storage_class }
    }
}

impl ContainerNames for Attribution {
    fn container(&self, cgroup: u64) -> Option<Arc<str>> {
        self.of_cgroup(cgroup)?.container_id.clone()
    }
}

#[cfg(test)]
mod tests;
