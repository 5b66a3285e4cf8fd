//! Answers that wait: one thread and a heap of deadlines, so that no worker sleeps.
//!
//! A caller that is killed meanwhile is answered early: a FUSE request whose server gave it to nobody cannot be interrupted
//! otherwise, and the process would stay until the deadline.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock;

/// Answers that may wait at once.
pub(super) const MAX_HELD: usize = 65_536;
/// A deadline that never comes: someone else says when.
pub(super) const UNTIL_TAKEN: u64 = u64::MAX;
/// How often waiting callers are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Callers that are looked at before it is seen to whether somebody's time has come: about a millisecond.
const LOOKED_AT_ONCE: usize = 64;

/// How the waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Through,
    /// The caller was killed.
    Killed,
}

/// What is done at the end.
pub(super) type Then = Box<dyn FnOnce(Waited) + Send>;

/// Names one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held(u64);

/// The answers that wait.
#[derive(Clone)]
pub(super) struct Hold {
    shared: Arc<Shared>,
}

struct Shared {
    heap: Mutex<Heap>,
    changed: Condvar,
}

#[derive(Default)]
struct Heap {
    next: u64,
    /// `(deadline, number)`, then who waits, by number.
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: HashMap<u64, Waiter>,
    /// Those of them that are our own.
    own: usize,
    looked_ns: u64,
}

struct Waiter {
    /// The thread that gets the answer; `None`: something of our own.
    tid: Option<u32>,
    then: Then,
}

impl Heap {
    fn take(&mut self, number: u64) -> Option<Then> {
        let Waiter { tid, then } = self.waiting.remove(&number)?;
        self.own -= usize::from(tid.is_none());
        Some(then)
    }

    fn answers(&self) -> usize {
        self.waiting.len() - self.own
    }

    /// The threads that wait, each once.
    fn callers(&self) -> Vec<u32> {
        let mut callers: Vec<_> = self.waiting.values().filter_map(|waiter| waiter.tid).collect();
        callers.sort_unstable();
        callers.dedup();
        callers
    }
}

impl Shared {
    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared { heap: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("fsi-hold".into()).spawn(move || run(&theirs))?;
        Ok(Self { shared })
    }

    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.shared.heap()
    }

    /// Does `then` at `due_ns`, or when the thread `tid` is killed. `Err`: too many wait; the caller does it at once and counts it.
    pub(super) fn until(&self, due_ns: u64, tid: u32, then: Then) -> Result<Held, Then> {
        let heap = self.heap();
        if heap.answers() >= MAX_HELD { Err(then) } else { Ok(self.put(heap, due_ns, Some(tid), then)) }
    }

    /// Does something of our own at `due_ns`, however many wait.
    pub(super) fn wake_at(&self, due_ns: u64, then: impl FnOnce() + Send + 'static) {
        self.put(self.heap(), due_ns, None, Box::new(|_waited| then()));
    }

    fn put(&self, mut heap: MutexGuard<'_, Heap>, due_ns: u64, tid: Option<u32>, then: Then) -> Held {
        let number = heap.next;
        heap.next += 1;
        // The thread sleeps without end while nobody waits.
        let wake = heap.waiting.is_empty() || heap.deadlines.peek().is_none_or(|Reverse((due, _))| due_ns < *due);
        if due_ns != UNTIL_TAKEN {
            heap.deadlines.push(Reverse((due_ns, number)));
        }
        heap.own += usize::from(tid.is_none());
        heap.waiting.insert(number, Waiter { tid, then });
        drop(heap);
        if wake {
            self.shared.changed.notify_one();
        }
        Held(number)
    }

    /// What one was waiting to do, if it still waits.
    pub(super) fn take(&self, held: Held) -> Option<Then> {
        self.heap().take(held.0)
    }

    /// How many answers wait.
    pub(super) fn len(&self) -> usize {
        self.heap().answers()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

fn run(shared: &Shared) {
    // Callers that are still to be looked at.
    let mut callers = Vec::new();
    let mut heap = shared.heap();
    loop {
        let now = clock::monotonic_ns();
        let mut ended = due(&mut heap, now);
        if ended.is_empty() {
            let look = u64::try_from(LOOK.as_nanos()).unwrap_or(u64::MAX);
            if callers.is_empty() && now.saturating_sub(heap.looked_ns) >= look {
                heap.looked_ns = now;
                callers = heap.callers();
            }
            if !callers.is_empty() {
                drop(heap);
                let some = callers.split_off(callers.len().saturating_sub(LOOKED_AT_ONCE));
                ended = killed(shared, &some, is_killed);
                heap = shared.heap();
                if ended.is_empty() {
                    continue;
                }
            }
        }
        if !ended.is_empty() {
            drop(heap);
            for (waited, then) in ended {
                then(waited);
            }
            heap = shared.heap();
            continue;
        }
        heap = if heap.waiting.is_empty() {
            shared.changed.wait(heap).unwrap_or_else(PoisonError::into_inner)
        } else {
            let first = heap.deadlines.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
            let wait = Duration::from_nanos(first.saturating_sub(now)).min(LOOK);
            shared.changed.wait_timeout(heap, wait).unwrap_or_else(PoisonError::into_inner).0
        };
    }
}

/// Those whose time has come.
fn due(heap: &mut Heap, now: u64) -> Vec<(Waited, Then)> {
    let mut ended = Vec::new();
    while let Some(Reverse((at, number))) = heap.deadlines.peek().copied() {
        // The deadline of one that was killed or taken is of no use to anybody.
        if at > now && heap.waiting.contains_key(&number) {
            break;
        }
        heap.deadlines.pop();
        if let Some(then) = heap.take(number) {
            ended.push((Waited::Through, then));
        }
    }
    ended
}

/// Those of these callers that have a SIGKILL pending. Looking takes a system call or three each, so nobody waits for it.
fn killed(shared: &Shared, callers: &[u32], is_killed: impl Fn(u32) -> bool) -> Vec<(Waited, Then)> {
    let dead: HashSet<u32> = callers.iter().copied().filter(|tid| is_killed(*tid)).collect();
    if dead.is_empty() {
        return Vec::new();
    }
    let mut heap = shared.heap();
    let is_dead = |waiter: &Waiter| waiter.tid.is_some_and(|tid| dead.contains(&tid));
    let dead: Vec<u64> = heap.waiting.iter().filter(|(_, waiter)| is_dead(waiter)).map(|(number, _)| *number).collect();
    dead.into_iter().filter_map(|number| heap.take(number)).map(|then| (Waited::Killed, then)).collect()
}

pub(super) fn is_killed(tid: u32) -> bool {
    if tid == 0 {
        return false;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{tid}/status")) else { return false };
    let pending = |line: &str| {
        let (key, mask) = line.split_once(':')?;
        // Any fatal signal becomes a pending SIGKILL of every thread.
        (key == "SigPnd")
            .then(|| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 << (libc::SIGKILL - 1) != 0))
    };
    status.lines().find_map(pending).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn deadlines_come_in_order_and_nothing_is_early() {
        let hold = Hold::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        let now = clock::monotonic_ns();
        for delay_ms in [30_u64, 10, 20] {
            let sender = sender.clone();
            let due = now + delay_ms * 1_000_000;
            let then: Then =
                Box::new(move |waited| sender.send((delay_ms, waited, clock::monotonic_ns() >= due)).unwrap());
            assert!(hold.until(due, 0, then).is_ok());
        }
        let seen: Vec<_> = (0..3).map(|_| receiver.recv().unwrap()).collect();
        let through = |delay| (delay, Waited::Through, true);
        assert_eq!(seen, [through(10), through(20), through(30)]);
        assert_eq!(hold.len(), 0);
    }

    #[test]
    fn one_that_is_taken_waits_no_more() {
        let hold = Hold::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        let Ok(held) = hold.until(UNTIL_TAKEN, 0, Box::new(move |waited| sender.send(waited).unwrap())) else {
            panic!("there is room");
        };
        hold.take(held).expect("it waits")(Waited::Through);
        assert_eq!(receiver.recv(), Ok(Waited::Through));
        assert!(hold.take(held).is_none());
    }

    /// While callers are looked at, others come and go.
    #[test]
    fn callers_are_looked_at_once_each_and_hold_nobody_up() {
        let hold = Hold::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        for tid in [1, 1, 2, 3] {
            let sender = sender.clone();
            assert!(hold.until(UNTIL_TAKEN, tid, Box::new(move |waited| sender.send((tid, waited)).unwrap())).is_ok());
        }
        let callers = hold.heap().callers();
        assert_eq!(callers, [1, 2, 3]);
        // The thread of the answers has the lock for moments.
        let is_free = || {
            (0..1000).any(|_| {
                hold.shared.heap.try_lock().is_ok() || {
                    thread::sleep(Duration::from_millis(1));
                    false
                }
            })
        };
        let ended = killed(&hold.shared, &callers, |tid| {
            assert!(is_free(), "somebody would have to wait");
            tid == 1
        });
        assert_eq!((ended.len(), hold.len()), (2, 2));
        for (waited, then) in ended {
            then(waited);
        }
        assert_eq!([receiver.recv(), receiver.recv()], [Ok((1, Waited::Killed)); 2]);
    }
}
