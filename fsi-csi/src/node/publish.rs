//! Volumes shown at their stage, and to pods.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::access::{self, Access};
use crate::bounded;
use crate::controller::own_parameters;
use crate::driver::{Namespace, NodeDriver};
use crate::error::CallError;
use crate::holder::{Held, Holder, HolderError};
use crate::mounting::{Published, Wanted};
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
}

impl Asked {
    async fn read(
        driver: &NodeDriver,
        id: &str,
        access: Access,
        context: &HashMap<String, String>,
        whose: Namespace,
    ) -> Result<Self, CallError> {
        let parameters = Parameters::read(context)?;
        match whose {
            Namespace::OfTheClaim => parameters.source.for_claims()?,
            Namespace::OfThePod => parameters.source.for_pods()?,
        }
        let config_map = driver.config_map(&parameters, context, whose).await?;
        Ok(Self { volume: VolumeId::parse(id)?, access, parameters, config_map, pod: pod(context) })
    }

    /// A volume of the pool.
    fn wanted(&self, pool: &Pool) -> Result<Wanted, CallError> {
        let bytes = pool.get(&self.volume)?.bytes;
        self.shown(pool.data(&self.volume), bytes, None)
    }

    fn shown(&self, data: PathBuf, bytes: Option<u64>, holder: Option<Holder>) -> Result<Wanted, CallError> {
        let rules = self.parameters.document(self.config_map.as_deref(), bytes)?;
        let (volume, group, pod) = (self.volume.clone(), self.access.group, self.pod.clone());
        Ok(Wanted { volume, data, rules, group, pod, holder })
    }
}

pub(super) async fn stage(
    driver: &NodeDriver,
    request: NodeStageVolumeRequest,
) -> Result<NodeStageVolumeResponse, CallError> {
    let id = some_id(&request.volume_id)?;
    let access = access::read(request.volume_capability.as_ref())?;
    let guard = driver.locks.hold(id)?;
    let asked = Asked::read(driver, id, access, &request.volume_context, Namespace::OfTheClaim).await?;
    let mounting = driver.mounting.clone();
    bounded::work("staging the volume", LIMIT, guard, move || {
        let stage = mounts::place(&request.staging_target_path, "staging target path")?;
        mounting.stage(&asked.wanted(&mounting.pool)?, &stage)?;
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
    let asked = Asked::read(driver, id, access, &request.volume_context, whose).await?;
    let mounting = driver.mounting.clone();
    let held = match &asked.parameters.source {
        Source::Claim { name } => {
            let pod = asked.pod.as_ref().ok_or(HolderError::NoPod)?;
            Some(driver.holders.hold(&asked.volume, pod, name).await?)
        }
        Source::Directory | Source::Class { .. } => None,
    };
    let how = Published { flags: asked.access.flags, one_pod: asked.access.one_pod };
    bounded::work("publishing the volume", LIMIT, guard, move || {
        let target = mounts::place(&request.target_path, "target path")?;
        if let Some(Held { holder, directory }) = held {
            mounting.publish_inline(&asked.shown(directory, None, Some(holder))?, None, &target, how.flags)?;
        } else if is_inline {
            let wish = inline(&asked, &request.volume_context);
            let wanted = asked.shown(mounting.pool.data(&asked.volume), None, None)?;
            mounting.publish_inline(&wanted, Some(&wish), &target, how.flags)?;
        } else {
            let stage = mounts::place(&request.staging_target_path, "staging target path")?;
            mounting.publish(&asked.wanted(&mounting.pool)?, &stage, &target, &how)?;
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
    }
}

/// The pod as the kubelet tells it (`podInfoOnMount`).
fn pod(context: &HashMap<String, String>) -> Option<Pod> {
    let told = |key: &str| context.get(&format!("csi.storage.k8s.io/pod.{key}")).cloned();
    Some(Pod { namespace: told("namespace")?, name: told("name")?, uid: told("uid")? })
}
