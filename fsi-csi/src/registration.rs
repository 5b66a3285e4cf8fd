//! How the kubelet learns of the driver: it watches a folder for sockets, and asks at each who is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic::{Request, Response, Status};

use crate::DRIVER;
use crate::proto::registration::registration_server::Registration;
use crate::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

/// What the kubelet is told.
#[derive(Clone, Debug)]
pub struct Registrar {
    /// The driver's socket as the kubelet sees it.
    pub endpoint: PathBuf,
    /// Whether the kubelet has said that it knows the driver.
    is_known: Arc<AtomicBool>,
}

impl Registrar {
    /// Where the driver's socket is for the kubelet: as we have it, if that is in its folder, else in the folder for plugins, which
    /// is then mounted where we have it.
    #[must_use]
    pub fn new(socket: &Path, kubelet: &Path) -> Self {
        let endpoint = match socket.starts_with(kubelet) {
            true => socket.to_owned(),
            false => {
                let name = socket.file_name().unwrap_or_else(|| "csi.sock".as_ref());
                kubelet.join("plugins").join(DRIVER).join(name)
            }
        };
        Self { endpoint, is_known: Arc::default() }
    }

    /// Whether the kubelet has taken the driver.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// The socket at which the kubelet asks.
    #[must_use]
    pub fn socket(folder: &Path) -> PathBuf {
        folder.join(format!("{DRIVER}-reg.sock"))
    }
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        self.is_known.store(plugin_registered, Ordering::Relaxed);
        match plugin_registered {
            true => tracing::info!("the kubelet knows the driver"),
            false => tracing::error!(error, "the kubelet does not take the driver"),
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_is_told_its_own_path() {
        let kubelet = Path::new("/var/lib/kubelet");
        let inside = Registrar::new(Path::new("/csi/csi.sock"), kubelet);
        assert_eq!(inside.endpoint, Path::new("/var/lib/kubelet/plugins/interposer.fsi.dev/csi.sock"));
        let same = Registrar::new(Path::new("/var/lib/kubelet/plugins/x/s.sock"), kubelet);
        assert_eq!(same.endpoint, Path::new("/var/lib/kubelet/plugins/x/s.sock"));
    }
}
