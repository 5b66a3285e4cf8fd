//! Token buckets: how much may pass, and when the next may.
//!
//! A request passes while there is at least one token left, and takes all it costs: the bucket may go into debt by one request,
//! never by more. So over any time t at most `burst + rate * t + one request` passes, and a large request needs no longer wait than a
//! small one, which is what keeps large ones from starving.

use super::spec::{Direction, ThrottleSpec};

const NS: i128 = 1_000_000_000;

/// Whole tokens in a bucket, below zero when it owes some, and the monotonic time at which it had them.
pub type Level = (i64, u64);

/// Exact: levels are kept in tokens times nanoseconds.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: u64,
    capacity: i128,
    level: i128,
    at_ns: u64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate_per_s: u64, burst_ns: u64, now_ns: u64) -> Self {
        let capacity = i128::from(rate_per_s) * i128::from(burst_ns);
        Self { rate: rate_per_s, capacity, level: capacity, at_ns: now_ns }
    }

    /// An empty bucket.
    #[must_use]
    pub fn empty(rate_per_s: u64, burst_ns: u64, now_ns: u64) -> Self {
        Self { level: 0, ..Self::new(rate_per_s, burst_ns, now_ns) }
    }

    /// `(whole tokens, as of when)`: what a successor goes on from.
    fn level(&self) -> Level {
        (i64::try_from(self.level.div_euclid(NS)).unwrap_or(i64::MAX), self.at_ns)
    }

    fn set_level(&mut self, (tokens, at_ns): Level) {
        self.level = self.capacity.min(i128::from(tokens) * NS);
        self.at_ns = at_ns;
    }

    fn refill(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.at_ns);
        if passed > 0 {
            self.level = self.capacity.min(self.level + i128::from(self.rate) * i128::from(passed));
            self.at_ns = now_ns;
        }
    }

    /// When the next request may pass: `now_ns` or later, `u64::MAX` for never.
    pub fn ready_at(&mut self, now_ns: u64) -> u64 {
        self.refill(now_ns);
        let missing = self.capacity.min(NS) - self.level;
        if missing <= 0 {
            return now_ns;
        }
        if self.rate == 0 {
            return u64::MAX;
        }
        let rate = i128::from(self.rate);
        self.at_ns.saturating_add(u64::try_from((missing + rate - 1) / rate).unwrap_or(u64::MAX))
    }

    /// Takes the cost; for a request that may pass.
    pub fn take(&mut self, cost: u64) {
        self.level -= i128::from(cost) * NS;
    }

    /// Gives back what was taken too much.
    pub fn give_back(&mut self, cost: u64) {
        self.level = self.capacity.min(self.level + i128::from(cost) * NS);
    }

    /// Whether nothing is owed or used.
    fn is_full(&mut self, now_ns: u64) -> bool {
        self.refill(now_ns);
        self.level == self.capacity
    }
}

#[derive(Clone, Debug)]
struct Pair {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Pair {
    fn new(bytes: Option<u64>, operations: Option<u64>, bucket: impl Fn(u64) -> Bucket) -> Self {
        Self { bytes: bytes.map(&bucket), operations: operations.map(&bucket) }
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.bytes.iter_mut().chain(&mut self.operations)
    }

    fn ready_at(&mut self, now_ns: u64) -> u64 {
        self.buckets().map(|bucket| bucket.ready_at(now_ns)).max().unwrap_or(now_ns)
    }

    fn take(&mut self, bytes: u64, operations: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.take(operations);
        }
    }

    /// How long the rates need for so much.
    fn cost_ns(&self, bytes: u64, operations: u64) -> u64 {
        let time = |bucket: &Option<Bucket>, tokens: u64| match bucket {
            Some(bucket) if bucket.rate > 0 => {
                u64::try_from(i128::from(tokens) * NS / i128::from(bucket.rate)).unwrap_or(u64::MAX)
            }
            Some(_) | None => 0,
        };
        time(&self.bytes, bytes).max(time(&self.operations, operations))
    }
}

fn burst_ns(spec: &ThrottleSpec) -> u64 {
    u64::try_from(spec.burst.as_nanos()).unwrap_or(u64::MAX)
}

/// All buckets of one limit.
#[derive(Clone, Debug)]
pub struct Buckets {
    read: Pair,
    write: Pair,
    total: Pair,
    bytes_per_operation: u64,
}

impl Buckets {
    /// Full buckets of that limit.
    #[must_use]
    pub fn new(spec: &ThrottleSpec, now_ns: u64) -> Self {
        Self::with(spec, |rate| Bucket::new(rate, burst_ns(spec), now_ns))
    }

    /// Empty ones.
    #[must_use]
    pub fn empty(spec: &ThrottleSpec, now_ns: u64) -> Self {
        Self::with(spec, |rate| Bucket::empty(rate, burst_ns(spec), now_ns))
    }

    fn with(spec: &ThrottleSpec, bucket: impl Fn(u64) -> Bucket) -> Self {
        Self {
            read: Pair::new(spec.read_bytes_per_s, spec.read_iops, &bucket),
            write: Pair::new(spec.write_bytes_per_s, spec.write_iops, &bucket),
            total: Pair::new(spec.total_bytes_per_s, spec.total_iops, &bucket),
            bytes_per_operation: spec.bytes_per_operation.unwrap_or(u64::MAX).max(1),
        }
    }

    /// What each bucket holds, always in the same order.
    pub fn levels(&self) -> impl Iterator<Item = Level> {
        let pairs = [&self.read, &self.write, &self.total];
        pairs.into_iter().flat_map(|pair| pair.bytes.iter().chain(&pair.operations)).map(Bucket::level)
    }

    /// Takes over what each bucket held; those that `levels` has nothing for are left as they are.
    pub fn set_levels(&mut self, levels: &mut impl Iterator<Item = Level>) {
        let pairs = [&mut self.read, &mut self.write, &mut self.total];
        for (bucket, level) in pairs.into_iter().flat_map(Pair::buckets).zip(levels) {
            bucket.set_level(level);
        }
    }

    fn of(&mut self, direction: Direction) -> &mut Pair {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    fn operations(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes_per_operation).max(1)
    }

    /// When a request of one direction may pass its own buckets.
    pub fn ready_at(&mut self, direction: Direction, now_ns: u64) -> u64 {
        self.of(direction).ready_at(now_ns)
    }

    /// When a request may pass the buckets that both directions share.
    pub fn total_ready_at(&mut self, now_ns: u64) -> u64 {
        self.total.ready_at(now_ns)
    }

    /// Takes what the request costs everywhere.
    pub fn take(&mut self, direction: Direction, bytes: u64) {
        let operations = self.operations(bytes);
        self.of(direction).take(bytes, operations);
        self.total.take(bytes, operations);
    }

    /// Gives back what bytes cost that were not moved after all; the operation was one all the same.
    pub fn give_back(&mut self, direction: Direction, bytes: u64) {
        if let Some(bucket) = &mut self.of(direction).bytes {
            bucket.give_back(bytes);
        }
        if let Some(bucket) = &mut self.total.bytes {
            bucket.give_back(bytes);
        }
    }

    /// How much of the time of the scarcest bucket the request uses up.
    pub fn cost_ns(&mut self, direction: Direction, bytes: u64) -> u64 {
        let operations = self.operations(bytes);
        self.of(direction).cost_ns(bytes, operations).max(self.total.cost_ns(bytes, operations))
    }

    /// Whether a new set of buckets would do as well.
    pub fn is_full(&mut self, now_ns: u64) -> bool {
        [&mut self.read, &mut self.write, &mut self.total]
            .into_iter()
            .all(|pair| pair.buckets().all(|bucket| bucket.is_full(now_ns)))
    }
}
