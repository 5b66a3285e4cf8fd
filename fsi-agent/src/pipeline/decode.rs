//! Bytes of the ring to records: length, kind and codes checked. Nothing is trusted, nothing allocated.
//!
//! A ring entry may be longer than its record (the kernel side reserves in steps); what stands behind it is not looked at.

use fsi_common::op::OpKind;
use fsi_common::record::{
    CgroupRecord, CloseKind, CloseRecord, FileRecord, OpRecord, PATH_MAX, PathRecord, PathState, ProcessEvent,
    ProcessRecord, RecordHeader, RecordKind, RequestRecord,
};
use thiserror::Error;
use zerocopy::FromBytes;

use super::loss::PipelineLoss;

/// Why an entry of the ring is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("record of {have} bytes, {need} needed")]
    Truncated { need: usize, have: usize },
    #[error("record says it has {said} bytes, its kind and names make {made}")]
    Oversized { said: usize, made: usize },
    #[error("name of {0} bytes")]
    NameTooLong(usize),
    #[error("record kind {0}")]
    Kind(u16),
    #[error("operation {0}")]
    Operation(u16),
    #[error("path state {0}")]
    PathState(u32),
    #[error("close kind {0}")]
    CloseKind(u16),
    #[error("process event {0}")]
    ProcessEvent(u16),
}

impl DecodeError {
    /// As what it is counted.
    #[must_use]
    pub const fn loss(self) -> PipelineLoss {
        match self {
            Self::Truncated { need: _, have: _ } => PipelineLoss::Truncated,
            Self::Oversized { said: _, made: _ } | Self::NameTooLong(_) => PipelineLoss::Oversized,
            Self::Kind(_) | Self::Operation(_) | Self::PathState(_) | Self::CloseKind(_) | Self::ProcessEvent(_) => {
                PipelineLoss::UnknownCode
            }
        }
    }
}

/// One record, its codes understood.
#[derive(Debug)]
pub enum Record<'a> {
    Operation(Operation<'a>),
    Path(Announced<'a>),
    File(Opened),
    Close(Closed),
    Process(Change),
    Request(RequestRecord),
    Cgroup(CgroupRecord),
}

/// An operation and the names it was given.
#[derive(Debug)]
pub struct Operation<'a> {
    pub raw: OpRecord,
    pub op: OpKind,
    pub path1: PathState,
    pub path2: PathState,
    pub name1: &'a [u8],
    pub name2: &'a [u8],
}

/// A path and the id that later records use for it.
#[derive(Debug)]
pub struct Announced<'a> {
    pub id: u64,
    pub state: PathState,
    pub bytes: &'a [u8],
}

/// A file that is open.
#[derive(Debug)]
pub struct Opened {
    pub raw: FileRecord,
    pub path: PathState,
}

/// The end of an open file.
#[derive(Debug)]
pub struct Closed {
    pub raw: CloseRecord,
    pub kind: CloseKind,
}

/// Start, exec or end of a process.
#[derive(Debug)]
pub struct Change {
    pub raw: ProcessRecord,
    pub event: ProcessEvent,
}

/// Understands one entry of the ring.
///
/// # Errors
/// When it is no record of this contract.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let (header, _) = fixed::<RecordHeader>(bytes)?;
    let said = usize::try_from(header.len).unwrap_or(usize::MAX);
    if said > bytes.len() {
        return Err(DecodeError::Truncated { need: said, have: bytes.len() });
    }
    let bytes = &bytes[..said];
    match record_kind(header.kind)? {
        RecordKind::Operation => operation(bytes).map(Record::Operation),
        RecordKind::Path => path(bytes).map(Record::Path),
        RecordKind::File => file(bytes).map(Record::File),
        RecordKind::Close => close(bytes).map(Record::Close),
        RecordKind::Process => process(bytes).map(Record::Process),
        RecordKind::Request => request(bytes).map(Record::Request),
        RecordKind::Cgroup => cgroup(bytes).map(Record::Cgroup),
    }
}

fn operation(bytes: &[u8]) -> Result<Operation<'_>, DecodeError> {
    let (raw, rest) = fixed::<OpRecord>(bytes)?;
    let (name1, rest) = name(rest, usize::from(raw.name1_len), bytes.len())?;
    let (name2, rest) = name(rest, usize::from(raw.name2_len), bytes.len())?;
    nothing_left(rest, bytes)?;
    let op = OpKind::try_from(raw.op).map_err(|unknown| DecodeError::Operation(unknown.0))?;
    let (path1, path2) = (path_state(raw.path1.into())?, path_state(raw.path2.into())?);
    Ok(Operation { raw, op, path1, path2, name1, name2 })
}

fn path(bytes: &[u8]) -> Result<Announced<'_>, DecodeError> {
    let (raw, rest) = fixed::<PathRecord>(bytes)?;
    let len = usize::try_from(raw.path_len).unwrap_or(usize::MAX);
    let (path, rest) = name(rest, len, bytes.len())?;
    nothing_left(rest, bytes)?;
    Ok(Announced { id: raw.id, state: path_state(raw.state)?, bytes: path })
}

fn file(bytes: &[u8]) -> Result<Opened, DecodeError> {
    let (raw, rest) = fixed::<FileRecord>(bytes)?;
    nothing_left(rest, bytes)?;
    Ok(Opened { raw, path: path_state(raw.path.into())? })
}

fn close(bytes: &[u8]) -> Result<Closed, DecodeError> {
    let (raw, rest) = fixed::<CloseRecord>(bytes)?;
    nothing_left(rest, bytes)?;
    Ok(Closed { raw, kind: close_kind(raw.header.detail)? })
}

fn process(bytes: &[u8]) -> Result<Change, DecodeError> {
    let (raw, rest) = fixed::<ProcessRecord>(bytes)?;
    nothing_left(rest, bytes)?;
    Ok(Change { raw, event: process_event(raw.header.detail)? })
}

fn request(bytes: &[u8]) -> Result<RequestRecord, DecodeError> {
    let (raw, rest) = fixed::<RequestRecord>(bytes)?;
    nothing_left(rest, bytes)?;
    Ok(raw)
}

fn cgroup(bytes: &[u8]) -> Result<CgroupRecord, DecodeError> {
    let (raw, rest) = fixed::<CgroupRecord>(bytes)?;
    nothing_left(rest, bytes)?;
    Ok(raw)
}

/// Copies the fixed part: a ring entry is aligned to 8 bytes, but nothing here has to rely on it.
fn fixed<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(bytes).map_err(|_short| DecodeError::Truncated { need: size_of::<T>(), have: bytes.len() })
}

fn name(rest: &[u8], len: usize, have: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    if len > PATH_MAX {
        return Err(DecodeError::NameTooLong(len));
    }
    rest.split_at_checked(len).ok_or(DecodeError::Truncated { need: have - rest.len() + len, have })
}

fn nothing_left(rest: &[u8], bytes: &[u8]) -> Result<(), DecodeError> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(DecodeError::Oversized { said: bytes.len(), made: bytes.len() - rest.len() })
}

const fn record_kind(code: u16) -> Result<RecordKind, DecodeError> {
    match code {
        1 => Ok(RecordKind::Operation),
        2 => Ok(RecordKind::Path),
        3 => Ok(RecordKind::File),
        4 => Ok(RecordKind::Close),
        5 => Ok(RecordKind::Process),
        6 => Ok(RecordKind::Request),
        7 => Ok(RecordKind::Cgroup),
        other => Err(DecodeError::Kind(other)),
    }
}

const fn path_state(code: u32) -> Result<PathState, DecodeError> {
    match code {
        0 => Ok(PathState::None),
        1 => Ok(PathState::Resolved),
        2 => Ok(PathState::Unreachable),
        3 => Ok(PathState::TooLong),
        4 => Ok(PathState::Fault),
        5 => Ok(PathState::Lost),
        6 => Ok(PathState::Race),
        other => Err(DecodeError::PathState(other)),
    }
}

const fn close_kind(code: u16) -> Result<CloseKind, DecodeError> {
    match code {
        1 => Ok(CloseKind::Closed),
        2 => Ok(CloseKind::Exit),
        3 => Ok(CloseKind::Unseen),
        other => Err(DecodeError::CloseKind(other)),
    }
}

const fn process_event(code: u16) -> Result<ProcessEvent, DecodeError> {
    match code {
        1 => Ok(ProcessEvent::Fork),
        2 => Ok(ProcessEvent::Exec),
        3 => Ok(ProcessEvent::Exit),
        other => Err(DecodeError::ProcessEvent(other)),
    }
}

#[cfg(test)]
mod tests;
