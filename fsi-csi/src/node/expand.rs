//! A volume made larger while it is in use: what its servers enforce first, then what its file says, so that a crash between the two is
//! made good by the next call. What a server is told goes by its own rules: the file may be of a pool that another node has, too.

use std::path::Path;

use crate::bounded;
use crate::controller::as_sent;
use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::mounting::Mounting;
use crate::mounts::{self, Table};
use crate::parameters;
use crate::pool::Range;
use crate::proto::csi::{NodeExpandVolumeRequest, NodeExpandVolumeResponse};
use crate::volume_id::VolumeId;

use super::{LIMIT, some_id};

pub(super) async fn expand(
    driver: &NodeDriver,
    request: NodeExpandVolumeRequest,
) -> Result<NodeExpandVolumeResponse, CallError> {
    let id = VolumeId::parse(some_id(&request.volume_id)?)?;
    if request.volume_path.is_empty() {
        return Err(CallError::Missing("volume path"));
    }
    let wished = Range::read(request.capacity_range.as_ref())?.bytes()?;
    let guard = driver.locks.hold(id.as_str())?;
    let mounting = driver.mounting.clone();
    let (pool, of) = (mounting.pool.clone(), id.clone());
    let volume = bounded::work("looking for the volume", LIMIT, (), move || pool.get(&of)).await?;
    if let Some((backing, bytes)) = volume.backing.as_ref().zip(wished) {
        backing.grown(&driver.kubernetes, bytes).await?;
    }
    bounded::work("expanding the volume", LIMIT, guard, move || {
        let before = volume.bytes;
        let place = mounts::place_to_empty(&request.volume_path)?;
        let data = mounting.data(&id, &place)?;
        let table = Table::read()?;
        mounting.shown_at(&table, &place, &id, &data)?;
        // A size that is smaller than it has is an older wish.
        let Some(bytes) = wished.max(before) else { return Ok(NodeExpandVolumeResponse { capacity_bytes: 0 }) };
        mounting.pool.can_grow(&id, &volume, bytes)?;
        tell_servers(&mounting, &table, &data, before, bytes)?;
        let capacity = mounting.pool.grow(&id, bytes)?;
        Ok(NodeExpandVolumeResponse { capacity_bytes: as_sent(capacity) })
    })
    .await
}

fn tell_servers(
    mounting: &Mounting,
    table: &Table,
    data: &Path,
    before: Option<u64>,
    bytes: u64,
) -> Result<(), CallError> {
    let mut told = Vec::new();
    for mount in table.iter().filter(|mount| mounts::shows_served(mount, data)) {
        // A server shows at its stage and at every pod.
        if !told.contains(&mount.device) {
            told.push(mount.device);
            mounting.servers.change_rules(mount, |rules| parameters::raised(rules, before, bytes))?;
        }
    }
    Ok(())
}
