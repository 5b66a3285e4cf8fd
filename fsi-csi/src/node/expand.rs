//! A volume made larger while it is in use: what its servers enforce first, then what its file says, so that a crash between the two is
//! made good by the next call.

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
    bounded::work("expanding the volume", LIMIT, guard, move || {
        let before = mounting.pool.get(&id)?.bytes;
        let place = mounts::place_to_empty(&request.volume_path)?;
        let not_there = || CallError::NotThere { id: id.to_string(), place: place.clone() };
        let table = Table::read()?;
        table
            .at(&place)
            .filter(|mount| mounts::shows(&table, mount, &mounting.pool.data(&id)))
            .ok_or_else(not_there)?;
        let Some(bytes) = wished.or(before) else { return Ok(NodeExpandVolumeResponse { capacity_bytes: 0 }) };
        tell_servers(&mounting, &table, &id, before, bytes)?;
        let capacity = mounting.pool.grow(&id, bytes)?;
        Ok(NodeExpandVolumeResponse { capacity_bytes: as_sent(capacity) })
    })
    .await
}

fn tell_servers(
    mounting: &Mounting,
    table: &Table,
    id: &VolumeId,
    before: Option<u64>,
    bytes: u64,
) -> Result<(), CallError> {
    let Some(before) = before.filter(|before| *before < bytes) else { return Ok(()) };
    let mut told = Vec::new();
    for mount in mounts::places(table, &mounting.pool.data(id)).into_iter().filter(|mount| mounts::is_interposed(mount))
    {
        // A server shows at its stage and at every pod.
        if !told.contains(&mount.device) {
            told.push(mount.device);
            mounting.servers.change_rules(mount, |rules| parameters::resized(rules, before, bytes))?;
        }
    }
    Ok(())
}
