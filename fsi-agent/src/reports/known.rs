//! Up to which number each mount was heard: what is missing shows when its next server says hello.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MountInfo;

/// Mounts that may talk at once, and mounts that are remembered.
const MAX_MOUNTS: usize = 4096;

/// A mount that talks or talked.
#[derive(Debug)]
struct Mount {
    /// The kernel gives device numbers again.
    target: PathBuf,
    source: PathBuf,
    next_sequence: u64,
    is_heard: bool,
}

/// All of them, by device.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<u32, Mount>>);

/// Why a mount is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A server of this mount is still being listened to.
    Busy,
    /// Too many mounts talk.
    TooMany,
}

/// The right to be the one server of a mount that is listened to.
#[derive(Debug)]
pub(super) struct Hearing {
    known: Arc<Known>,
    dev: u32,
    /// Numbers that were given since this mount was last heard.
    pub(super) missed: u64,
}

impl Known {
    fn mounts(&self) -> MutexGuard<'_, HashMap<u32, Mount>> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mount says hello.
    pub(super) fn hear(self: &Arc<Self>, info: &MountInfo, first_sequence: u64) -> Result<Hearing, Refusal> {
        let mut mounts = self.mounts();
        let mut missed = 0;
        match mounts.get(&info.dev) {
            Some(before) if before.is_heard => return Err(Refusal::Busy),
            Some(before) if before.target == info.target && before.source == info.source => {
                // One that counts from the start again is another mount at the same place.
                missed = first_sequence.saturating_sub(before.next_sequence);
            }
            Some(_another) => {}
            None if mounts.len() >= MAX_MOUNTS => {
                mounts.retain(|_dev, mount| mount.is_heard);
                if mounts.len() >= MAX_MOUNTS {
                    return Err(Refusal::TooMany);
                }
            }
            None => {}
        }
        let MountInfo { dev, target, source, .. } = info.clone();
        mounts.insert(dev, Mount { target, source, next_sequence: first_sequence, is_heard: true });
        drop(mounts);
        Ok(Hearing { known: Arc::clone(self), dev, missed })
    }
}

impl Hearing {
    pub(super) const fn dev(&self) -> u32 {
        self.dev
    }

    /// Everything before this number was taken, or told as lost.
    pub(super) fn heard(&self, next_sequence: u64) {
        if let Some(mount) = self.known.mounts().get_mut(&self.dev) {
            mount.next_sequence = next_sequence;
        }
    }

    /// The mount ended: nobody will go on counting.
    pub(super) fn forget(self) {
        self.known.mounts().remove(&self.dev);
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        if let Some(mount) = self.known.mounts().get_mut(&self.dev) {
            mount.is_heard = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(dev: u32, target: &str) -> MountInfo {
        MountInfo { dev, target: target.into(), ..MountInfo::default() }
    }

    #[test]
    fn a_successor_shows_what_is_missing_and_another_mount_does_not() {
        let known = Arc::new(Known::default());
        let first = known.hear(&mount(5, "/a"), 1).unwrap();
        assert_eq!(first.missed, 0);
        first.heard(11);
        assert_eq!(known.hear(&mount(5, "/a"), 20).unwrap_err(), Refusal::Busy);
        drop(first);
        let second = known.hear(&mount(5, "/a"), 20).unwrap();
        assert_eq!(second.missed, 9);
        drop(second);
        assert_eq!(known.hear(&mount(5, "/b"), 40).unwrap().missed, 0);
        let last = known.hear(&mount(5, "/b"), 40).unwrap();
        assert_eq!(last.missed, 0);
        last.forget();
        assert_eq!(known.hear(&mount(5, "/b"), 90).unwrap().missed, 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Arc::new(Known::default());
        let most = u32::try_from(MAX_MOUNTS).unwrap();
        let mut heard: Vec<_> = (0..most).map(|dev| known.hear(&mount(dev, "/a"), 1).unwrap()).collect();
        assert_eq!(known.hear(&mount(most, "/a"), 1).unwrap_err(), Refusal::TooMany);
        heard.pop();
        known.hear(&mount(most, "/a"), 1).unwrap();
        assert_eq!(known.mounts().len(), MAX_MOUNTS);
    }
}
