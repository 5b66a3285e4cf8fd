//! The controller service on a node: volumes of its pool, made, listed, grown and deleted.

mod create;
mod list;
pub mod remote;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::bounded;
use crate::calls::answer;
use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::parameters::{Parameters, Source};
use crate::pool::Range;
use crate::proto::csi::controller_server::Controller;
use crate::proto::csi::controller_service_capability::rpc::Type as Rpc;
use crate::proto::csi::controller_service_capability::{self, Type};
use crate::proto::csi::validate_volume_capabilities_response::Confirmed;
use crate::proto::csi::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetCapabilitiesRequest,
    ControllerGetCapabilitiesResponse, ControllerServiceCapability, CreateVolumeRequest, CreateVolumeResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse, ListVolumesRequest,
    ListVolumesResponse, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
};
use crate::volume_id::VolumeId;
use crate::{access, mounts};

pub(crate) use self::create::own as own_parameters;

/// The time that anybody waits for a call; a long copy goes on, and is asked for again.
const LIMIT: Duration = Duration::from_secs(60);

/// What the controller can on a node.
const CAPABILITIES: [Rpc; 6] = [
    Rpc::CreateDeleteVolume,
    Rpc::GetCapacity,
    Rpc::ListVolumes,
    Rpc::CloneVolume,
    Rpc::ExpandVolume,
    Rpc::SingleNodeMultiWriter,
];

/// The controller of a node's pool.
#[derive(Clone, Debug)]
pub struct PoolController(pub Arc<NodeDriver>);

fn capabilities(of: &[Rpc]) -> Vec<ControllerServiceCapability> {
    let capability = |rpc: &Rpc| ControllerServiceCapability {
        r#type: Some(Type::Rpc(controller_service_capability::Rpc { r#type: (*rpc).into() })),
    };
    of.iter().map(capability).collect()
}

fn id_of(text: &str) -> Result<VolumeId, CallError> {
    if text.is_empty() { Err(CallError::Missing("volume id")) } else { VolumeId::parse(text) }
}

impl PoolController {
    async fn delete(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse, CallError> {
        let id = match id_of(&request.volume_id) {
            // No volume can have it, so it is deleted.
            Err(CallError::BadId(_)) => return Ok(DeleteVolumeResponse {}),
            id => id?,
        };
        let driver = &self.0;
        let guard = driver.locks.hold_alone(id.as_str())?;
        let mounting = driver.mounting.clone();
        let guard = Arc::new(guard);
        let (pool, of) = (mounting.pool.clone(), id.clone());
        let known = bounded::work("looking for the volume", LIMIT, Arc::clone(&guard), move || {
            let table = mounts::Table::read()?;
            let known = pool.read(&of)?;
            let place = match &known {
                None => None,
                Some(_) => mounting.in_use(&table, &of)?,
            };
            match place {
                Some(place) => Err(CallError::InUse { id: of.to_string(), place }),
                None => Ok(known),
            }
        });
        if let Some(backing) = known.await?.and_then(|volume| volume.backing) {
            driver.holders.withdraw(&backing).await?;
        }
        let pool = driver.mounting.pool.clone();
        bounded::work("deleting the volume", LIMIT, guard, move || pool.delete(&id)).await?;
        Ok(DeleteVolumeResponse {})
    }

    async fn validate(
        &self,
        request: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, CallError> {
        let id = id_of(&request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(access::AccessError::None.into());
        }
        let pool = self.0.mounting.pool.clone();
        bounded::work("looking for the volume", LIMIT, (), move || pool.get(&id)).await?;
        let refused = access::read_all(&request.volume_capabilities).map_err(|error| error.to_string());
        let refused = refused.and_then(|()| {
            let parameters = [&request.parameters, &request.volume_context];
            parameters
                .into_iter()
                .try_for_each(|all| Parameters::read(all).map(drop).map_err(|error| error.to_string()))
        });
        let confirmed = Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        Ok(match refused {
            Ok(()) => ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() },
            Err(message) => ValidateVolumeCapabilitiesResponse { confirmed: None, message },
        })
    }

    async fn capacity(&self, request: &GetCapacityRequest) -> Result<GetCapacityResponse, CallError> {
        let can_be = access::read_all(&request.volume_capabilities).is_ok() || request.volume_capabilities.is_empty();
        let is_here = self.0.is_in(request.accessible_topology.as_slice());
        let is_elsewhere =
            Parameters::read(&request.parameters).is_ok_and(|all| matches!(all.source, Source::Class { .. }));
        // Not whether the parameters are right: a class that is wrong would only ever be told to have no room, and why is for CreateVolume to say.
        let available = match can_be && is_here {
            // As much as the other class gives.
            true if is_elsewhere => i64::MAX,
            true => {
                let pool = self.0.mounting.pool.clone();
                as_sent(bounded::work("asking how full the pool is", LIMIT, (), move || pool.room()).await?.available)
            }
            false => 0,
        };
        Ok(GetCapacityResponse {
            available_capacity: available,
            maximum_volume_size: Some(available),
            minimum_volume_size: Some(0),
        })
    }

    async fn expand(
        &self,
        request: ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, CallError> {
        let id = id_of(&request.volume_id)?;
        let range = request.capacity_range.ok_or(CallError::Missing("capacity range"))?;
        let bytes = Range::read(Some(&range))?.bytes()?.ok_or(CallError::Missing("size"))?;
        let driver = &self.0;
        let _guard = driver.locks.hold(id.as_str())?;
        let pool = driver.mounting.pool.clone();
        let work = move || {
            let volume = pool.get(&id)?;
            pool.can_grow(&id, &volume, bytes)?;
            Ok(volume)
        };
        let volume = bounded::work("looking for the volume", LIMIT, (), work).await?;
        let capacity = volume.bytes.unwrap_or(0).max(bytes);
        if range.limit_bytes > 0 && as_sent(capacity) > range.limit_bytes {
            return Err(CallError::Shrink { capacity, limit: range.limit_bytes });
        }
        if let Some(backing) = volume.backing {
            backing.grow(&driver.kubernetes, capacity).await?;
        }
        // The node does the rest, for there are the servers that have to know.
        Ok(ControllerExpandVolumeResponse { capacity_bytes: as_sent(capacity), node_expansion_required: true })
    }
}

/// CSI counts in signed numbers.
pub(crate) fn as_sent(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl Controller for PoolController {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        answer(&self.0.metrics, "CreateVolume", &name, create::create(&self.0, request)).await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "DeleteVolume", &id, self.delete(request)).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "ValidateVolumeCapabilities", &id, self.validate(request)).await
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let driver = Arc::clone(&self.0);
        let work = bounded::work("listing the volumes", LIMIT, (), move || list::list(&driver, &request));
        answer(&self.0.metrics, "ListVolumes", "", work).await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        answer(&self.0.metrics, "GetCapacity", "", self.capacity(&request)).await
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: capabilities(&CAPABILITIES) }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "ControllerExpandVolume", &id, self.expand(request)).await
    }
}
