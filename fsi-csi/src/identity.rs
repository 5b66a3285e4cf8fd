//! Who the driver is and what it can.

use std::path::PathBuf;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::DRIVER;
use crate::bounded;
use crate::proto::csi::identity_server::Identity;
use crate::proto::csi::plugin_capability::service::Type as Service;
use crate::proto::csi::plugin_capability::volume_expansion::Type as Expansion;
use crate::proto::csi::plugin_capability::{self, Type};
use crate::proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};

/// The time that the pool gets to be there.
const LIMIT: Duration = Duration::from_secs(5);

/// The driver, on a node or as the controller.
#[derive(Clone, Debug)]
pub struct Identified {
    /// What has to be there for it to work: its pool.
    pub needs: Option<PathBuf>,
    /// Whether a volume is on one node.
    pub constrained: bool,
}

fn service(service: Service) -> PluginCapability {
    PluginCapability { r#type: Some(Type::Service(plugin_capability::Service { r#type: service.into() })) }
}

#[tonic::async_trait]
impl Identity for Identified {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: std::collections::HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let expansion = plugin_capability::VolumeExpansion { r#type: Expansion::Online.into() };
        let mut capabilities = vec![
            service(Service::ControllerService),
            PluginCapability { r#type: Some(Type::VolumeExpansion(expansion)) },
        ];
        if self.constrained {
            capabilities.push(service(Service::VolumeAccessibilityConstraints));
        }
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        if let Some(pool) = self.needs.clone() {
            let is_there = move || Ok(pool.is_dir().then_some(()).ok_or(pool));
            let found = bounded::work("looking for the pool", LIMIT, (), is_there).await?;
            found.map_err(|pool| Status::failed_precondition(format!("the pool {} is gone", pool.display())))?;
        }
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
