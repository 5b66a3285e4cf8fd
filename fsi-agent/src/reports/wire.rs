//! Between the messages and the types of the mount. What comes in is checked: the other end may be of another version.

use std::sync::Arc;

use thiserror::Error;

use super::MountInfo;
use super::generated as wire;
use super::generated::report::What;
use crate::control::convert::{self, ConvertError};
use crate::fuse::report::{OpReport, Throttled};
use crate::rules::op::Op;

/// Most bytes of a path or name in a hello.
const MAX_HELLO_BYTES: usize = 16 << 10;
/// About what a report takes in a message, and each of its faults, without their paths.
const REPORT_BYTES: usize = 256;

/// What a mount said that this agent does not understand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    #[error("a hello with a {what} of {bytes} bytes, expected 1 to {MAX_HELLO_BYTES}")]
    Length { what: &'static str, bytes: usize },
    #[error("a hello whose device {dev} is not {major}:{minor}")]
    Device { dev: u32, major: u32, minor: u32 },
    #[error("a report of nothing")]
    Empty,
    #[error("an operation `{0}` that this fsi does not know")]
    Op(String),
    #[error("the number {0} of what a throttle said, which this fsi does not know")]
    Throttle(i32),
    #[error("{0}")]
    Fault(#[from] ConvertError),
}

/// About how long a report is in a message; no message is longer than the sum of these.
pub(crate) fn weight(report: &OpReport) -> usize {
    let paths = report.path.len() + report.target.as_ref().map_or(0, |target| target.len());
    let fault = |fault: &crate::rules::decision::FaultEntry| {
        REPORT_BYTES + fault.path.len() + fault.fault.rule.len() + MAX_PATTERN_BYTES
    };
    REPORT_BYTES + paths + report.faults.iter().map(fault).sum::<usize>()
}

/// What the pattern of a corruption may take.
const MAX_PATTERN_BYTES: usize = 4096;

/// The kernel's 32 bits of a device: `MKDEV` of its halves.
pub(crate) const fn device_number(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

pub(crate) fn hello_to_wire(info: MountInfo, first_sequence: u64) -> wire::Hello {
    let MountInfo {
        dev,
        device_major,
        device_minor,
        target,
        source,
        volume,
        namespace,
        server_pid,
        version,
        servers,
        dropped,
    } = info;
    wire::Hello {
        dev,
        device_major,
        device_minor,
        target: convert::path_to_bytes(&target),
        source: convert::path_to_bytes(&source),
        volume,
        server_pid,
        version,
        servers,
        first_sequence,
        dropped,
        namespace,
    }
}

pub(crate) fn hello_from_wire(hello: wire::Hello) -> Result<MountInfo, WireError> {
    let wire::Hello {
        dev,
        device_major,
        device_minor,
        target,
        source,
        volume,
        server_pid,
        version,
        servers,
        first_sequence: _,
        dropped,
        namespace,
    } = hello;
    let texts = [
        ("target", target.len()),
        ("source", source.len()),
        ("volume", volume.as_ref().map_or(1, String::len)),
        ("namespace", namespace.as_ref().map_or(1, String::len)),
        ("version", version.len()),
    ];
    if let Some((what, bytes)) = texts.into_iter().find(|(_, bytes)| !(1..=MAX_HELLO_BYTES).contains(bytes)) {
        return Err(WireError::Length { what, bytes });
    }
    if device_major >= 1 << 12 || device_minor >= 1 << 20 || dev != device_number(device_major, device_minor) {
        return Err(WireError::Device { dev, major: device_major, minor: device_minor });
    }
    Ok(MountInfo {
        dev,
        device_major,
        device_minor,
        target: convert::path_from_bytes(target),
        source: convert::path_from_bytes(source),
        volume,
        namespace,
        server_pid,
        version,
        servers,
        dropped,
    })
}

pub(crate) fn report_to_wire(report: OpReport) -> wire::Report {
    wire::Report { what: Some(What::Operation(operation_to_wire(report))) }
}

/// `dev`: the mount's, which all its reports have.
pub(crate) fn report_from_wire(dev: u32, report: wire::Report) -> Result<OpReport, WireError> {
    let What::Operation(operation) = report.what.ok_or(WireError::Empty)?;
    operation_from_wire(dev, operation)
}

fn operation_to_wire(report: OpReport) -> wire::Operation {
    let OpReport {
        unique,
        dev: _,
        op,
        ino,
        mode,
        path,
        target,
        tid,
        uid,
        open_file,
        open_flags,
        offset,
        asked,
        done,
        errno,
        started_ns,
        answered_ns,
        backing_ns,
        delay_ns,
        throttle_ns,
        throttle,
        faults,
    } = report;
    let throttle = match throttle {
        Throttled::No => wire::Throttle::No,
        Throttled::Waited => wire::Throttle::Waited,
        Throttled::Again => wire::Throttle::Again,
    };
    wire::Operation {
        unique,
        op: op.name().to_owned(),
        ino,
        mode,
        path: path.to_vec(),
        target: target.map(|target| target.to_vec()),
        tid,
        uid,
        open_file,
        open_flags,
        offset,
        asked,
        done,
        errno,
        started_ns,
        answered_ns,
        backing_ns,
        delay_ns,
        throttle_ns,
        throttle: throttle.into(),
        faults: faults.into_iter().map(convert::fault_to_wire).collect(),
    }
}

fn operation_from_wire(dev: u32, operation: wire::Operation) -> Result<OpReport, WireError> {
    let wire::Operation {
        unique,
        op,
        ino,
        mode,
        path,
        target,
        tid,
        uid,
        open_file,
        open_flags,
        offset,
        asked,
        done,
        errno,
        started_ns,
        answered_ns,
        backing_ns,
        delay_ns,
        throttle_ns,
        throttle,
        faults,
    } = operation;
    let throttle = match wire::Throttle::try_from(throttle) {
        Ok(wire::Throttle::No) => Throttled::No,
        Ok(wire::Throttle::Waited) => Throttled::Waited,
        Ok(wire::Throttle::Again) => Throttled::Again,
        Err(_unknown) => return Err(WireError::Throttle(throttle)),
    };
    Ok(OpReport {
        unique,
        dev,
        op: Op::from_name(&op).ok_or(WireError::Op(op))?,
        ino,
        mode,
        path: Arc::from(path),
        target: target.map(Arc::from),
        tid,
        uid,
        open_file,
        open_flags,
        offset,
        asked,
        done,
        errno,
        started_ns,
        answered_ns,
        backing_ns,
        delay_ns,
        throttle_ns,
        throttle,
        faults: faults.into_iter().map(convert::fault_from_wire).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
pub(crate) mod tests;
