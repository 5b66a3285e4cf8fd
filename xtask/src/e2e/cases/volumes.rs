//! Volumes of the driver that do nothing on purpose, and their sizes.

use anyhow::{Result, ensure};

use super::super::kubectl::eventually;
use super::{Case, Place, Takes};

pub(super) const PLAIN: Case = Case {
    name: "volume-plain",
    shows: "a class that asks for nothing: a plain mount without FUSE, which keeps its data from pod to pod",
    takes: Takes::Interposer,
    check: plain,
};

pub(super) const GROWS: Case = Case {
    name: "volume-grows",
    shows: "a claim that is made larger while a pod writes to it",
    takes: Takes::Interposer,
    check: grows,
};

const CLAIM: &str = "persistentVolumeClaim: { claimName: data }";

fn plain(place: &Place<'_>) -> Result<()> {
    let class = place.class("{}")?;
    place.claim("data", &class, "64Mi")?;
    place.pod("first", "echo kept > /data/file; sync; sleep infinity", CLAIM, "")?;
    place.ready("first")?;
    let mounts = place.said("first", "grep ' /data ' /proc/mounts")?;
    ensure!(!mounts.contains("fuse"), "a mount that does nothing is a FUSE mount: {mounts}");
    place.run(&["delete", "pod", "first", "--timeout=60s"])?;
    place.pod("second", "sleep infinity", CLAIM, "")?;
    place.ready("second")?;
    place.said("second", "grep kept /data/file").map(drop)
}

fn grows(place: &Place<'_>) -> Result<()> {
    // Asks for something, so that the size is enforced.
    let class = place.class("{ faults: \"fsync=EIO@0.000001\" }")?;
    place.claim("data", &class, "16Mi")?;
    place.pod("writer", "while :; do echo x > /data/beat || exit 1; sleep 0.1; done", CLAIM, "")?;
    place.ready("writer")?;
    ensure!(place.said("writer", "df -k /data")?.contains("16384"), "the size is not that of the claim");
    let patch = "{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"32Mi\"}}}}";
    place.run(&["patch", "pvc", "data", "-p", patch])?;
    eventually(60, "the volume is larger", || {
        let size = place.said("writer", "df -k /data")?;
        ensure!(size.contains("32768"), "df says {size}");
        Ok(())
    })?;
    let restarts =
        place.run(&["get", "pod", "writer", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])?;
    ensure!(restarts == "0", "the pod saw an error meanwhile");
    Ok(())
}
