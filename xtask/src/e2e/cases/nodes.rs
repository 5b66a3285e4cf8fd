//! What volumes leave on the nodes: mounts, servers, and what the driver notes of them.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, ensure};

use super::super::cluster::work;
use super::super::kubectl::eventually;
use super::Place;
use super::ends::{mounts_of, pids};

const NODES: [&str; 2] = ["node-1", "node-2"];

/// What there is of volumes on every node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Traces(BTreeMap<&'static str, OfNode>);

#[derive(Debug, Default, PartialEq, Eq)]
struct OfNode {
    /// Of pods' volumes, whoever made them.
    mounts: usize,
    interposed: usize,
    servers: usize,
    /// Folders of the pool.
    volumes: usize,
}

impl Traces {
    pub(super) fn of_nodes() -> Result<Self> {
        let mut all = BTreeMap::new();
        for node in NODES {
            let mounts = mounts_of(node)?;
            let pool = fs::read_dir(work().join(node).join("var-lib/fsi/pool/volumes"));
            let of_node = OfNode {
                mounts: mounts.lines().filter(|line| line.contains("/var/lib/kubelet/")).count(),
                interposed: mounts.lines().filter(|line| line.contains(" - fuse")).count(),
                servers: pids(node, "fsi mount").map(|pids| pids.len()).unwrap_or_default(),
                volumes: pool.into_iter().flatten().count(),
            };
            all.insert(node, of_node);
        }
        Ok(Self(all))
    }

    /// Interposed mounts of all nodes.
    pub(super) fn interposed(&self) -> usize {
        self.0.values().map(|node| node.interposed).sum()
    }

    pub(super) fn servers(&self) -> usize {
        self.0.values().map(|node| node.servers).sum()
    }

    /// Waits until there is nothing but these.
    pub(super) fn are_all(&self) -> Result<()> {
        eventually(60, "the nodes are as before", || {
            let now = Self::of_nodes()?;
            ensure!(now == *self, "{now:?} after {self:?}");
            Ok(())
        })
    }
}

/// Whether a pod sees its volume through FUSE.
pub(super) fn has_fuse(place: &Place<'_>, pod: &str) -> Result<bool> {
    Ok(place.said(pod, "grep ' /data ' /proc/mounts")?.contains(" fuse"))
}
