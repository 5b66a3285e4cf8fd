//! Persistent volumes by name, as the Kubernetes API knows them. Each is asked for once somebody needs it; nobody waits.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::counters::{Counter, Counters};
use super::objects::PersistentVolume;
use crate::clock::monotonic_ns;

/// Volumes that are remembered.
const MAX_VOLUMES: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");
/// Volumes that wait to be asked for.
const MAX_WAITING: usize = 256;
/// What was asked for is not asked for again for so long, answered or not: an object may come to be, or be bound anew.
const ASKED_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Claims {
    volumes: Mutex<LruCache<Arc<str>, Entry>>,
    /// None without Kubernetes.
    ask: Option<Sender<Arc<str>>>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Entry {
    known: Option<Arc<PersistentVolume>>,
    asked_again_ns: u64,
}

impl Claims {
    /// Those of a cluster, and the names to ask it for.
    pub(super) fn of_cluster(counters: Arc<Counters>) -> (Self, Receiver<Arc<str>>) {
        let (ask, asked) = channel(MAX_WAITING);
        (Self { volumes: Mutex::new(LruCache::new(MAX_VOLUMES)), ask: Some(ask), counters }, asked)
    }

    /// Where there is no cluster to ask.
    pub(super) fn none(counters: Arc<Counters>) -> Self {
        Self { volumes: Mutex::new(LruCache::new(MAX_VOLUMES)), ask: None, counters }
    }

    /// What is known of a volume; it is asked for if need be.
    pub(super) fn volume(&self, name: &Arc<str>) -> Option<Arc<PersistentVolume>> {
        let ask = self.ask.as_ref()?;
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = volumes.get_or_insert_mut(Arc::clone(name), || Entry { known: None, asked_again_ns: 0 });
        let now_ns = monotonic_ns();
        if entry.asked_again_ns <= now_ns {
            match ask.try_send(Arc::clone(name)) {
                Ok(()) => entry.asked_again_ns = now_ns + u64::try_from(ASKED_FOR.as_nanos()).unwrap_or(u64::MAX),
                Err(_) => self.counters.add(Counter::VolumesNotAsked, 1),
            }
        }
        entry.known.clone()
    }

    /// An answer; whether it is news.
    pub(super) fn learn(&self, name: Arc<str>, volume: PersistentVolume) -> bool {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = volumes.get_mut(&name) else { return false };
        let is_news = entry.known.as_deref() != Some(&volume);
        entry.known = Some(Arc::new(volume));
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_asked_for_once_and_known_when_it_is_answered() {
        let (claims, mut asked) = Claims::of_cluster(Arc::default());
        let name = Arc::<str>::from("pvc-1");
        assert_eq!((claims.volume(&name), claims.volume(&name)), (None, None));
        assert_eq!(asked.try_recv().unwrap(), name);
        assert!(asked.try_recv().is_err(), "only once");
        let volume = PersistentVolume { claim: None, storage_class: Some("fast".into()) };
        assert!(claims.learn(Arc::clone(&name), volume.clone()));
        assert!(!claims.learn(Arc::clone(&name), volume.clone()), "known already");
        assert_eq!(claims.volume(&name).as_deref(), Some(&volume));
        claims.volumes.lock().unwrap().get_mut(&name).unwrap().asked_again_ns = 0;
        assert_eq!(claims.volume(&name).as_deref(), Some(&volume), "known while it is asked for again");
        assert_eq!(asked.try_recv().unwrap(), name);
    }

    #[test]
    fn too_many_at_once_are_counted_and_asked_for_later() {
        let (claims, mut asked) = Claims::of_cluster(Arc::default());
        let names: Vec<Arc<str>> = (0..=MAX_WAITING).map(|number| number.to_string().into()).collect();
        for name in &names {
            assert_eq!(claims.volume(name), None);
        }
        assert_eq!(claims.counters.get(Counter::VolumesNotAsked), 1);
        while asked.try_recv().is_ok() {}
        assert_eq!(claims.volume(&names[MAX_WAITING]), None);
        assert_eq!(asked.try_recv().unwrap(), names[MAX_WAITING]);
        assert_eq!(Claims::none(Arc::default()).volume(&names[0]), None);
    }
}
