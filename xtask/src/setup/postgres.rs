//! PostgreSQL's server without a database: Debian's package makes a cluster of its own and starts it, which a machine that only
//! tests has no use for.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::install::{apt_get, log};
use crate::progress::run_logged;

/// The server's package.
pub(super) const POSTGRES: &str = "postgresql-15";

/// What the package asks before it makes a cluster.
const SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";

/// While this lives, the package makes no cluster; then the settings are as they were.
#[derive(Debug)]
pub(super) struct WithoutCluster {
    before: String,
}

impl WithoutCluster {
    /// Installs the part that has the settings, and sets them.
    pub(super) fn begin() -> Result<Self> {
        if !Path::new(SETTINGS).exists() {
            let install = apt_get(&["install", "--yes", "--no-install-recommends", "postgresql-common"]);
            run_logged("apt-get install of postgresql-common", install, &log("apt-postgresql"))?;
        }
        let before = fs::read_to_string(SETTINGS).with_context(|| format!("read {SETTINGS}"))?;
        let during = format!("{before}\ncreate_main_cluster = false\n");
        fs::write(SETTINGS, during).with_context(|| format!("write {SETTINGS}"))?;
        Ok(Self { before })
    }
}

impl Drop for WithoutCluster {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SETTINGS, &self.before) {
            println!("  {SETTINGS}: {error}; take the last line `create_main_cluster = false` out of it");
        }
    }
}
