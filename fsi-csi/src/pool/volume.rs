//! What is kept of a volume, and what is wished of a new one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::CallError;
use crate::proto::csi::CapacityRange;
use crate::volume_id::VolumeId;

/// How far a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Creating,
    Ready,
    Deleting,
}

/// When a volume goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// When somebody deletes it.
    Claim,
    /// With the pod that it is written in.
    Pod,
}

/// The file beside a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub state: State,
    /// What the caller calls it; the id may be a hash of it.
    pub name: String,
    pub bytes: Option<u64>,
    pub parameters: BTreeMap<String, String>,
    pub clone_of: Option<String>,
    pub lifetime: Lifetime,
}

/// How large it is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    required: u64,
    limit: u64,
}

impl Range {
    /// # Errors
    /// When no size is in it.
    pub fn read(range: Option<&CapacityRange>) -> Result<Self, CallError> {
        let Some(&CapacityRange { required_bytes: required, limit_bytes: limit }) = range else {
            return Ok(Self::default());
        };
        let wrong = |_negative| CallError::ImpossibleRange { required, limit };
        let range = Self { required: required.try_into().map_err(wrong)?, limit: limit.try_into().map_err(wrong)? };
        range.bytes().map(|_| range)
    }

    /// The size to make; none when any will do.
    pub fn bytes(self) -> Result<Option<u64>, CallError> {
        match (self.required, self.limit) {
            (0, 0) => Ok(None),
            (0, limit) => Ok(Some(limit)),
            (required, limit) if limit == 0 || required <= limit => Ok(Some(required)),
            (required, limit) => {
                let as_sent = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
                Err(CallError::ImpossibleRange { required: as_sent(required), limit: as_sent(limit) })
            }
        }
    }

    fn holds(self, bytes: Option<u64>) -> bool {
        let bytes = bytes.unwrap_or(0);
        bytes >= self.required && (self.limit == 0 || bytes <= self.limit)
    }
}

/// A volume that is to be there.
#[derive(Clone, Debug)]
pub struct Wish {
    pub id: VolumeId,
    pub name: String,
    pub range: Range,
    /// Without what Kubernetes adds.
    pub parameters: BTreeMap<String, String>,
    pub clone_of: Option<VolumeId>,
    pub lifetime: Lifetime,
}

impl Wish {
    pub(super) fn volume(&self, bytes: Option<u64>) -> Volume {
        Volume {
            state: State::Creating,
            name: self.name.clone(),
            bytes,
            parameters: self.parameters.clone(),
            clone_of: self.clone_of.as_ref().map(ToString::to_string),
            lifetime: self.lifetime,
        }
    }

    /// The volume that is there, if it is what is wished for.
    pub(super) fn matched(&self, volume: Volume) -> Result<Volume, CallError> {
        let other = |what| Err(CallError::Other { id: self.id.to_string(), what });
        if !self.range.holds(volume.bytes) {
            return other("capacity");
        }
        if volume.parameters != self.parameters {
            return other("set of parameters");
        }
        if volume.clone_of.as_deref() != self.clone_of.as_ref().map(VolumeId::as_str) {
            return other("source");
        }
        if volume.name != self.name || volume.lifetime != self.lifetime {
            return other("name");
        }
        Ok(volume)
    }
}
