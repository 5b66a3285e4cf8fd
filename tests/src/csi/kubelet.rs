//! What passes between the driver and the kubelet when it registers.

use std::path::Path;

use fsi_csi::proto::registration::registration_client::RegistrationClient;
use fsi_csi::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use tonic::transport::{Channel, Endpoint};

use super::Driver;

impl Driver {
    /// What it tells the kubelet.
    #[must_use]
    pub fn registered(&self, socket: &Path) -> PluginInfo {
        self.wait_for(async {
            let info = client(socket).await.get_info(InfoRequest {}).await;
            info.expect("an answer").into_inner()
        })
    }

    /// Says what the kubelet says of a driver that it has taken, or not.
    pub fn registration(&self, is_taken: bool) {
        let socket = self.path("registry").join(format!("{}-reg.sock", fsi_csi::DRIVER));
        self.wait_for(async {
            let status = RegistrationStatus { plugin_registered: is_taken, error: String::new() };
            let told = client(&socket).await.notify_registration_status(status).await;
            told.expect("it is taken note of");
        });
    }
}

async fn client(socket: &Path) -> RegistrationClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("a path");
    RegistrationClient::new(endpoint.connect().await.expect("somebody listens"))
}
