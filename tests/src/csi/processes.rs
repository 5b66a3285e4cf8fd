//! The processes of a driver's mounts.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::{Driver, plain};
use crate::fsi;

impl Driver {
    /// SIGKILL to the server of a staged volume.
    pub fn kill_server(&self, id: &str) {
        self.kill_server_at(&self.stage_of(id));
    }

    /// SIGKILL to the server of a mount.
    pub fn kill_server_at(&self, place: &Path) {
        let [server, _keeper] = self.server_and_keeper(place);
        kill_process(server, Signal::KILL).expect("it runs");
    }

    /// The processes of a mount.
    #[must_use]
    pub fn server_and_keeper(&self, place: &Path) -> [Pid; 2] {
        let mut show = fsi::fsi(["ctl".as_ref(), place.as_os_str(), "show".as_ref(), "--json".as_ref()]);
        let shown = fsi::succeed(show.env("FSI_RUN_DIR", self.path("run"))).stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("a document");
        let pid = |field: &str| i32::try_from(shown[field].as_i64()?).ok().and_then(Pid::from_raw);
        ["server_pid", "keeper_pid"].map(|field| pid(field).expect("a pid"))
    }

    /// Processes that it started and that are there, whoever their parent is by now.
    #[must_use]
    pub fn servers(&self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").expect("it is there").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let own = i32::try_from(self.child.id()).expect("a pid");
        let ours = |pid: &i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != own && line.contains(&plain(self.directory.path())) && line.contains("\0mount\0")
        };
        pids.filter(ours).filter_map(Pid::from_raw).collect()
    }
}
