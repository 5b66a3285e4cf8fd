//! Volumes shown at their stage, and to pods.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::access::{self, Access};
use crate::bounded;
use crate::controller::own_parameters;
use crate::driver::{Namespace, NodeDriver};
use crate::error::CallError;
use crate::holder::{Held, Holder, HolderError, Owner};
use crate::mounting::{Known, Published, Wanted};
use crate::mounts;
use crate::parameters::{Parameters, Source};
use crate::pool::{Lifetime, Pool, Range, Wish};
use crate::proto::csi::{
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeStageVolumeRequest, NodeStageVolumeResponse,
};
use crate::records::Pod;
use crate::volume_id::VolumeId;

use super::{LIMIT, some_id};

/// What stage and publish have in common.
struct Asked {
    volume: VolumeId,
    access: Access,
    parameters: Parameters,
    config_map: Option<String>,
    pod: Option<Pod>,
    /// What spans and metrics call the volume.
    called: String,
    /// Whose it is, as far as it is known.
    namespace: Option<String>,
}

impl Asked {
    async fn read(
        driver: &NodeDriver,
        id: &str,
        access: Access,
        context: &HashMap<String, String>,
        (whose, target): (Namespace, &str),
    ) -> Result<Self, CallError> {
        let parameters = Parameters::read(context)?;
        match whose {
            Namespace::OfTheClaim => parameters.source.for_claims()?,
            Namespace::OfThePod => parameters.source.for_pods()?,
        }
        let config_map = driver.config_map(&parameters, context, whose).await?;
        let called = match whose {
            Namespace::OfTheClaim => context.get("csi.storage.k8s.io/pvc/name").map(String::as_str),
            Namespace::OfThePod => name_in_pod(target),
        };
        let called = called.unwrap_or(id).to_owned();
        let namespace = context.get(whose.key()).cloned();
        Ok(Self { volume: VolumeId::parse(id)?, access, parameters, config_map, pod: pod(context), called, namespace })
    }

    /// A volume for a claim: of the pool, or held.
    fn wanted(&self, pool: &Pool, held: Option<Held>) -> Result<Wanted, CallError> {
        let bytes = pool.get(&self.volume)?.bytes;
        match held {
            Some(Held { holder, directory }) => self.shown(directory, bytes, Some(holder)),
            None => self.shown(pool.data(&self.volume), bytes, None),
        }
    }

    /// What is held for the volume at that place, if its files are in another claim.
    async fn held(&self, driver: &NodeDriver, place: &str) -> Result<Option<Held>, CallError> {
        if self.parameters.source == Source::Directory {
            return Ok(None);
        }
        let (mounting, place) = (driver.mounting.clone(), place.to_owned());
        let known =
            bounded::work("looking for the holder", LIMIT, (), move || mounting.held(&mounts::place_to_empty(&place)?));
        let known = match known.await? {
            // What is shown stays what it is, whoever holds it by now.
            Some(Known { holder, shows: Some(directory) }) => return Ok(Some(Held { holder, directory })),
            known => known.map(|known| known.holder),
        };
        match &self.parameters.source {
            Source::Directory => Ok(None),
            Source::Claim { name } => {
                let owner = Owner::from(self.pod.as_ref().ok_or(HolderError::NoPod)?);
                driver.holders.hold(&self.volume, &owner, name, known.as_ref()).await.map(Some)
            }
            Source::Class { .. } => {
                let (pool, id) = (driver.mounting.pool.clone(), self.volume.clone());
                let volume = bounded::work("looking for the volume", LIMIT, (), move || pool.get(&id)).await?;
                let backing = volume.backing.ok_or(HolderError::NoOwner)?;
                driver.holders.keep(&backing).await?;
                let owner = driver.holders.owner_of(&backing).await?;
                driver.holders.hold(&self.volume, &owner, &backing.name, known.as_ref()).await.map(Some)
            }
        }
    }

    fn shown(&self, data: PathBuf, bytes: Option<u64>, holder: Option<Holder>) -> Result<Wanted, CallError> {
        let rules = self.parameters.document(self.config_map.as_deref(), bytes)?;
        // As the kubelet: who only reads changes nothing.
        let group = self.access.group.filter(|_| !self.access.flags.is_read_only());
        let (volume, pod) = (self.volume.clone(), self.pod.clone());
        let (called, namespace) = (self.called.clone(), self.namespace.clone());
        Ok(Wanted { volume, data, called, namespace, rules, group, pod, holder })
    }
}

pub(super) async fn stage(
    driver: &NodeDriver,
    request: NodeStageVolumeRequest,
) -> Result<NodeStageVolumeResponse, CallError> {
    let id = some_id(&request.volume_id)?;
    let access = access::read(request.volume_capability.as_ref())?;
    let guard = driver.locks.hold(id)?;
    let asked = Asked::read(driver, id, access, &request.volume_context, (Namespace::OfTheClaim, "")).await?;
    let held = asked.held(driver, &request.staging_target_path).await?;
    let mounting = driver.mounting.clone();
    bounded::work("staging the volume", LIMIT, guard, move || {
        let stage = mounts::place(&request.staging_target_path, "staging target path")?;
        mounting.stage(&asked.wanted(&mounting.pool, held)?, &stage)?;
        Ok(NodeStageVolumeResponse {})
    })
    .await
}

pub(super) async fn publish(
    driver: &NodeDriver,
    request: NodePublishVolumeRequest,
) -> Result<NodePublishVolumeResponse, CallError> {
    let id = some_id(&request.volume_id)?;
    let mut access = access::read(request.volume_capability.as_ref())?;
    if request.readonly {
        access.flags = access.flags.read_only();
    }
    let is_inline = request.volume_context.get("csi.storage.k8s.io/ephemeral").is_some_and(|value| value == "true");
    let whose = if is_inline { Namespace::OfThePod } else { Namespace::OfTheClaim };
    let guard = driver.locks.hold(id)?;
    let asked = Asked::read(driver, id, access, &request.volume_context, (whose, &request.target_path)).await?;
    let mounting = driver.mounting.clone();
    let shown_at = if is_inline { &request.target_path } else { &request.staging_target_path };
    let held = asked.held(driver, shown_at).await?;
    let how = Published { flags: asked.access.flags, one_pod: asked.access.one_pod };
    bounded::work("publishing the volume", LIMIT, guard, move || {
        let target = mounts::place(&request.target_path, "target path")?;
        if !is_inline {
            let stage = mounts::place(&request.staging_target_path, "staging target path")?;
            mounting.publish(&asked.wanted(&mounting.pool, held)?, &stage, &target, &how)?;
        } else if let Some(Held { holder, directory }) = held {
            mounting.publish_inline(&asked.shown(directory, None, Some(holder))?, None, &target, how.flags)?;
        } else {
            let wish = inline(&asked, &request.volume_context);
            let wanted = asked.shown(mounting.pool.data(&asked.volume), None, None)?;
            mounting.publish_inline(&wanted, Some(&wish), &target, how.flags)?;
        }
        Ok(NodePublishVolumeResponse {})
    })
    .await
}

/// The volume that lives as long as the pod.
fn inline(asked: &Asked, context: &HashMap<String, String>) -> Wish {
    Wish {
        id: asked.volume.clone(),
        name: asked.volume.to_string(),
        range: Range::default(),
        parameters: own_parameters(context),
        clone_of: None,
        lifetime: Lifetime::Pod,
        backing: None,
    }
}

/// What a pod calls a volume that is written in it: only the kubelet's path (`.../volumes/kubernetes.io~csi/NAME/mount`) has it.
fn name_in_pod(target: &str) -> Option<&str> {
    let mut parts = target.rsplit('/');
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()?) {
        ("mount", name, "kubernetes.io~csi", "volumes") if !name.is_empty() => Some(name),
        _ => None,
    }
}

/// The pod as the kubelet tells it (`podInfoOnMount`).
fn pod(context: &HashMap<String, String>) -> Option<Pod> {
    let told = |key: &str| context.get(&format!("csi.storage.k8s.io/pod.{key}")).cloned();
    Some(Pod { namespace: told("namespace")?, name: told("name")?, uid: told("uid")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inline_volume_is_called_what_its_pod_calls_it() {
        assert_eq!(name_in_pod("/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~csi/data/mount"), Some("data"));
        for other in ["", "/mnt", "/a/volumes/kubernetes.io~csi/data", "/a/volumes/kubernetes.io~nfs/data/mount"] {
            assert_eq!(name_in_pod(other), None, "{other}");
        }
    }
}
