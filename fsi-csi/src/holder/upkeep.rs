//! Holders that go while their volume is in use, evicted or deleted by somebody: another one takes over before this node gives the claim up.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as PodObject;
use k8s_openapi::jiff::Timestamp;
use kube::Api;

use super::{Held, Holder, HolderError, Holders, Owner, answered, manifest};
use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::events;
use crate::records::{Purpose, Record};
use crate::volume_id::VolumeId;

/// How often. Each holder costs a request to the API.
const PERIOD: Duration = Duration::from_secs(10);
/// From a holder that is deleted and ends within that time another one takes over.
const SOON: Duration = Duration::from_secs(60);

/// Looks until it is dropped.
pub async fn keep_up(driver: Arc<NodeDriver>) {
    // Where it was told that none takes over.
    let mut told = HashSet::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = look(&driver, &mut told).await {
            tracing::warn!(%error, "not all holders could be looked at");
        }
    }
}

async fn look(driver: &NodeDriver, told: &mut HashSet<PathBuf>) -> Result<(), CallError> {
    let records = driver.mounting.records.all()?;
    told.retain(|place| records.iter().any(|record| record.place == *place));
    for record in records.iter().filter(|record| record.purpose != Purpose::Publish) {
        let Some(holder) = &record.holder else { continue };
        match driver.holders.lasts(holder).await {
            Ok(true) => {
                told.remove(&record.place);
                continue;
            }
            Ok(false) => {}
            // The API is there, and says something of this one alone.
            Err(HolderError::Api { what, error }) if matches!(*error, kube::Error::Api(_)) => {
                tracing::warn!(what, %error, holder = holder.name, "a holder could not be looked at");
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        // Who works on the volume looks after its holder, too.
        let Ok(_guard) = driver.locks.hold(&record.volume) else { continue };
        if driver.mounting.records.get(&record.place)?.as_ref() != Some(record) {
            continue;
        }
        let Record { volume, place, .. } = record;
        let Holder { name, claim, .. } = holder;
        let (reason, sentence) = match take_over(driver, record, holder).await {
            Ok(Held { holder: next, .. }) => {
                told.remove(place);
                let next = next.name;
                let sentence = format!(
                    "pod {name}, which held claim {claim} for volume {volume} on this node, was deleted or evicted; {next} holds it now, and I/O goes on"
                );
                ("HolderReplaced", sentence)
            }
            Err(error) if told.insert(place.clone()) => {
                let sentence = format!(
                    "pod {name}, which holds claim {claim} for volume {volume} on this node, was deleted or evicted, and no other takes over: \
                     {error}; it is tried again, and until then the files of the volume may come to answer errors"
                );
                ("HolderGone", sentence)
            }
            Err(error) => {
                tracing::warn!(%error, volume, "still no holder takes over");
                continue;
            }
        };
        tracing::warn!(volume, "{sentence}");
        events::warn_pods(driver, volume, reason, &sentence);
    }
    Ok(())
}

async fn take_over(driver: &NodeDriver, record: &Record, holder: &Holder) -> Result<Held, CallError> {
    let id = VolumeId::parse(&record.volume)?;
    let (owner, claim) = match driver.mounting.pool.read(&id)?.and_then(|volume| volume.backing) {
        Some(backing) => (driver.holders.owner_of(&backing).await?, backing.name),
        None => (Owner::from(record.pod.as_ref().ok_or(HolderError::NoPod)?), holder.claim.clone()),
    };
    let held = driver.holders.hold(&id, &owner, &claim, Some(holder)).await?;
    driver.mounting.hand_over(&record.place, &held)?;
    Ok(held)
}

impl Holders {
    /// Whether a holder is there for as long as anybody needs it.
    async fn lasts(&self, holder: &Holder) -> Result<bool, HolderError> {
        let client = self.kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(holder.claim.clone()))?;
        let pods = Api::<PodObject>::namespaced(client, &holder.namespace);
        let found = answered("tell the holder", pods.get_opt(&holder.name)).await?;
        Ok(found.is_some_and(|found| match manifest::state(&found, Timestamp::now()) {
            manifest::State::Runs { .. } | manifest::State::Waits(_) => true,
            manifest::State::Leaves(within) => within > SOON,
            manifest::State::Ended => false,
        }))
    }
}
