//! The kernel's aggregates, folded into what the metrics show: per container, device and operation.
//!
//! The kernel's latency buckets begin at every power of two, so that folding them into bounds that are powers of two is exact. A bound
//! of Prometheus includes its value, a bucket of the kernel ends just before: a duration of exactly 2^n ns counts above the bound 2^n ns.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use fsi_common::aggregate::{AggregateKey, AggregateValue, CREATED, READ, WRITTEN, bucket_start_ns};
use fsi_common::op::OpKind;

use super::OTHER;
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::text;

/// The bounds are 2^bit ns: 512 ns, 1.024 us, ... 8.6 s.
pub(super) const LE_BITS: RangeInclusive<u32> = 9..=33;
/// How many there are.
const LES: usize = 25;

/// What is shown apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Series {
    Of {
        container: usize,
        device: String,
        op: OpKind,
    },
    /// There were too many.
    Other {
        op: OpKind,
    },
}

impl Series {
    pub(super) const fn op(&self) -> OpKind {
        match self {
            Self::Of { container: _, device: _, op } | Self::Other { op } => *op,
        }
    }
}

/// What was counted of a series.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) count: u64,
    pub(super) duration_ns: u64,
    /// Operations below each bound and not below the one before.
    pub(super) below: [u64; LES],
    /// Bytes; nothing when no operation could have moved any.
    pub(super) read: Option<u64>,
    pub(super) written: Option<u64>,
    pub(super) errors: BTreeMap<u16, u64>,
}

/// Created minus removed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Net {
    pub(super) directories: i64,
    pub(super) files: i64,
}

/// Everything folded.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// Names of the containers that [`Series`] numbers.
    pub(super) containers: Vec<Arc<str>>,
    pub(super) groups: BTreeMap<Series, Group>,
    pub(super) net: BTreeMap<Arc<str>, Net>,
    /// Operations shown under `other`.
    pub(super) to_other: u64,
    /// Operations of codes we do not know.
    pub(super) unknown: u64,
}

/// Folds. Where there are too many series, cgroups with low ids (the older ones) keep theirs: a series that is there stays there.
pub(super) fn fold(
    aggregates: &[(AggregateKey, AggregateValue)],
    names: &dyn ContainerNames,
    max_series: usize,
) -> Folded {
    let mut sorted: Vec<_> = aggregates.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    let mut folded = Folded::default();
    let mut containers = Containers { names, by_cgroup: HashMap::new(), by_name: HashMap::new() };
    for (key, value) in sorted {
        let Ok(op) = OpKind::try_from(key.op) else {
            folded.unknown += value.count;
            continue;
        };
        let container = containers.of(key.cgroup, &mut folded.containers);
        let device = if key.dev == 0 { String::new() } else { text::device(key.dev) };
        let mut series = Series::Of { container, device, op };
        let apart = folded.groups.len() < max_series || folded.groups.contains_key(&series);
        if !apart {
            series = Series::Other { op };
            folded.to_other += value.count;
        }
        let name = if apart { Arc::clone(&folded.containers[container]) } else { Arc::from(OTHER) };
        folded.groups.entry(series).or_default().add(key, value);
        count_net(folded.net.entry(name).or_default(), key, value, op);
    }
    folded
}

struct Containers<'a> {
    names: &'a dyn ContainerNames,
    by_cgroup: HashMap<u64, usize>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Containers<'_> {
    /// The number of a cgroup's container; what is in no container has the empty name.
    fn of(&mut self, cgroup: u64, all: &mut Vec<Arc<str>>) -> usize {
        let Self { names, by_cgroup, by_name } = self;
        *by_cgroup.entry(cgroup).or_insert_with(|| {
            let name = names.container(cgroup).unwrap_or_else(|| Arc::from(""));
            *by_name.entry(name).or_insert_with_key(|name| {
                all.push(Arc::clone(name));
                all.len() - 1
            })
        })
    }
}

impl Group {
    pub(super) fn add(&mut self, key: &AggregateKey, value: &AggregateValue) {
        self.count += value.count;
        self.duration_ns = self.duration_ns.saturating_add(value.duration_ns);
        let start = bucket_start_ns(key.bucket);
        // The first bound above the bucket's start is at or above its end too: buckets do not straddle powers of two.
        if let Some(place) = LE_BITS.into_iter().position(|bit| start < 1 << bit) {
            self.below[place] += value.count;
        }
        for (flag, bytes) in [(READ, &mut self.read), (WRITTEN, &mut self.written)] {
            if key.flags & flag != 0 {
                *bytes.get_or_insert(0) += value.bytes;
            }
        }
        if key.errno != 0 {
            *self.errors.entry(key.errno).or_default() += value.count;
        }
    }
}

impl Group {
    /// Adds another.
    pub(super) fn merge(&mut self, other: &Self) {
        let Self { count, duration_ns, below, read, written, errors } = other;
        self.count += count;
        self.duration_ns = self.duration_ns.saturating_add(*duration_ns);
        for (ours, theirs) in self.below.iter_mut().zip(below) {
            *ours += theirs;
        }
        for (ours, theirs) in [(&mut self.read, read), (&mut self.written, written)] {
            if let Some(theirs) = theirs {
                *ours.get_or_insert(0) += theirs;
            }
        }
        for (errno, count) in errors {
            *self.errors.entry(*errno).or_default() += count;
        }
    }
}

impl Net {
    /// Adds another.
    pub(super) fn merge(&mut self, other: &Self) {
        let Self { directories, files } = other;
        self.directories += directories;
        self.files += files;
    }
}

pub(super) fn count_net(net: &mut Net, key: &AggregateKey, value: &AggregateValue, op: OpKind) {
    if key.errno != 0 {
        return;
    }
    let count = i64::try_from(value.count).unwrap_or(i64::MAX);
    match op {
        OpKind::Mkdir => net.directories += count,
        OpKind::Rmdir => net.directories -= count,
        OpKind::Unlink => net.files -= count,
        OpKind::Mknod | OpKind::Link | OpKind::Symlink => net.files += count,
        OpKind::Open if key.flags & CREATED != 0 => net.files += count,
        // A rename makes one name and removes another; what it replaces is not told.
        OpKind::Open
        | OpKind::Close
        | OpKind::Read
        | OpKind::Write
        | OpKind::Sendfile
        | OpKind::CopyFileRange
        | OpKind::Splice
        | OpKind::Lseek
        | OpKind::Fsync
        | OpKind::Fdatasync
        | OpKind::SyncFileRange
        | OpKind::Syncfs
        | OpKind::Stat
        | OpKind::Access
        | OpKind::Truncate
        | OpKind::Fallocate
        | OpKind::Rename
        | OpKind::Readlink
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
        | OpKind::IoUringEnter => {}
    }
}
