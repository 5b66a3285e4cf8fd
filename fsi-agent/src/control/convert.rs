//! Between the messages and the types of the mount. Names and paths are checked on the way in: the other end may be of another version.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::generated as wire;
use super::generated::corruption::How;
use super::generated::effect::What;
use crate::fuse::control::Status;
use crate::rules::decision::{Corrupt, Corruption, Effect, Fault, FaultEntry, FaultKind};
use crate::rules::op::Op;

/// What an answer has that this binary does not know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConvertError {
    #[error("an operation `{0}` that this fsi does not know")]
    Op(String),
    #[error("a fault of the kind `{0}` that this fsi does not know")]
    Kind(String),
    #[error("a fault with an effect that this fsi does not know")]
    Effect,
}

pub(crate) fn path_to_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

pub(crate) fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

pub(crate) fn status_to_wire(status: Status) -> wire::ShowReply {
    let Status {
        source,
        target,
        device,
        version,
        rules_text,
        paused,
        passthrough,
        servers,
        server_pid,
        keeper_pid,
        nodes,
        open_files,
        open_passthrough,
        waiting,
        requests,
        faults_injected,
        capacity,
        unsynced_bytes,
        undelayed,
        unlogged,
    } = status;
    wire::ShowReply {
        source: path_to_bytes(&source),
        target: path_to_bytes(&target),
        device,
        version,
        rules_text,
        paused,
        passthrough,
        servers,
        server_pid,
        keeper_pid,
        nodes,
        open_files,
        open_passthrough,
        waiting,
        requests,
        faults_injected,
        capacity: capacity.map(|(limit_bytes, used_bytes)| wire::Capacity { limit_bytes, used_bytes }),
        unsynced_bytes,
        undelayed,
        unlogged,
    }
}

pub(crate) fn status_from_wire(reply: wire::ShowReply) -> Status {
    let wire::ShowReply {
        source,
        target,
        device,
        version,
        rules_text,
        paused,
        passthrough,
        servers,
        server_pid,
        keeper_pid,
        nodes,
        open_files,
        open_passthrough,
        waiting,
        requests,
        faults_injected,
        capacity,
        unsynced_bytes,
        undelayed,
        unlogged,
    } = reply;
    Status {
        source: path_from_bytes(source),
        target: path_from_bytes(target),
        device,
        version,
        rules_text,
        paused,
        passthrough,
        servers,
        server_pid,
        keeper_pid,
        nodes,
        open_files,
        open_passthrough,
        waiting,
        requests,
        faults_injected,
        capacity: capacity.map(|capacity| (capacity.limit_bytes, capacity.used_bytes)),
        unsynced_bytes,
        undelayed,
        unlogged,
    }
}

pub(crate) fn fault_to_wire(entry: FaultEntry) -> wire::FaultEntry {
    let FaultEntry { sequence, unix_ns, fault, op, path, ordinal, ino, pid, uid, offset, asked, done, effect } = entry;
    let Fault { rule, kind, errno, delay } = fault;
    wire::FaultEntry {
        sequence,
        unix_ns,
        rule: rule.as_ref().to_owned(),
        kind: kind.name().to_owned(),
        errno,
        delay_ns: u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
        op: op.name().to_owned(),
        path: path.to_vec(),
        ordinal,
        ino,
        pid,
        uid,
        offset,
        asked,
        done,
        effect: Some(wire::Effect { what: Some(effect_to_wire(effect)) }),
    }
}

pub(crate) fn fault_from_wire(entry: wire::FaultEntry) -> Result<FaultEntry, ConvertError> {
    let wire::FaultEntry {
        sequence,
        unix_ns,
        rule,
        kind,
        errno,
        delay_ns,
        op,
        path,
        ordinal,
        ino,
        pid,
        uid,
        offset,
        asked,
        done,
        effect,
    } = entry;
    let known_kind = FaultKind::ALL.into_iter().find(|known| known.name() == kind).ok_or(ConvertError::Kind(kind))?;
    let fault = Fault { rule: Arc::from(rule), kind: known_kind, errno, delay: Duration::from_nanos(delay_ns) };
    let op = Op::from_name(&op).ok_or(ConvertError::Op(op))?;
    let what = effect.and_then(|effect| effect.what).ok_or(ConvertError::Effect)?;
    let effect = effect_from_wire(what)?;
    let path = Arc::from(path);
    Ok(FaultEntry { sequence, unix_ns, fault, op, path, ordinal, ino, pid, uid, offset, asked, done, effect })
}

fn effect_to_wire(effect: Effect) -> What {
    match effect {
        Effect::Done => What::Done(wire::Nothing {}),
        Effect::Fail(errno) => What::Fail(errno),
        Effect::Abort => What::Abort(wire::Nothing {}),
        Effect::Short(bytes) => What::Short(bytes),
        Effect::Torn(bytes) => What::Torn(bytes),
        Effect::Corrupt(Corruption { how, seed }) => {
            let how = match how {
                Corrupt::BitFlip { bits } => How::BitFlipBits(bits),
                Corrupt::Zero { bytes } => How::ZeroBytes(bytes),
                Corrupt::Random { bytes } => How::RandomBytes(bytes),
                Corrupt::Pattern { bytes, pattern } => How::Pattern(wire::PatternRun { bytes, pattern }),
            };
            What::Corrupt(wire::Corruption { seed, how: Some(how) })
        }
        Effect::FailFsync(errno) => What::FailFsync(errno),
        Effect::LieFsync => What::LieFsync(wire::Nothing {}),
    }
}

fn effect_from_wire(what: What) -> Result<Effect, ConvertError> {
    Ok(match what {
        What::Done(wire::Nothing {}) => Effect::Done,
        What::Fail(errno) => Effect::Fail(errno),
        What::Abort(wire::Nothing {}) => Effect::Abort,
        What::Short(bytes) => Effect::Short(bytes),
        What::Torn(bytes) => Effect::Torn(bytes),
        What::Corrupt(wire::Corruption { seed, how }) => {
            let how = match how.ok_or(ConvertError::Effect)? {
                How::BitFlipBits(bits) => Corrupt::BitFlip { bits },
                How::ZeroBytes(bytes) => Corrupt::Zero { bytes },
                How::RandomBytes(bytes) => Corrupt::Random { bytes },
                How::Pattern(wire::PatternRun { bytes, pattern }) => Corrupt::Pattern { bytes, pattern },
            };
            Effect::Corrupt(Corruption { how, seed })
        }
        What::FailFsync(errno) => Effect::FailFsync(errno),
        What::LieFsync(wire::Nothing {}) => Effect::LieFsync,
    })
}
