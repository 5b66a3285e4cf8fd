//! Descriptors: one put in the place of another, and whole messages that carry some over a socket.
#![expect(unsafe_code, reason = "dup3(2) closes a number that another type owns; a reactor keeps numbers of others")]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

/// Descriptors that one message may carry; the kernel takes 253.
pub const MAX_CARRIED: usize = 250;
/// Longest message, in bytes.
pub const MAX_PACKET_BYTES: usize = 64 * 1024;

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// What a receiver does when there is nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Block,
    /// Fail with [`io::ErrorKind::WouldBlock`].
    Never,
}

/// Makes `number` mean the file behind `file`; what it meant before is closed. Its owner stays its owner.
///
/// # Errors
/// When the kernel refuses.
pub fn replace(number: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both numbers are open, as their types say; the number stays open and keeps its owner, only its file changes.
    let result = unsafe { libc::dup3(file.as_raw_fd(), number.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Two connected sockets that keep messages apart.
///
/// # Errors
/// When the kernel refuses.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A descriptor to wait for in an asynchronous task.
///
/// # Errors
/// When it cannot be waited for, or there is no runtime.
pub fn awaited(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open and gives the same number as long as it lives, which is as long as the one that waits.
    unsafe { AsyncFd::register(file) }.map_err(io::Error::from)
}

/// Sends one message with descriptors.
///
/// # Errors
/// When it is too large, or nobody can receive it any more.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > MAX_PACKET_BYTES || descriptors.len() > MAX_CARRIED {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_CARRIED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message; `None` when the other end is gone.
///
/// # Errors
/// When it cannot be received as a whole, or there is none and `wait` says not to wait.
pub fn receive(socket: BorrowedFd<'_>, wait: Wait) -> io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_CARRIED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MAX_PACKET_BYTES];
    let flags = match wait {
        Wait::Block => RecvFlags::CMSG_CLOEXEC,
        Wait::Never => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    };
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(carried) = message {
            descriptors.extend(carried);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    bytes.truncate(received.bytes);
    Ok((received.bytes > 0).then_some(Packet { bytes, descriptors }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn messages_stay_apart_and_carry_descriptors() {
        let (left, right) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(left.as_fd(), b"one", &[writer.as_fd()]).unwrap();
        send(left.as_fd(), b"two", &[]).unwrap();
        drop(writer);
        let first = receive(right.as_fd(), Wait::Block).unwrap().unwrap();
        assert_eq!((first.bytes.as_slice(), first.descriptors.len()), (b"one".as_slice(), 1));
        for descriptor in first.descriptors {
            std::fs::File::from(descriptor).write_all(b"through").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        let second = receive(right.as_fd(), Wait::Never).unwrap().unwrap();
        assert_eq!((second.bytes.as_slice(), second.descriptors.len()), (b"two".as_slice(), 0));
        assert_eq!(receive(right.as_fd(), Wait::Never).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(left);
        assert!(receive(right.as_fd(), Wait::Block).unwrap().is_none());
    }

    #[test]
    fn what_cannot_arrive_whole_is_refused() {
        let (left, _right) = pair().unwrap();
        assert!(send(left.as_fd(), b"", &[]).is_err());
        assert!(send(left.as_fd(), &vec![1; MAX_PACKET_BYTES + 1], &[]).is_err());
        assert!(send(left.as_fd(), b"x", &vec![left.as_fd(); MAX_CARRIED + 1]).is_err());
    }

    #[test]
    fn a_number_gets_another_file() {
        let (one, mut other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        replace(one.as_fd(), other.as_fd()).unwrap();
        (&one).write_all(b"same").unwrap();
        other.rewind().unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "same");
    }
}
