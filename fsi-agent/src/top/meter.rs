//! What one row adds up over an interval.

use std::collections::BTreeMap;

use fsi_common::aggregate::{AggregateKey, AggregateValue, READ, WRITTEN, bucket_of};
use fsi_common::op::OpKind;

use crate::span::OpSpan;
use crate::telemetry::metrics::quantile;

/// Sums over operations.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    pub(super) operations: u64,
    pub(super) failed: u64,
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) time_ns: u64,
    buckets: BTreeMap<u16, u64>,
}

impl Meter {
    pub(super) fn add_span(&mut self, operation: &OpSpan) {
        self.operations += 1;
        self.failed += u64::from(operation.errno != 0);
        self.time_ns += operation.duration_ns;
        *self.buckets.entry(bucket_of(operation.duration_ns)).or_default() += 1;
        let bytes = operation.bytes.unwrap_or(0);
        let Moves { reads, writes } = moves(operation.op);
        self.read_bytes += if reads { bytes } else { 0 };
        self.written_bytes += if writes { bytes } else { 0 };
    }

    pub(super) fn add_aggregate(&mut self, key: &AggregateKey, value: &AggregateValue) {
        self.operations += value.count;
        self.failed += if key.errno == 0 { 0 } else { value.count };
        self.time_ns += value.duration_ns;
        *self.buckets.entry(key.bucket).or_default() += value.count;
        self.read_bytes += if key.flags & READ == 0 { 0 } else { value.bytes };
        self.written_bytes += if key.flags & WRITTEN == 0 { 0 } else { value.bytes };
    }

    pub(super) fn p99_ns(&self) -> u64 {
        let buckets: Vec<_> = self.buckets.iter().map(|(bucket, count)| (*bucket, *count)).collect();
        quantile(&buckets, 0.99)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Moves {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// Which way an operation moves the bytes of the file that it names first.
pub(crate) fn moves(op: OpKind) -> Moves {
    let (reads, writes) = match op {
        OpKind::Read | OpKind::Sendfile => (true, false),
        OpKind::Write => (false, true),
        OpKind::CopyFileRange | OpKind::Splice => (true, true),
        OpKind::Open
        | OpKind::Close
        | OpKind::Lseek
        | OpKind::Fsync
        | OpKind::Fdatasync
        | OpKind::SyncFileRange
        | OpKind::Syncfs
        | OpKind::Stat
        | OpKind::Access
        | OpKind::Truncate
        | OpKind::Fallocate
        | OpKind::Unlink
        | OpKind::Rename
        | OpKind::Link
        | OpKind::Symlink
        | OpKind::Readlink
        | OpKind::Mkdir
        | OpKind::Rmdir
        | OpKind::Mknod
        | OpKind::Readdir
        | OpKind::Chmod
        | OpKind::Chown
        | OpKind::Utimens
        | OpKind::Getxattr
        | OpKind::Setxattr
        | OpKind::Listxattr
        | OpKind::Removexattr
        | OpKind::Statfs
        | OpKind::Flock
        | OpKind::Lock
        | OpKind::Mmap
        | OpKind::Msync
        | OpKind::Ioctl
        | OpKind::Chdir
        | OpKind::IoSubmit
        | OpKind::IoUringEnter => (false, false),
    };
    Moves { reads, writes }
}
