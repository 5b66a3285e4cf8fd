//! One mount that is kept.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::message::{self, DESCRIPTORS, ToServer};
use super::super::mounted::has_ended;
use crate::sys::fd::MAX_CARRIED;

/// Servers in a row that lived for less than [`LONG_LIFE`]: no server will do.
const CRASH_LOOP: u32 = 5;
const LONG_LIFE: Duration = Duration::from_secs(1);
/// Descriptors that servers may give to hold for one mount; a server asks for no more than a few hundred.
const MAX_HELD: usize = 4096;

/// Why a mount is kept no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Unmounted,
    Late,
    CrashLoop,
}

#[derive(Debug)]
pub(super) struct Volume {
    layout: String,
    deadline: Duration,
    /// In the order of [`ToServer::Start`]; the first is /dev/fuse.
    descriptors: [OwnedFd; DESCRIPTORS],
    held: BTreeMap<u64, OwnedFd>,
    /// Of the server that has it, or had it last; no two are the same.
    serial: u64,
    /// Its server has everything already.
    came_back: bool,
    served_since: Option<Instant>,
    waits_since: Option<Instant>,
    deaths: u32,
}

impl Volume {
    pub(super) fn new(layout: String, deadline: Duration, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        let count = descriptors.len();
        let Ok(descriptors) = descriptors.try_into() else {
            return Err(format!("a mount has {DESCRIPTORS} descriptors, not {count}"));
        };
        let (serial, came_back, deaths) = (0, false, 0);
        let (served_since, waits_since) = (None, None);
        Ok(Self {
            layout,
            deadline,
            descriptors,
            held: BTreeMap::new(),
            serial,
            came_back,
            served_since,
            waits_since,
            deaths,
        })
    }

    /// Another server has it from here on.
    pub(super) fn serve(&mut self, came_back: bool) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.serial = NEXT.fetch_add(1, Ordering::Relaxed);
        self.came_back = came_back;
        (self.served_since, self.waits_since) = (Some(Instant::now()), None);
    }

    /// It answers requests.
    pub(super) fn ready(&mut self) {
        self.served_since = Some(Instant::now());
    }

    /// The server is gone.
    pub(super) fn left(&mut self) {
        let lived = self.served_since.take().is_some_and(|since| since.elapsed() >= LONG_LIFE);
        self.deaths = if lived { 0 } else { self.deaths + 1 };
        self.waits_since = Some(Instant::now());
    }

    pub(super) fn hold(&mut self, node: u64, descriptors: Vec<OwnedFd>) {
        if self.held.len() < MAX_HELD
            && let Some(descriptor) = descriptors.into_iter().next()
        {
            self.held.insert(node, descriptor);
        }
    }

    pub(super) fn drop(&mut self, node: u64) {
        self.held.remove(&node);
    }

    /// Gives everything to a server.
    pub(super) fn hand_over(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors = self.descriptors.each_ref().map(|descriptor| descriptor.as_fd());
        message::send(socket, &ToServer::Start { held: self.held.len() }, &descriptors)?;
        let held: Vec<_> = self.held.iter().collect();
        for chunk in held.chunks(MAX_CARRIED) {
            let nodes = chunk.iter().map(|(node, _)| **node).collect();
            let files: Vec<_> = chunk.iter().map(|(_, file)| file.as_fd()).collect();
            message::send(socket, &ToServer::Held { nodes }, &files)?;
        }
        Ok(())
    }

    /// Why it need not be kept any longer.
    pub(super) fn end(&self) -> Option<End> {
        let waits = self.waits_since?.elapsed();
        match () {
            () if self.ended() => Some(End::Unmounted),
            () if self.deaths >= CRASH_LOOP => Some(End::CrashLoop),
            () if waits >= self.deadline => Some(End::Late),
            () => None,
        }
    }

    pub(super) fn ended(&self) -> bool {
        has_ended(self.descriptors[0].as_fd())
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

    pub(super) fn waits(&self) -> Option<Duration> {
        self.waits_since.map(|since| since.elapsed())
    }
}
