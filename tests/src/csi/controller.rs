//! `fsi-csi controller`, as it runs beside an external-resizer.

use std::process::{Child, Stdio};

use fsi_csi::proto::csi::controller_client::ControllerClient;
use fsi_csi::proto::csi::{CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::api::Api;
use super::binary;
use crate::collector::free_port;
use crate::eventually::eventually;
use crate::fsi;
use crate::http;
use crate::mount::scratch;

/// One that answers.
#[derive(Debug)]
pub struct Controller {
    _directory: TempDir,
    child: Child,
    /// The port of its pages.
    metrics: u16,
    runtime: Runtime,
    client: ControllerClient<Channel>,
}

impl Controller {
    #[must_use]
    pub fn start() -> Self {
        Self::with(None)
    }

    /// One in a cluster.
    #[must_use]
    pub fn in_cluster(api: &Api) -> Self {
        Self::with(Some(api))
    }

    fn with(api: Option<&Api>) -> Self {
        let directory = scratch();
        let endpoint = format!("unix://{}", directory.path().join("csi.sock").display());
        let mut command = fsi::wrapped(binary());
        let metrics = free_port();
        command.args(["controller", "--endpoint", &endpoint, "--metrics", &format!("127.0.0.1:{metrics}")]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        match api {
            Some(api) => command.env("KUBECONFIG", api.kubeconfig()),
            None => command.arg("--no-kubernetes"),
        };
        let child = command.spawn().expect("it starts");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let client = {
            let _in_it = runtime.enter();
            ControllerClient::new(Endpoint::from_shared(endpoint).expect("a path").connect_lazy())
        };
        let socket = directory.path().join("csi.sock");
        eventually("the controller answers", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        Self { _directory: directory, child, metrics, runtime, client }
    }

    /// Whether a page of it says that it is well.
    #[must_use]
    pub fn is_well(&self, page: &str) -> bool {
        http::is_well(self.metrics, page)
    }

    /// The size it agrees to, and whether the node has to do something.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn expand(&self, id: &str, required_bytes: i64) -> Result<(i64, bool), Status> {
        let request = ControllerExpandVolumeRequest {
            volume_id: id.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes, limit_bytes: 0 }),
            ..ControllerExpandVolumeRequest::default()
        };
        let done = self.runtime.block_on(self.client.clone().controller_expand_volume(request))?.into_inner();
        Ok((done.capacity_bytes, done.node_expansion_required))
    }

    /// # Errors
    /// What the driver answers.
    pub fn create(&self, name: &str) -> Result<(), Status> {
        let request = CreateVolumeRequest { name: name.to_owned(), ..CreateVolumeRequest::default() };
        self.runtime.block_on(self.client.clone().create_volume(request)).map(drop)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}
