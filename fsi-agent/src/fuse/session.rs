//! A session on a connection that was begun before this server: the kernel says INIT once, every server hears it.
//!
//! ```text
//! INIT bytes of the state -> socket pair -> fuser -> its reply -> kept in the state -> /dev/fuse -> the pair's place
//! ```
//! The reply goes out from every server: the kernel takes the first and says ENOENT to others, so that a server killed between
//! keeping and sending it leaves nothing undone. Each successor's must equal the kept one, as the kernel keeps to that.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use fuser::{Config, Filesystem, Notifier, Session, SessionACL};
use thiserror::Error;

use super::state::{State, StateError};
use super::under_way::{self, RESENT};
use crate::sys::fd;

/// Where `flags2` stands in the reply: after the header of 16 bytes, 32 into the body.
const FLAGS2: std::ops::Range<usize> = 48..52;
/// `FUSE_HAS_RESEND`, bit 39.
const HAS_RESEND: u32 = 1 << (39 - 32);
/// `FUSE_NOTIFY_RESEND`
const NOTIFY_RESEND: u32 = 7;
/// Larger than any reply to INIT.
const MAX_REPLY_BYTES: usize = 4096;

/// Why a session did not start, or how it ended.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error("the mount's state holds no INIT request")]
    NoInit,
    #[error("the file system did not take up the connection: {0}")]
    Handshake(#[source] io::Error),
    #[error("this server would speak to the kernel differently than the one before it")]
    OtherReply,
    #[error("{0}")]
    State(#[from] StateError),
    #[error("answer the kernel's INIT: {0}")]
    Answer(#[source] io::Error),
    #[error("ask the kernel for unanswered requests: {0}")]
    Resend(#[source] io::Error),
    #[error("serve the mount: {0}")]
    Run(#[source] io::Error),
}

/// Serves until the connection ends. `started` gets the way to tell the kernel things, right before the first request is read.
///
/// # Errors
/// When it cannot start, or ends otherwise than by the end of the connection.
pub fn run<F: Filesystem>(
    filesystem: F,
    connection: &OwnedFd,
    state: &State,
    threads: usize,
    started: impl FnOnce(Notifier),
) -> Result<(), SessionError> {
    let init = state.init();
    if init.is_empty() {
        return Err(SessionError::NoInit);
    }
    let (ours, theirs) = fd::pair().map_err(SessionError::Handshake)?;
    let mut ours = File::from(ours);
    ours.write_all(&init).map_err(SessionError::Handshake)?;
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    // A cloned descriptor would lose its requests with the server.
    config.clone_fd = false;
    let session = Session::from_fd(filesystem, theirs, SessionACL::All, config).map_err(SessionError::Handshake)?;
    let mut reply = vec![0; MAX_REPLY_BYTES];
    let length = ours.read(&mut reply).map_err(SessionError::Handshake)?;
    reply.truncate(length);
    take_up(connection, state, &reply)?;
    fd::replace(session.as_fd(), connection.as_fd()).map_err(SessionError::Answer)?;
    started(session.notifier());
    session.run().map_err(SessionError::Run)
}

fn take_up(connection: &OwnedFd, state: &State, reply: &[u8]) -> Result<(), SessionError> {
    let kept = state.init_reply();
    let is_successor = !kept.is_empty();
    if !is_successor {
        state.set_init_reply(reply)?;
    } else if kept != reply {
        return Err(SessionError::OtherReply);
    }
    match rustix::io::write(connection, reply) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOENT) if is_successor => {}
        Err(error) => return Err(SessionError::Answer(error.into())),
    }
    match (is_successor, resends(reply)) {
        (false, _) => Ok(()),
        (true, true) => resend(connection).map_err(SessionError::Resend),
        (true, false) => fail_unanswered(connection, state).map_err(SessionError::Resend),
    }
}

/// A kernel that does not send again has nobody else to answer what the server before left. Whether it was done is not known.
/// Crossed out are these requests by [`under_way::UnderWay`] alone, as all that come again and do not.
fn fail_unanswered(connection: &OwnedFd, state: &State) -> io::Result<()> {
    for (_slot, words) in state.requests().used(u64::MAX) {
        match rustix::io::write(connection, &failure(words[0].load(Ordering::Acquire), libc::EIO)) {
            // It was answered, only not crossed out.
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// While no server lives: answers callers that were killed and could not end before they have an answer. How many they were.
///
/// # Errors
/// When the connection or the state cannot be used.
pub fn let_go_killed(connection: BorrowedFd<'_>, state: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count = 0;
    for unique in under_way::of_killed(state)? {
        // The kernel knows a request by its mark as well.
        for unique in [unique, unique | RESENT] {
            match rustix::io::write(connection, &failure(unique, libc::EINTR)) {
                Ok(_) => count += 1,
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(count)
}

/// An answer without a body: length, negative errno, number of the request.
fn failure(unique: u64, errno: i32) -> [u8; 16] {
    let mut answer = [0; 16];
    answer[..4].copy_from_slice(&16_u32.to_ne_bytes());
    answer[4..8].copy_from_slice(&(-errno).to_ne_bytes());
    answer[8..].copy_from_slice(&unique.to_ne_bytes());
    answer
}

/// Whether kernel and file system agreed on requests that come again.
fn resends(reply: &[u8]) -> bool {
    let flags = reply.get(FLAGS2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    flags & HAS_RESEND != 0
}

/// Has the kernel send again what it has no answer to.
fn resend(connection: &OwnedFd) -> io::Result<()> {
    // Header of a notification: length, code, no request.
    let mut message = [0; 16];
    message[..4].copy_from_slice(&16_u32.to_ne_bytes());
    message[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    rustix::io::write(connection, &message)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fuse::under_way::UnderWay;

    #[test]
    fn a_kernel_that_sends_nothing_again_is_answered() {
        let (ours, kernel) = fd::pair().unwrap();
        let file = State::create().unwrap();
        let state = State::open(file.as_fd()).unwrap();
        let dead = UnderWay::new(Arc::clone(&state));
        for unique in [14, 16] {
            std::mem::forget(dead.begin(unique, 1));
        }
        let next = UnderWay::new(Arc::clone(&state));
        fail_unanswered(&ours, &state).unwrap();
        let mut answer = [0; 32];
        for unique in [14, 16_u64] {
            assert_eq!(File::from(kernel.try_clone().unwrap()).read(&mut answer).unwrap(), 16);
            assert_eq!(answer[..16], failure(unique, libc::EIO));
        }
        // One that is given the place of another in the table keeps it when the other is crossed out.
        let same_place = 14 + 2 * state.requests().len() as u64;
        let guard = next.begin(same_place, 1);
        next.forget_left(|_past| {});
        let used: Vec<_> = state.requests().used(u64::MAX).map(|(_, words)| words[0].load(Ordering::Acquire)).collect();
        assert_eq!(used, [same_place]);
        drop(guard);
        assert_eq!(state.requests().used(u64::MAX).count(), 0);
    }

    #[test]
    fn resending_is_read_from_the_reply() {
        let mut reply = vec![0; 80];
        assert!(!resends(&reply));
        reply[FLAGS2].copy_from_slice(&HAS_RESEND.to_ne_bytes());
        assert!(resends(&reply));
        assert!(!resends(&reply[..40]), "an old kernel's reply is shorter");
    }
}
