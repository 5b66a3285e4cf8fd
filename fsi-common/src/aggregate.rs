//! Metrics as the kernel keeps them: one entry per (cgroup, device, operation, errno, latency bucket, CPU).
//!
//! The latency histogram is the set of entries that differ only in `bucket`: one hash update per operation, and memory
//! only for the buckets that occur.

/// The operation made a new name (`open` with `O_CREAT` that did not find the file).
pub const CREATED: u16 = 1;
/// `bytes` were read from a file.
pub const READ: u16 = 2;
/// `bytes` were written to a file.
pub const WRITTEN: u16 = 4;

/// Sub-buckets per power of two: a bucket is at most 12.5 % wide, its middle at most 6.3 % from any value in it.
const SUB_BITS: u32 = 3;
/// Number of buckets.
pub const BUCKETS: usize = 8 + 61 * 8;

/// Entries that the map `AGGREGATES` has room for.
pub const ROOM: usize = 262_144;

/// Key of the map `AGGREGATES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct AggregateKey {
    /// Cgroup id of the caller.
    pub cgroup: u64,
    /// Device of the file as the kernel has it (major << 20 | minor); 0 for operations on a path.
    pub dev: u32,
    /// [`crate::op::OpKind`]
    pub op: u16,
    /// 0 or the errno (512 to 516: interrupted, restarted by the kernel or given to the caller as EINTR).
    pub errno: u16,
    /// [`bucket_of`] the duration.
    pub bucket: u16,
    /// [`CREATED`], [`READ`], [`WRITTEN`]
    pub flags: u16,
    /// The CPU it was counted on; 0 in a sum over all.
    pub cpu: u32,
}

impl AggregateKey {
    /// The key of the sum over all CPUs.
    #[must_use]
    pub const fn of_all_cpus(self) -> Self {
        Self { cpu: 0, ..self }
    }
}

/// Value of the map `AGGREGATES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct AggregateValue {
    /// Operations.
    pub count: u64,
    /// Bytes returned (not asked for).
    pub bytes: u64,
    /// Sum of the durations.
    pub duration_ns: u64,
    /// Longest duration.
    pub max_ns: u64,
}

/// Position of the highest set bit, without a count-leading-zeros instruction (BPF has none).
#[inline(always)]
const fn highest_bit(value: u64) -> u32 {
    let mut rest = value;
    let mut bit = 0;
    if rest >> 32 != 0 {
        rest >>= 32;
        bit += 32;
    }
    if rest >> 16 != 0 {
        rest >>= 16;
        bit += 16;
    }
    if rest >> 8 != 0 {
        rest >>= 8;
        bit += 8;
    }
    if rest >> 4 != 0 {
        rest >>= 4;
        bit += 4;
    }
    if rest >> 2 != 0 {
        rest >>= 2;
        bit += 2;
    }
    if rest >> 1 != 0 {
        bit += 1;
    }
    bit
}

/// The bucket of a duration.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "at most 495")]
pub const fn bucket_of(ns: u64) -> u16 {
    if ns < 8 {
        return ns as u16;
    }
    let bit = highest_bit(ns);
    let sub = (ns >> (bit - SUB_BITS)) & 7;
    ((bit - 2) * 8) as u16 + sub as u16
}

/// Smallest duration of a bucket; the bucket ends where the next begins. `u64::MAX` past the last.
#[must_use]
pub const fn bucket_start_ns(bucket: u16) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let bit = bucket as u32 / 8 + 2;
    if bit > 63 {
        return u64::MAX;
    }
    let sub = bucket as u64 % 8;
    (8 + sub) << (bit - SUB_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_gapless_and_narrow() {
        for bucket in 0..u16::try_from(BUCKETS).unwrap() {
            let start = bucket_start_ns(bucket);
            assert_eq!(bucket_of(start), bucket);
            let end = bucket_start_ns(bucket + 1);
            assert_eq!(bucket_of(end - 1), bucket);
            if bucket >= 8 {
                assert!((end - start) * 8 <= start, "bucket {bucket} is wider than an eighth");
            }
        }
    }

    #[test]
    fn the_longest_duration_has_a_bucket() {
        assert_eq!(usize::from(bucket_of(u64::MAX)), BUCKETS - 1);
    }
}
