//! The volumes of the pool, a page at a time. A page begins after an id, so that volumes that come and go meanwhile move nothing.

use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::pool::{Lifetime, State};
use crate::proto::csi::list_volumes_response::Entry;
use crate::proto::csi::{ListVolumesRequest, ListVolumesResponse, Volume};
use crate::volume_id::VolumeId;

use super::as_sent;

/// What a token begins with; no id has a slash.
const TOKEN: &str = "after/";

pub(super) fn list(driver: &NodeDriver, request: &ListVolumesRequest) -> Result<ListVolumesResponse, CallError> {
    let bad = || CallError::BadToken(request.starting_token.clone());
    let after = match request.starting_token.as_str() {
        "" => None,
        token => Some(token.strip_prefix(TOKEN).and_then(|id| VolumeId::parse(id).ok()).ok_or_else(bad)?),
    };
    let most =
        usize::try_from(request.max_entries).map_err(|_negative| CallError::Missing("positive number of entries"))?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut next_token = String::new();
    for id in driver.mounting.pool.ids()?.into_iter().filter(|id| after.as_ref().is_none_or(|after| id > after)) {
        // One that is damaged does not hide the others; one that is gone meanwhile is gone.
        let Ok(Some(volume)) = driver.mounting.pool.read(&id) else { continue };
        if volume.state != State::Ready || volume.lifetime != Lifetime::Claim {
            continue;
        }
        if most > 0 && entries.len() == most {
            next_token = entries
                .last()
                .and_then(|entry| entry.volume.as_ref())
                .map_or_else(String::new, |last| format!("{TOKEN}{}", last.volume_id));
            break;
        }
        let volume = Volume {
            capacity_bytes: volume.bytes.map_or(0, as_sent),
            volume_id: id.to_string(),
            volume_context: volume.parameters.into_iter().collect(),
            content_source: None,
            accessible_topology: driver.topology().into_iter().collect(),
        };
        entries.push(Entry { volume: Some(volume), status: None });
    }
    Ok(ListVolumesResponse { entries, next_token })
}
