//! A volume for a claim.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::driver::{Namespace, NodeDriver};
use crate::error::CallError;
use crate::holder::HolderError;
use crate::holder::backing::Backing;
use crate::parameters::{self, Parameters, Source};
use crate::pool::{Lifetime, Range, Wish};
use crate::proto::csi::volume_content_source::Type;
use crate::proto::csi::{CreateVolumeRequest, CreateVolumeResponse, Volume, VolumeContentSource};
use crate::volume_id::VolumeId;
use crate::{access, bounded};

use super::{LIMIT, as_sent};

pub(super) async fn create(
    driver: &NodeDriver,
    request: CreateVolumeRequest,
) -> Result<CreateVolumeResponse, CallError> {
    if request.name.is_empty() {
        return Err(CallError::Missing("name"));
    }
    access::read_all(&request.volume_capabilities)?;
    let read = Parameters::read(&request.parameters)?;
    read.source.for_claims()?;
    let clone_of = clone_source(request.volume_content_source.as_ref())?;
    let range = Range::read(request.capacity_range.as_ref())?;
    let requisite = request.accessibility_requirements.as_ref().map_or(&[][..], |wished| &wished.requisite);
    if !driver.is_in(requisite) {
        return Err(CallError::OtherNode { node: driver.node.clone() });
    }
    let id = VolumeId::of_name(&request.name);
    let guard = Arc::new(driver.locks.hold_alone(id.as_str())?);
    // Nobody deletes what is being copied.
    let source_guard = clone_of.as_ref().map(|of| driver.locks.copy(of.as_str())).transpose()?;
    let config_map = driver.config_map(&read, &request.parameters, Namespace::OfTheClaim).await?;
    read.document(config_map.as_deref(), None)?;
    let backing = match &read.source {
        Source::Class { .. } => Some(behind(&id, &request.parameters)?),
        Source::Directory | Source::Claim { .. } => None,
    };
    if backing.is_some() && clone_of.is_some() {
        return Err(CallError::NoClonesOfClaims);
    }
    let wish = Wish {
        id: id.clone(),
        name: request.name,
        range,
        parameters: own(&request.parameters),
        clone_of,
        lifetime: Lifetime::Claim,
        backing: backing.clone(),
    };
    let pool = driver.mounting.pool.clone();
    let volume = bounded::work("making the volume", LIMIT, Arc::clone(&guard), move || {
        let _until_copied = source_guard;
        pool.create(&wish)
    })
    .await?;
    if let (Source::Class { name }, Some(backing)) = (&read.source, backing) {
        let bytes = volume.bytes.ok_or(CallError::Missing("size"))?;
        match driver.holders.provide(&backing, name, bytes, driver.reach).await {
            // Whoever asked for it is gone, and nobody would ever have it deleted.
            Err(error @ HolderError::NoClaim { .. }) => {
                let (pool, id) = (driver.mounting.pool.clone(), id.clone());
                bounded::work("forgetting the volume", LIMIT, guard, move || pool.delete(&id)).await?;
                return Err(error.into());
            }
            provided => provided?,
        }
    }
    Ok(CreateVolumeResponse {
        volume: Some(Volume {
            capacity_bytes: volume.bytes.map_or(0, as_sent),
            volume_id: id.to_string(),
            volume_context: request.parameters,
            content_source: request.volume_content_source,
            accessible_topology: driver.topology().into_iter().collect(),
        }),
    })
}

/// Without what Kubernetes adds, which is not what the user says.
pub(crate) fn own(all: &HashMap<String, String>) -> BTreeMap<String, String> {
    let own = all.iter().filter(|(name, _)| parameters::NAMES.contains(&name.as_str()));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The claim of another class that is going to be behind a volume.
fn behind(id: &VolumeId, context: &HashMap<String, String>) -> Result<Backing, CallError> {
    let told = |key: &str| context.get(&format!("csi.storage.k8s.io/pvc/{key}")).ok_or(HolderError::NoOwner);
    Ok(Backing::new(id, told("namespace")?, told("name")?))
}

fn clone_source(source: Option<&VolumeContentSource>) -> Result<Option<VolumeId>, CallError> {
    match source.and_then(|source| source.r#type.as_ref()) {
        None => Ok(None),
        Some(Type::Snapshot(_)) => Err(CallError::NoSnapshots),
        Some(Type::Volume(volume)) => VolumeId::parse(&volume.volume_id)
            .map(Some)
            .map_err(|_bad_id| CallError::NoCloneSource(volume.volume_id.clone())),
    }
}
