//! The node service: requests to [`crate::mounting`], each under its volume's guard and with a bound on its time.

mod expand;
mod publish;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::bounded;
use crate::calls::answer;
use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::mounts;
use crate::proto::csi::node_server::Node;
use crate::proto::csi::node_service_capability::rpc::Type as Rpc;
use crate::proto::csi::node_service_capability::{self, Type};
use crate::proto::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse,
};

/// The time that anybody waits for a call; the kubelet waits for two minutes.
const LIMIT: Duration = Duration::from_secs(60);

/// What a node can. The group is ours to give ([`crate::pool::give_to`]), so that the kubelet does not walk through the rules.
const CAPABILITIES: [Rpc; 6] = [
    Rpc::StageUnstageVolume,
    Rpc::GetVolumeStats,
    Rpc::VolumeCondition,
    Rpc::ExpandVolume,
    Rpc::SingleNodeMultiWriter,
    Rpc::VolumeMountGroup,
];

/// The node service.
#[derive(Clone, Debug)]
pub struct NodeService(pub Arc<NodeDriver>);

/// As the caller writes it: what it is asked to take away may be a volume that we never made.
fn some_id(text: &str) -> Result<&str, CallError> {
    if text.is_empty() { Err(CallError::Missing("volume id")) } else { Ok(text) }
}

impl NodeService {
    async fn unstage(&self, request: NodeUnstageVolumeRequest) -> Result<NodeUnstageVolumeResponse, CallError> {
        let id = some_id(&request.volume_id)?;
        if request.staging_target_path.is_empty() {
            return Err(CallError::Missing("staging target path"));
        }
        // Also while the holder goes: nobody is to find it once more.
        let guard = Arc::new(self.0.locks.hold(id)?);
        let mounting = self.0.mounting.clone();
        let holder = bounded::work("unstaging the volume", LIMIT, Arc::clone(&guard), move || {
            mounting.unstage(&mounts::place_to_empty(&request.staging_target_path)?)
        });
        if let Some(holder) = holder.await? {
            self.0.holders.release(id, holder).await;
        }
        Ok(NodeUnstageVolumeResponse {})
    }

    async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<NodeUnpublishVolumeResponse, CallError> {
        let id = some_id(&request.volume_id)?;
        if request.target_path.is_empty() {
            return Err(CallError::Missing("target path"));
        }
        let guard = Arc::new(self.0.locks.hold(id)?);
        let mounting = self.0.mounting.clone();
        let (volume, target) = (id.to_owned(), request.target_path.clone());
        let holder = bounded::work("unpublishing the volume", LIMIT, Arc::clone(&guard), move || {
            mounting.unpublish(&volume, &mounts::place_to_empty(&target)?)
        });
        if let Some(holder) = holder.await? {
            self.0.holders.release(id, holder).await;
        }
        Ok(NodeUnpublishVolumeResponse {})
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "NodeStageVolume", &id, publish::stage(&self.0, request)).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "NodeUnstageVolume", &id, self.unstage(request)).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "NodePublishVolume", &id, publish::publish(&self.0, request)).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "NodeUnpublishVolume", &id, self.unpublish(request)).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "NodeGetVolumeStats", &id, stats::stats(&self.0, request)).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        answer(&self.0.metrics, "NodeExpandVolume", &id, expand::expand(&self.0, request)).await
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |rpc: Rpc| NodeServiceCapability {
            r#type: Some(Type::Rpc(node_service_capability::Rpc { r#type: rpc.into() })),
        };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: CAPABILITIES.map(capability).into() }))
    }

    async fn node_get_info(
        &self,
        _request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.0.node.clone(),
            max_volumes_per_node: 0,
            accessible_topology: self.0.topology(),
        }))
    }
}
