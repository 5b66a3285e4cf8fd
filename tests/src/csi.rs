//! The CSI driver of one test: `fsi-csi node` with folders of its own. When it is over, no mount of it may be left.

pub mod api;
pub mod controller;
mod kubelet;
pub mod pod;
mod processes;
pub mod requests;
mod setup;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use fsi_csi::proto::csi::controller_client::ControllerClient;
use fsi_csi::proto::csi::node_client::NodeClient;
use fsi_csi::proto::csi::volume_capability::access_mode::Mode;
use fsi_csi::proto::csi::{
    CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, NodeExpandVolumeRequest, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, Volume,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use self::api::Api;
use self::requests::{capability, map, mounts_below};
use self::setup::Setup;
use crate::eventually::eventually;
use crate::fsi;
use crate::http;
use crate::mount::scratch;
use crate::node_keeper::NodeKeeper;

/// The longest that a call may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A running driver and a client.
#[derive(Debug)]
pub struct Driver {
    directory: TempDir,
    child: Child,
    runtime: Runtime,
    channel: Channel,
    setup: Setup,
}

impl Driver {
    /// One that answers.
    #[must_use]
    pub fn start() -> Self {
        Self::with(Setup::new())
    }

    /// One that starts another program as `fsi`.
    #[must_use]
    pub fn with_server(server: PathBuf) -> Self {
        Self::with(Setup { server, ..Setup::new() })
    }

    /// One that is run by a program which sets something up and then runs its last arguments.
    #[must_use]
    pub fn under(wrapper: &[&str]) -> Self {
        let wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        Self::with(Setup { wrapper, ..Setup::new() })
    }

    /// One in a cluster.
    #[must_use]
    pub fn in_cluster(api: &Api) -> Self {
        Self::with(Setup { kubeconfig: Some(api.kubeconfig()), ..Setup::new() })
    }

    /// One whose servers are kept by the keeper of the node.
    #[must_use]
    pub fn kept_by(keeper: &NodeKeeper) -> Self {
        Self::with(Setup { keeper: Some(keeper.socket().to_owned()), ..Setup::new() })
    }

    /// Both.
    #[must_use]
    pub fn kept_in_cluster(keeper: &NodeKeeper, api: &Api) -> Self {
        let keeper = Some(keeper.socket().to_owned());
        Self::with(Setup { keeper, kubeconfig: Some(api.kubeconfig()), ..Setup::new() })
    }

    fn with(setup: Setup) -> Self {
        let directory = scratch();
        fs::create_dir(directory.path().join("kubelet")).expect("a directory");
        let child = setup.spawn(directory.path());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let channel = channel(&runtime, directory.path());
        let driver = Self { directory, child, runtime, channel, setup };
        driver.wait();
        driver
    }

    fn wait(&self) {
        let socket = socket(self.directory.path());
        eventually("the driver answers", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    /// SIGKILL.
    pub fn kill_now(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("it is not 0");
        kill_process(pid, Signal::KILL).expect("it runs");
    }

    /// SIGKILL, if it lives, and another one.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
        self.child = self.setup.spawn(self.directory.path());
        // The old one finds out with its next call that it leads nowhere.
        self.channel = channel(&self.runtime, self.directory.path());
        self.wait();
    }

    /// SIGKILL, if it lives, and one of another version, which starts another program as `fsi`.
    pub fn kill_and_replace(&mut self, server: &Path) {
        server.clone_into(&mut self.setup.server);
        self.kill_and_restart();
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(self.directory.path())
    }

    /// The value of one of its metrics, by name and labels.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let text = http::get(self.setup.metrics, "/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// Whether a page of it says that it is well.
    #[must_use]
    pub fn is_well(&self, page: &str) -> bool {
        http::is_well(self.setup.metrics, page)
    }

    /// What a page of it says.
    #[must_use]
    pub fn page(&self, page: &str) -> String {
        http::said(self.setup.metrics, page)
    }

    /// A path of its own.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// Where the files of a volume are.
    #[must_use]
    pub fn data(&self, id: &str) -> PathBuf {
        self.path("pool/volumes").join(id)
    }

    /// The files of the driver that say what is mounted, and with which rules.
    #[must_use]
    pub fn notes(&self) -> Vec<PathBuf> {
        let folders = ["run/csi/mounts", "run/csi/servers"];
        let entries = folders.iter().flat_map(|folder| fs::read_dir(self.path(folder)).into_iter().flatten().flatten());
        entries.map(|entry| entry.path()).collect()
    }

    /// Waits until nothing remembers a start that came to nothing: it is forgotten after a minute, which is over.
    pub fn forgets_starts(&self) {
        eventually("no start is remembered", || {
            for note in self.notes() {
                // It may be forgotten just now.
                if let Ok(file) = File::options().write(true).open(note) {
                    // Who still writes to it makes it young again.
                    file.set_modified(UNIX_EPOCH).expect("it is ours");
                }
            }
            self.notes().is_empty()
        });
    }

    /// Mounts below its folders.
    #[must_use]
    pub fn mounts(&self) -> Vec<String> {
        mounts_below(self.directory.path())
    }

    /// Waits for an answer.
    pub fn wait_for<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    #[must_use]
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    #[must_use]
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    /// A volume of 64 MiB.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn create(&self, name: &str, parameters: &[(&str, &str)]) -> Result<Volume, Status> {
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: 64 << 20, limit_bytes: 0 }),
            volume_capabilities: vec![capability(Mode::SingleNodeMultiWriter, &[])],
            parameters: map(parameters),
            ..CreateVolumeRequest::default()
        };
        let made = self.wait_for(self.controller().create_volume(request))?.into_inner();
        Ok(made.volume.expect("a volume"))
    }

    /// # Errors
    /// What the driver answers.
    pub fn delete(&self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest { volume_id: id.to_owned(), ..DeleteVolumeRequest::default() };
        self.wait_for(self.controller().delete_volume(request)).map(drop)
    }

    /// Where a volume is staged.
    #[must_use]
    pub fn stage_of(&self, id: &str) -> PathBuf {
        self.path("kubelet").join(id).join("globalmount")
    }

    /// Where a pod has it.
    #[must_use]
    pub fn target_of(&self, id: &str, pod: &str) -> PathBuf {
        self.path("kubelet").join(id).join(pod).join("mount")
    }

    /// # Errors
    /// What the driver answers.
    pub fn stage(&self, volume: &Volume) -> Result<(), Status> {
        let stage = self.stage_of(&volume.volume_id);
        fs::create_dir_all(stage.parent().expect("a folder")).expect("a folder");
        let request = NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: plain(&stage),
            volume_capability: Some(capability(Mode::SingleNodeMultiWriter, &[])),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        self.wait_for(self.node().node_stage_volume(request)).map(drop)
    }

    /// What publishing for a pod takes; change it as the test needs.
    #[must_use]
    pub fn publish_request(&self, volume: &Volume, pod: &str) -> NodePublishVolumeRequest {
        let target = self.target_of(&volume.volume_id, pod);
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        NodePublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: plain(&self.stage_of(&volume.volume_id)),
            target_path: plain(&target),
            volume_capability: Some(capability(Mode::SingleNodeMultiWriter, &[])),
            volume_context: volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        }
    }

    /// Where it is published.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn publish(&self, volume: &Volume, pod: &str) -> Result<PathBuf, Status> {
        let request = self.publish_request(volume, pod);
        let target = PathBuf::from(&request.target_path);
        self.wait_for(self.node().node_publish_volume(request)).map(|_done| target)
    }

    /// How full a volume is, and how well.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn stats(&self, id: &str, place: &Path) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: id.to_owned(),
            volume_path: plain(place),
            ..NodeGetVolumeStatsRequest::default()
        };
        self.wait_for(self.node().node_get_volume_stats(request)).map(tonic::Response::into_inner)
    }

    /// # Errors
    /// What the driver answers.
    pub fn unpublish(&self, id: &str, target: &Path) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path: plain(target) };
        self.wait_for(self.node().node_unpublish_volume(request)).map(drop)
    }

    /// As a pod that starts, each call twice, as the kubelet may; where the pod has it.
    #[must_use]
    pub fn up(&self, volume: &Volume, pod: &str) -> PathBuf {
        for _ in 0..2 {
            self.stage(volume).expect("staged");
        }
        self.publish(volume, pod).expect("published");
        self.publish(volume, pod).expect("published")
    }

    /// As the last pod that ends, each call twice.
    pub fn down(&self, id: &str, target: &Path) {
        for _ in 0..2 {
            self.unpublish(id, target).expect("unpublished");
            assert!(!target.exists(), "the target is removed");
        }
        for _ in 0..2 {
            self.unstage(id).expect("unstaged");
        }
    }

    /// Nothing is mounted, and no note says that something is.
    pub fn nothing_left(&self) {
        assert_eq!(self.mounts(), Vec::<String>::new());
        assert_eq!(self.notes(), Vec::<PathBuf>::new());
    }

    /// Makes a published volume larger.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn expand(&self, id: &str, target: &Path, required_bytes: i64) -> Result<(), Status> {
        let request = NodeExpandVolumeRequest {
            volume_id: id.to_owned(),
            volume_path: plain(target),
            capacity_range: Some(CapacityRange { required_bytes, limit_bytes: 0 }),
            ..NodeExpandVolumeRequest::default()
        };
        self.wait_for(self.node().node_expand_volume(request)).map(drop)
    }

    /// # Errors
    /// What the driver answers.
    pub fn unstage(&self, id: &str) -> Result<(), Status> {
        let staging_target_path = plain(&self.stage_of(id));
        let request = NodeUnstageVolumeRequest { volume_id: id.to_owned(), staging_target_path };
        self.wait_for(self.node().node_unstage_volume(request)).map(drop)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let left = self.mounts();
        for place in &left {
            // The test has failed and says so; what it leaves must not fail the next one.
            drop(Command::new("umount").args(["--lazy", "--force", place]).output());
        }
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
        if !std::thread::panicking() {
            assert!(left.is_empty(), "mounts are left: {}", left.join(", "));
        }
    }
}

/// The driver under test: `$FSI_CSI_BIN`, or the one beside this test, which is then built first.
#[must_use]
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| fsi::program("FSI_CSI_BIN", "fsi-csi", "fsi-csi"))
}

fn channel(runtime: &Runtime, directory: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket(directory).display())).expect("a path");
    let _in_it = runtime.enter();
    endpoint.timeout(LIMIT).connect_lazy()
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("csi.sock")
}

fn plain(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}
