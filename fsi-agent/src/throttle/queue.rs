//! Who goes next: start-time fair queueing between flows.
//!
//! Each waiting request carries a start tag, the later of the queue's virtual time and the end of its flow's request before; the
//! lowest tag goes first. A flow gains nothing from having many requests wait. Requests of one flow, file, pod and direction keep
//! their order (a lane); a lane whose own buckets are empty is parked until they are not, and holds up nobody else.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::spec::Direction;

/// Flows remembered between their requests.
const MAX_IDLE_FLOWS: usize = 4096;

/// Requests that go one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Who shares fairly with others.
    pub flow: u64,
    pub file: u64,
    /// Whose request it is, where limits ask.
    pub pod: u64,
    pub direction: Direction,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub ticket: u64,
    pub bytes: u64,
    start: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready(u128),
    Parked(u64),
}

#[derive(Debug)]
struct LaneState {
    requests: VecDeque<Waiting>,
    place: Place,
}

#[derive(Debug, Default)]
struct Flow {
    finish: u128,
    waiting: usize,
}

/// One queue; requests in it compete for the same buckets.
#[derive(Debug, Default)]
pub struct FairQueue {
    virtual_time: u128,
    flows: HashMap<(u64, u64), Flow>,
    lanes: HashMap<Lane, LaneState>,
    ready: BTreeSet<(u128, Lane)>,
    parked: BTreeSet<(u64, Lane)>,
    /// Shares are per flow and file, not per flow.
    per_file: bool,
}

impl FairQueue {
    /// `per_file`: flows compete only within a file, so their shares are counted there.
    #[must_use]
    pub fn new(per_file: bool) -> Self {
        Self { per_file, ..Self::default() }
    }

    /// Whether somebody waits only for what everybody shares: nobody may pass him.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    const fn flow_key(&self, lane: Lane) -> (u64, u64) {
        (lane.flow, if self.per_file { lane.file } else { 0 })
    }

    /// Puts a request at the end of its lane.
    pub fn push(&mut self, lane: Lane, ticket: u64, bytes: u64, cost: u64) {
        self.forget_idle_flows();
        let key = self.flow_key(lane);
        let flow = self.flows.entry(key).or_default();
        let start = self.virtual_time.max(flow.finish);
        flow.finish = start + u128::from(cost.max(1));
        flow.waiting += 1;
        let request = Waiting { ticket, bytes, start };
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.requests.push_back(request);
        } else {
            self.lanes.insert(lane, LaneState { requests: VecDeque::from([request]), place: Place::Ready(start) });
            self.ready.insert((start, lane));
        }
    }

    fn forget_idle_flows(&mut self) {
        if self.flows.len() < MAX_IDLE_FLOWS {
            return;
        }
        let now = self.virtual_time;
        self.flows.retain(|_, flow| flow.waiting > 0 || flow.finish > now);
        // All of them ahead of the time: they then start even, which is the lesser evil.
        if self.flows.len() >= 2 * MAX_IDLE_FLOWS {
            self.flows.retain(|_, flow| flow.waiting > 0);
        }
    }

    /// Lanes parked until now compete again.
    pub fn unpark(&mut self, now_ns: u64) {
        while let Some(&(until, lane)) = self.parked.first() {
            if until > now_ns {
                return;
            }
            self.parked.pop_first();
            if let Some(state) = self.lanes.get_mut(&lane)
                && let Some(head) = state.requests.front()
            {
                state.place = Place::Ready(head.start);
                self.ready.insert((head.start, lane));
            }
        }
    }

    /// The request whose turn it is.
    #[must_use]
    pub fn head(&self) -> Option<(Lane, Waiting)> {
        let &(_, lane) = self.ready.first()?;
        Some((lane, *self.lanes.get(&lane)?.requests.front()?))
    }

    /// The lane cannot go before then.
    pub fn park(&mut self, lane: Lane, until_ns: u64) {
        self.unplace(lane);
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.place = Place::Parked(until_ns);
            self.parked.insert((until_ns, lane));
        }
    }

    /// When the first parked lane wants to be looked at.
    #[must_use]
    pub fn parked_until(&self) -> Option<u64> {
        self.parked.first().map(|(until, _)| *until).filter(|until| *until != u64::MAX)
    }

    /// The head of the lane goes.
    pub fn pop(&mut self, lane: Lane) {
        self.unplace(lane);
        let key = self.flow_key(lane);
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if let Some(gone) = state.requests.pop_front() {
            self.virtual_time = self.virtual_time.max(gone.start);
        }
        self.left(key);
        self.replace(lane);
    }

    /// A request is taken out; whether it was there.
    pub fn remove(&mut self, lane: Lane, ticket: u64) -> bool {
        let Some(state) = self.lanes.get_mut(&lane) else { return false };
        let Some(at) = state.requests.iter().position(|request| request.ticket == ticket) else { return false };
        state.requests.remove(at);
        if at == 0 {
            self.unplace(lane);
            self.replace(lane);
        }
        self.left(self.flow_key(lane));
        true
    }

    fn left(&mut self, flow: (u64, u64)) {
        if let Some(flow) = self.flows.get_mut(&flow) {
            flow.waiting -= 1;
        }
    }

    fn unplace(&mut self, lane: Lane) {
        match self.lanes.get(&lane).map(|state| state.place) {
            Some(Place::Ready(start)) => drop(self.ready.remove(&(start, lane))),
            Some(Place::Parked(until)) => drop(self.parked.remove(&(until, lane))),
            None => {}
        }
    }

    /// A lane that stands nowhere competes with its next request, or ends.
    fn replace(&mut self, lane: Lane) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if let Some(next) = state.requests.front() {
            state.place = Place::Ready(next.start);
            self.ready.insert((next.start, lane));
        } else {
            self.lanes.remove(&lane);
        }
    }

    /// Whether requests of that lane wait.
    #[must_use]
    pub fn has(&self, lane: Lane) -> bool {
        self.lanes.contains_key(&lane)
    }
}
