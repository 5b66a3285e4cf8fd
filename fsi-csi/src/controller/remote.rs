//! The controller service without a pool, beside the external-resizer: it agrees to a size, for which it has the claim behind a volume grow, and the
//! node of the volume makes it so, or refuses where its pool has no room.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{as_sent, capabilities, id_of};
use crate::calls::answer;
use crate::error::CallError;
use crate::holder::backing::Backing;
use crate::kubernetes::Kubernetes;
use crate::metrics::Metrics;
use crate::pool::Range;
use crate::proto::csi::controller_server::Controller;
use crate::proto::csi::controller_service_capability::rpc::Type as Rpc;
use crate::proto::csi::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetCapabilitiesRequest,
    ControllerGetCapabilitiesResponse, CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest,
    DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse, ListVolumesRequest, ListVolumesResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
};

/// The controller away from any node.
#[derive(Clone, Debug)]
pub struct RemoteController {
    pub metrics: Arc<Metrics>,
    pub kubernetes: Kubernetes,
}

async fn expand(
    kubernetes: &Kubernetes,
    request: ControllerExpandVolumeRequest,
) -> Result<ControllerExpandVolumeResponse, CallError> {
    let id = id_of(&request.volume_id)?;
    let bytes = Range::read(request.capacity_range.as_ref())?.bytes()?.ok_or(CallError::Missing("size"))?;
    if let Some(backing) = Backing::of(kubernetes, &id).await? {
        backing.grow(kubernetes, bytes).await?;
    }
    Ok(ControllerExpandVolumeResponse { capacity_bytes: as_sent(bytes), node_expansion_required: true })
}

fn on_the_node<T>(call: &'static str) -> Result<Response<T>, Status> {
    Err(CallError::NoPool(call).into())
}

#[tonic::async_trait]
impl Controller for RemoteController {
    async fn controller_get_capabilities(
        &self,
        _request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let all = [Rpc::ExpandVolume, Rpc::SingleNodeMultiWriter];
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: capabilities(&all) }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.metrics, "ControllerExpandVolume", &id, expand(&self.kubernetes, request)).await
    }

    async fn create_volume(
        &self,
        _request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        on_the_node("CreateVolume")
    }

    async fn delete_volume(
        &self,
        _request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        on_the_node("DeleteVolume")
    }

    async fn validate_volume_capabilities(
        &self,
        _request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        on_the_node("ValidateVolumeCapabilities")
    }

    async fn list_volumes(
        &self,
        _request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        on_the_node("ListVolumes")
    }

    async fn get_capacity(
        &self,
        _request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        on_the_node("GetCapacity")
    }
}
