//! One mount that is kept.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::LONG_LIFE;
use super::super::message::{self, DESCRIPTORS, Given};
use super::super::mounted::has_ended;
use super::protocol::MAX_LAYOUT;
use crate::fuse::session;

/// Descriptors that servers may give to hold for one mount; a server asks for no more than a few hundred.
const MAX_HELD: usize = 4096;

/// Why a mount is kept no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Unmounted,
    Late,
}

#[derive(Debug)]
pub(super) struct Volume {
    layout: String,
    deadline: Duration,
    given: Given<OwnedFd>,
    held: BTreeMap<u64, OwnedFd>,
    /// Of the server that has it, or had it last; no two are the same.
    serial: u64,
    /// Its server has everything already.
    came_back: bool,
    served_since: Option<Instant>,
    /// Since when no server has lived long.
    unserved_since: Instant,
    /// It was said that callers are not let go.
    said_not_understood: bool,
}

impl Volume {
    pub(super) fn new(layout: String, deadline: Duration, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        if layout.len() > MAX_LAYOUT {
            return Err(format!("a layout has at most {MAX_LAYOUT} bytes"));
        }
        let count = descriptors.len();
        let Some(given) = Given::from_all(descriptors) else {
            return Err(format!("a mount has {DESCRIPTORS} descriptors, not {count}"));
        };
        let (held, serial, came_back) = (BTreeMap::new(), 0, false);
        Ok(Self {
            layout,
            deadline,
            given,
            held,
            serial,
            came_back,
            served_since: None,
            unserved_since: Instant::now(),
            said_not_understood: false,
        })
    }

    /// What its servers write down is not understood, and this is the first time that it matters.
    pub(super) fn is_news_that_not_understood(&mut self) -> bool {
        !self.is_understood() && !std::mem::replace(&mut self.said_not_understood, true)
    }

    fn is_understood(&self) -> bool {
        self.layout == message::layout()
    }

    /// Another server has it from here on.
    pub(super) fn serve(&mut self, came_back: bool) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.serial = NEXT.fetch_add(1, Ordering::Relaxed);
        self.came_back = came_back;
        self.served_since = Some(Instant::now());
    }

    /// It answers requests.
    pub(super) fn ready(&mut self) {
        self.served_since = Some(Instant::now());
    }

    /// The server is gone. Of one that ended soon the time without a server goes on: so a mount that kills each of its servers is let go
    /// in the end, and one whose servers are killed with the container they are in is not.
    pub(super) fn left(&mut self) {
        if self.served_since.take().is_some_and(|since| since.elapsed() >= LONG_LIFE) {
            self.unserved_since = Instant::now();
        }
    }

    /// Whether there is room for it. A server that is told nothing goes on; its successor does not have the file.
    #[must_use]
    pub(super) fn hold(&mut self, node: u64, descriptor: OwnedFd) -> bool {
        let has_room = self.held.len() < MAX_HELD;
        if has_room {
            self.held.insert(node, descriptor);
        }
        has_room
    }

    pub(super) fn drop(&mut self, node: u64) {
        self.held.remove(&node);
    }

    /// Gives everything to a server.
    pub(super) fn hand_over(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        message::hand_over(socket, &self.given.lent(), &self.held)
    }

    /// Why it need not be kept any longer.
    pub(super) fn end(&self) -> Option<End> {
        let waits = self.waits()?;
        if self.ended() {
            return Some(End::Unmounted);
        }
        (waits >= self.deadline).then_some(End::Late)
    }

    pub(super) fn ended(&self) -> bool {
        has_ended(self.given.connection.as_fd())
    }

    /// Without a server: lets callers go that were killed. A request that a server had taken holds its caller, who may be the very one that
    /// has to end before there is another server.
    pub(super) fn let_go_killed(&self) -> io::Result<usize> {
        if self.is_served() || !self.is_understood() {
            return Ok(0);
        }
        session::let_go_killed(self.given.connection.as_fd(), self.given.state.as_fd())
    }

    pub(super) fn is_served(&self) -> bool {
        self.served_since.is_some()
    }

    pub(super) fn came_back(&self) -> bool {
        self.came_back
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    pub(super) fn layout(&self) -> &str {
        &self.layout
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// How long there has been no server, when there is none.
    pub(super) fn waits(&self) -> Option<Duration> {
        (!self.is_served()).then(|| self.unserved_since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;

    use super::*;

    fn volume(deadline: Duration) -> Volume {
        let descriptors = (0..DESCRIPTORS).map(|_| File::open("/dev/null").unwrap().into()).collect();
        let mut volume = Volume::new("layout".to_owned(), deadline, descriptors).unwrap();
        volume.serve(false);
        volume
    }

    #[test]
    fn servers_that_die_at_once_do_not_end_a_mount_before_its_time() {
        let mut volume = volume(Duration::from_secs(60));
        for _ in 0..100 {
            volume.ready();
            volume.left();
            assert_eq!(volume.end(), None);
            volume.serve(false);
        }
    }

    #[test]
    fn servers_that_die_at_once_do_not_put_off_the_end() {
        let mut volume = volume(Duration::from_millis(500));
        volume.left();
        assert_eq!(volume.end(), None);
        for _ in 0..6 {
            volume.serve(false);
            thread::sleep(Duration::from_millis(100));
            assert_eq!(volume.end(), None, "it has a server");
            volume.left();
        }
        assert_eq!(volume.end(), Some(End::Late));
    }

    #[test]
    fn another_layout_is_said_once() {
        let mut other = volume(Duration::ZERO);
        assert_eq!([(); 3].map(|()| other.is_news_that_not_understood()), [true, false, false]);
        let descriptors = (0..DESCRIPTORS).map(|_| File::open("/dev/null").unwrap().into()).collect();
        let mut ours = Volume::new(message::layout(), Duration::ZERO, descriptors).unwrap();
        assert!(!ours.is_news_that_not_understood());
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let mut volume = volume(Duration::ZERO);
        // One number of a descriptor is as good as another here.
        for node in 0..8 {
            assert!(volume.hold(node, File::open("/dev/null").unwrap().into()));
        }
        volume.drop(3);
        assert_eq!(volume.held(), 7);
        assert!(Volume::new(String::new(), Duration::ZERO, Vec::new()).is_err());
    }
}
