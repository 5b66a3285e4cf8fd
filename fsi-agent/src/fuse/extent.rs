//! Where a file has data and where it has holes.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;

/// Where the next data or hole begins; `None`: there is none from there on.
pub(super) fn seek(file: impl AsFd, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
