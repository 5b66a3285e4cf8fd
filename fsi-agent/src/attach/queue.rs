//! What waits for one watcher: bounded, and what does not fit is counted. Putting something in never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::span::Span;

/// Spans that may wait for a watcher.
pub(crate) const QUEUE: usize = 16_384;

/// What a watcher is told.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// Everything is seen from here on: the watcher's number, and how many cgroups it is about.
    Started {
        watch: u64,
        cgroups: u64,
    },
    Span(Arc<Span>),
    Mark(u64),
}

/// The agent's end.
#[derive(Debug)]
pub(crate) struct Inlet {
    items: mpsc::Sender<Item>,
    dropped: Arc<AtomicU64>,
    told: u64,
    /// What must not be lost, and found no room yet.
    owed: Option<Item>,
}

/// The watcher's end.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) items: mpsc::Receiver<Item>,
    pub(crate) dropped: Arc<AtomicU64>,
}

/// A queue of that length.
pub(crate) fn queue(length: usize) -> (Inlet, Outlet) {
    let (sender, items) = mpsc::channel(length);
    let dropped = Arc::new(AtomicU64::new(0));
    let inlet = Inlet { items: sender, dropped: Arc::clone(&dropped), told: 0, owed: None };
    (inlet, Outlet { items, dropped })
}

impl Inlet {
    /// A span, or one more that is lost to this watcher.
    pub(crate) fn span(&mut self, span: &Arc<Span>) {
        self.pay();
        // What is owed goes first: order tells what was before a mark.
        if self.owed.is_none() && self.items.try_send(Item::Span(Arc::clone(span))).is_ok() {
            self.told += 1;
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is never lost: of two marks that wait, the later says all.
    pub(crate) fn owe(&mut self, item: Item) {
        self.owed = Some(item);
        self.pay();
    }

    /// To be called now and then.
    pub(crate) fn pay(&mut self) {
        if let Some(item) = self.owed.take()
            && let Err(TrySendError::Full(item)) = self.items.try_send(item)
        {
            self.owed = Some(item);
        }
    }

    /// Nobody listens any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    pub(crate) const fn told(&self) -> u64 {
        self.told
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::tests::process;

    #[test]
    fn a_slow_watcher_loses_its_own_counted_and_no_mark() {
        let (mut slow, mut outlet) = queue(3);
        let (mut fast, mut other) = queue(8);
        for _ in 0..5 {
            slow.span(&process());
            fast.span(&process());
        }
        slow.owe(Item::Mark(7));
        assert_eq!((slow.told(), slow.dropped(), fast.told(), fast.dropped()), (3, 2, 5, 0));
        // There is no room for the mark; a span that comes after it does not overtake it.
        assert!(matches!(outlet.items.try_recv(), Ok(Item::Span(_))));
        slow.span(&process());
        let rest: Vec<_> = std::iter::from_fn(|| outlet.items.try_recv().ok()).collect();
        assert!(matches!(rest.as_slice(), [Item::Span(_), Item::Span(_), Item::Mark(7)]), "{rest:?}");
        assert_eq!((slow.told() + slow.dropped(), outlet.dropped.load(Ordering::Relaxed)), (6, 3));
        assert_eq!(std::iter::from_fn(|| other.items.try_recv().ok()).count(), 5);
        drop(outlet);
        assert!(slow.is_closed() && !fast.is_closed());
    }
}
