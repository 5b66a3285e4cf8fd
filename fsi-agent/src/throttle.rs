//! How much I/O may pass: token buckets per file, per volume and per pod, shared fairly between those who wait.
//!
//! ```text
//! submit --(tokens there, nobody before)--> Now
//!    |--(empty, O_NONBLOCK, eagain)-------> Again
//!    `--(empty)--> lane of (flow, file, pod, direction) --fair queue--> advance --> released
//! ```
//! Pure, but for the buckets of pods, which other servers take from, too ([`table`]). Time is passed in as monotonic nanoseconds. After [`Admission::Wait`], and whenever the time that
//! [`Throttle::advance`] gave has come, the owner calls `advance` and answers the tickets it releases.

pub mod bucket;
pub mod pods;
pub mod profile;
pub mod queue;
pub mod spec;
pub mod table;

use std::collections::HashMap;

use self::bucket::{Buckets, Level};
use self::pods::Pods;
use self::queue::FairQueue;
pub use self::queue::Lane;
pub use self::spec::{Direction, Scope, ThrottleSpec, WhenEmpty};

/// Requests that may wait at once; what is over it passes, and is counted.
pub const MAX_WAITING: usize = 16_384;
/// Files whose buckets are remembered; those that are full again are forgotten first.
pub const MAX_FILES: usize = 65_536;
/// Full buckets are looked for at most this often.
const SWEEP_NS: u64 = 100_000_000;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It passes.
    Now,
    /// [`Throttle::advance`] will give its ticket back.
    Wait,
    /// It is answered with `EAGAIN`.
    Again,
}

/// All limits of a mount.
#[derive(Debug)]
pub struct Throttle {
    volume: Vec<Buckets>,
    pods: Option<Pods>,
    file_specs: Vec<ThrottleSpec>,
    files: HashMap<u64, Box<[Buckets]>>,
    /// Reads, writes; both in the first where they share a bucket.
    queues: [FairQueue; 2],
    shared: bool,
    again: [bool; 2],
    limited: [bool; 2],
    tickets: HashMap<u64, Lane>,
    overflowed: u64,
    swept_ns: u64,
    /// A server before this one limited files too; how much each had left then is not known.
    resumed_ns: Option<u64>,
}

const fn index(direction: Direction) -> usize {
    match direction {
        Direction::Read => 0,
        Direction::Write => 1,
    }
}

impl Throttle {
    /// Full buckets for those limits; `pods` are those of them that volumes share.
    #[must_use]
    pub fn new(specs: &[ThrottleSpec], pods: Option<Pods>, now_ns: u64) -> Self {
        let of = |scope| specs.iter().filter(move |spec| spec.scope == scope);
        let shares = |spec: &ThrottleSpec| spec.total_bytes_per_s.is_some() || spec.total_iops.is_some();
        let reads = |spec: &ThrottleSpec| shares(spec) || spec.read_bytes_per_s.is_some() || spec.read_iops.is_some();
        let writes =
            |spec: &ThrottleSpec| shares(spec) || spec.write_bytes_per_s.is_some() || spec.write_iops.is_some();
        let again = |spec: &ThrottleSpec| spec.when_empty == WhenEmpty::Again;
        let volume: Vec<_> = of(Scope::Volume).map(|spec| Buckets::new(spec, now_ns)).collect();
        let per_file = volume.is_empty() && pods.is_none();
        Self {
            volume,
            pods,
            files: HashMap::new(),
            queues: [FairQueue::new(per_file), FairQueue::new(per_file)],
            shared: specs.iter().any(shares),
            again: [
                specs.iter().any(|spec| reads(spec) && again(spec)),
                specs.iter().any(|spec| writes(spec) && again(spec)),
            ],
            limited: [specs.iter().any(reads), specs.iter().any(writes)],
            file_specs: of(Scope::File).cloned().collect(),
            tickets: HashMap::new(),
            overflowed: 0,
            swept_ns: now_ns,
            resumed_ns: None,
        }
    }

    /// Buckets as a server before this one left them, by what its [`Throttle::levels`] gave. Those of files begin empty: what
    /// that server let pass is not known, and more than the limits allow must not pass. Those of pods were never its own.
    #[must_use]
    pub fn resume(specs: &[ThrottleSpec], pods: Option<Pods>, now_ns: u64, levels: &[Level]) -> Self {
        let mut throttle = Self::new(specs, pods, now_ns);
        throttle.resumed_ns = Some(now_ns);
        let mut levels = levels.iter().copied();
        for buckets in &mut throttle.volume {
            buckets.set_levels(&mut levels);
        }
        throttle
    }

    /// Whether it matters whose a request is.
    #[must_use]
    pub const fn knows_pods(&self) -> bool {
        self.pods.is_some()
    }

    /// What the buckets hold that all files share.
    pub fn levels(&self) -> impl Iterator<Item = Level> {
        self.volume.iter().flat_map(Buckets::levels)
    }

    /// Whether a request of that direction may be answered with `EAGAIN`.
    #[must_use]
    pub const fn may_refuse(&self, direction: Direction) -> bool {
        self.again[index(direction)]
    }

    /// Fewer bytes were moved than a request that passed had asked for.
    pub fn give_back(&mut self, lane: Lane, bytes: u64, now_ns: u64) {
        let own = self.files.get_mut(&lane.file).into_iter().flatten();
        self.volume.iter_mut().chain(own).for_each(|buckets| buckets.give_back(lane.direction, bytes));
        if let Some(pods) = &mut self.pods {
            pods.give_back(lane.pod, lane.direction, bytes, now_ns);
        }
    }

    /// Whether requests of that direction are limited at all.
    #[must_use]
    pub const fn limits(&self, direction: Direction) -> bool {
        self.limited[index(direction)]
    }

    /// Requests that passed because too many waited, or because too many files or pods were in use.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed + self.pods.as_ref().map_or(0, Pods::missed)
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.tickets.len()
    }

    const fn queue_of(&self, direction: Direction) -> usize {
        if self.shared { 0 } else { index(direction) }
    }

    /// A request arrives. `ticket` is the caller's name for it, unique among those that wait.
    pub fn submit(&mut self, now_ns: u64, ticket: u64, lane: Lane, bytes: u64, nonblocking: bool) -> Admission {
        let direction = lane.direction;
        if !self.limits(direction) {
            return Admission::Now;
        }
        self.know_file(lane.file, now_ns);
        let queue = &self.queues[self.queue_of(direction)];
        let first = !queue.has_ready() && queue.parked_until().is_none_or(|until| until > now_ns) && !queue.has(lane);
        if first && self.ready_at(lane, now_ns) <= now_ns && self.take(lane, bytes, now_ns).is_ok() {
            return Admission::Now;
        }
        if nonblocking && self.again[index(direction)] {
            return Admission::Again;
        }
        if self.tickets.len() >= MAX_WAITING {
            self.overflowed += 1;
            return Admission::Now;
        }
        let cost = self.cost_ns(lane, bytes);
        let queue = self.queue_of(direction);
        self.queues[queue].push(lane, ticket, bytes, cost);
        if first && self.common_ready_at(direction, now_ns) <= now_ns {
            // He waits for buckets of his own: others need not.
            let own = self.ready_at(lane, now_ns);
            self.queues[queue].park(lane, own);
        }
        self.tickets.insert(ticket, lane);
        Admission::Wait
    }

    /// Lets go whoever may go by now: their tickets are added to `released`, in order. Gives when to call again, if at all.
    pub fn advance(&mut self, now_ns: u64, released: &mut Vec<u64>) -> Option<u64> {
        let next = [self.advance_queue(0, now_ns, released), self.advance_queue(1, now_ns, released)];
        next.into_iter().flatten().min()
    }

    fn advance_queue(&mut self, queue: usize, now_ns: u64, released: &mut Vec<u64>) -> Option<u64> {
        self.queues[queue].unpark(now_ns);
        let mut next = None;
        while let Some((lane, head)) = self.queues[queue].head() {
            let common = self.common_ready_at(lane.direction, now_ns);
            if common > now_ns {
                // All wait for this, and he is the first of them.
                next = Some(common).filter(|at| *at != u64::MAX);
                break;
            }
            let own = self.ready_at(lane, now_ns);
            if own > now_ns {
                self.queues[queue].park(lane, own);
                continue;
            }
            if let Err(not_before) = self.take(lane, head.bytes, now_ns) {
                // Another server was faster.
                self.queues[queue].park(lane, not_before);
                continue;
            }
            self.queues[queue].pop(lane);
            self.tickets.remove(&head.ticket);
            released.push(head.ticket);
        }
        next.into_iter().chain(self.queues[queue].parked_until()).min()
    }

    /// The request does not wait any more (its caller was killed). Whether it waited.
    pub fn cancel(&mut self, ticket: u64) -> bool {
        self.tickets.remove(&ticket).is_some_and(|lane| {
            let queue = self.queue_of(lane.direction);
            self.queues[queue].remove(lane, ticket)
        })
    }

    /// Lets go everyone who waits, whatever the buckets say: for limits that end or change.
    pub fn release_all(&mut self, released: &mut Vec<u64>) {
        let first = released.len();
        released.extend(self.tickets.drain().map(|(ticket, _)| ticket));
        released[first..].sort_unstable();
        let per_file = self.volume.is_empty() && self.pods.is_none();
        self.queues = [FairQueue::new(per_file), FairQueue::new(per_file)];
    }

    /// When the buckets that everyone in the queue needs allow one more.
    fn common_ready_at(&mut self, direction: Direction, now_ns: u64) -> u64 {
        let shared = self.shared;
        self.volume
            .iter_mut()
            .map(|buckets| if shared { buckets.total_ready_at(now_ns) } else { buckets.ready_at(direction, now_ns) })
            .max()
            .unwrap_or(now_ns)
    }

    /// When all buckets allow the lane one more.
    fn ready_at(&mut self, lane: Lane, now_ns: u64) -> u64 {
        let of_pod = self.pods.as_mut().map_or(now_ns, |pods| pods.ready_at(lane.pod, lane.direction, now_ns));
        let own = self.files.get_mut(&lane.file).into_iter().flatten();
        let ours = self
            .volume
            .iter_mut()
            .chain(own)
            .map(|buckets| buckets.ready_at(lane.direction, now_ns).max(buckets.total_ready_at(now_ns)))
            .max();
        ours.unwrap_or(now_ns).max(of_pod)
    }

    /// Takes everything, or nothing: of all buckets only those of pods may have become empty since they were looked at.
    fn take(&mut self, lane: Lane, bytes: u64, now_ns: u64) -> Result<(), u64> {
        if let Some(pods) = &mut self.pods {
            pods.take(lane.pod, lane.direction, bytes, now_ns)?;
        }
        let own = self.files.get_mut(&lane.file).into_iter().flatten();
        self.volume.iter_mut().chain(own).for_each(|buckets| buckets.take(lane.direction, bytes));
        Ok(())
    }

    fn cost_ns(&mut self, lane: Lane, bytes: u64) -> u64 {
        let own = self.files.get_mut(&lane.file).into_iter().flatten();
        let cost = |buckets: &mut Buckets| buckets.cost_ns(lane.direction, bytes);
        let of_pod = self.pods.as_ref().map(|pods| pods.cost_ns(lane.direction, bytes));
        let of_volume = self.volume.iter_mut().map(cost).max();
        of_pod.max(of_volume).unwrap_or_else(|| own.map(cost).max().unwrap_or(1))
    }

    /// Gives the file buckets, if files have any.
    fn know_file(&mut self, file: u64, now_ns: u64) {
        if self.file_specs.is_empty() || self.files.contains_key(&file) {
            return;
        }
        if self.files.len() >= MAX_FILES && now_ns.saturating_sub(self.swept_ns) >= SWEEP_NS {
            self.swept_ns = now_ns;
            // Whoever waits is waiting for buckets that are not full.
            self.files.retain(|_, buckets| !buckets.iter_mut().all(|bucket| bucket.is_full(now_ns)));
        }
        if self.files.len() >= MAX_FILES {
            self.overflowed += 1;
            return;
        }
        let buckets = |spec| match self.resumed_ns {
            Some(resumed_ns) => Buckets::empty(spec, resumed_ns),
            None => Buckets::new(spec, now_ns),
        };
        self.files.insert(file, self.file_specs.iter().map(buckets).collect());
    }
}

#[cfg(test)]
mod tests;
