//! How full a volume is, and how well.

use std::path::Path;
use std::time::Duration;

use rustix::fs::StatVfs;
use rustix::io::Errno;

use crate::bounded::{self, Probes};
use crate::controller::as_sent;
use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::mounts::{self, Table};
use crate::proto::csi::volume_usage::Unit;
use crate::proto::csi::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage};
use crate::volume_id::VolumeId;

use super::some_id;

/// The time that a volume gets to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// All of it.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn stats(
    driver: &NodeDriver,
    request: NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse, CallError> {
    let id = VolumeId::parse(some_id(&request.volume_id)?)?;
    if request.volume_path.is_empty() {
        return Err(CallError::Missing("volume path"));
    }
    let mounting = driver.mounting.clone();
    // Looking changes nothing, so it waits for nobody and keeps nobody away.
    let nothing = ();
    bounded::work("asking how full the volume is", LIMIT, nothing, move || {
        let place = mounts::place_to_empty(&request.volume_path)?;
        let data = mounting.data(&id, &place)?;
        let table = Table::read()?;
        let mount = mounting.shown_at(&table, &place, &id, &data)?;
        Ok(look(&mounting.probes, &place, mounts::shows_served(mount, &data)))
    })
    .await
}

fn look(probes: &Probes, place: &Path, is_interposed: bool) -> NodeGetVolumeStatsResponse {
    let answered = probes.ask(place, ANSWERS_WITHIN, |place| rustix::fs::statvfs(place));
    let well = match is_interposed {
        true => "the interposer answers",
        false => "the directory is mounted",
    };
    let (usage, abnormal, message) = match answered {
        Some(Ok(stat)) => (usage(&stat), false, well.to_owned()),
        Some(Err(Errno::NOTCONN)) => {
            let sentence = "the interposer is gone; the volume works again once its pods are started anew";
            (Vec::new(), true, sentence.to_owned())
        }
        Some(Err(error)) => (Vec::new(), true, format!("the volume answers: {error}")),
        None => (Vec::new(), true, format!("the volume did not answer within {ANSWERS_WITHIN:?}")),
    };
    NodeGetVolumeStatsResponse { usage, volume_condition: Some(VolumeCondition { abnormal, message }) }
}

fn usage(stat: &StatVfs) -> Vec<VolumeUsage> {
    let of = |unit: Unit, total: u64, free: u64, available: u64| VolumeUsage {
        unit: unit.into(),
        total: as_sent(total),
        used: as_sent(total.saturating_sub(free)),
        available: as_sent(available),
    };
    let size = stat.f_frsize;
    vec![
        of(Unit::Bytes, stat.f_blocks * size, stat.f_bfree * size, stat.f_bavail * size),
        of(Unit::Inodes, stat.f_files, stat.f_ffree, stat.f_favail),
    ]
}
