//! Operations on names: look up, make, link, remove, rename.
//!
//! A request that comes a second time may have been done by the server that was killed: then "exists already" and "is not there"
//! are looked at once more before they become an answer.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Statx};
use rustix::io::Errno;

use super::{Ask, Call, Interposer, On, Outcome, Way};
use crate::fuse::node::{IoMode, Node, STATX, number_of};
use crate::fuse::under_way::Past;
use crate::rules::op::Op;
use crate::sys::caller;

/// An answer that makes the kernel know an object.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub number: u64,
    pub generation: u64,
    pub stat: Statx,
    /// How long the kernel may believe it.
    pub ttl: Duration,
}

impl Outcome for Entry {}
impl Outcome for () {}
impl Outcome for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl Interposer {
    /// A name as an answer; counts a lookup.
    pub(super) fn entry(&self, directory: &Node, name: &[u8], way: &Way<'_>) -> Result<Entry, Errno> {
        let (node, stat) = self.nodes.look_up(directory, name)?;
        way.under.counts(node.number);
        if let Some(Past { counted: counted @ 1.., .. }) = way.past() {
            self.nodes.forget(counted, 1);
        }
        Ok(Entry { number: node.number, generation: self.generation(&node), stat, ttl: self.ttl_of(&node) })
    }

    /// How long the kernel may keep what it knows about a node: not at all where a rule wants to see each question.
    pub(super) fn ttl_of(&self, node: &Node) -> Duration {
        let questions = [Op::Lookup, Op::Getattr].into_iter().collect();
        if self.armed().any.intersects(questions) && self.concern(|| self.nodes.path(node.number)).intersects(questions)
        {
            Duration::ZERO
        } else {
            self.ttl
        }
    }

    pub fn lookup<A>(self: &Arc<Self>, call: Call, parent: u64, name: &[u8], answer: A)
    where
        A: FnOnce(Result<Entry, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Lookup, On::Name(parent, name));
        self.run(call, &ask, |way| self.entry(&*self.nodes.get(parent)?, name, way), answer);
    }

    pub fn mkdir<A>(self: &Arc<Self>, call: Call, parent: u64, name: &[u8], mode: u32, umask: u32, answer: A)
    where
        A: FnOnce(Result<Entry, Errno>) + Send + 'static,
    {
        self.make(call, Op::Mkdir, parent, name, umask, answer, |at| {
            rustix::fs::mkdirat(at, name, Mode::from_raw_mode(mode & 0o7777))
        });
    }

    #[expect(clippy::too_many_arguments, reason = "what mknod(2) takes, and who asks")]
    pub fn mknod<A>(
        self: &Arc<Self>,
        call: Call,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        device: u32,
        answer: A,
    ) where
        A: FnOnce(Result<Entry, Errno>) + Send + 'static,
    {
        self.make(call, Op::Mknod, parent, name, umask, answer, |at| {
            let kind = FileType::from_raw_mode(mode);
            // The kernel sends the old encoding: major 8..20, minor the rest.
            let device = rustix::fs::makedev(device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
            rustix::fs::mknodat(at, name, kind, Mode::from_raw_mode(mode & 0o7777), device)
        });
    }

    pub fn symlink<A>(self: &Arc<Self>, call: Call, parent: u64, name: &[u8], content: &[u8], answer: A)
    where
        A: FnOnce(Result<Entry, Errno>) + Send + 'static,
    {
        self.make(call, Op::Symlink, parent, name, 0, answer, |at| rustix::fs::symlinkat(content, at, name));
    }

    /// What mkdir, mknod and symlink have in common.
    #[expect(clippy::too_many_arguments, reason = "one place for the three")]
    fn make<A, M>(self: &Arc<Self>, call: Call, op: Op, parent: u64, name: &[u8], umask: u32, answer: A, make: M)
    where
        A: FnOnce(Result<Entry, Errno>) + Send + 'static,
        M: FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    {
        let ask = Ask::new(op, On::Name(parent, name));
        self.run(
            call,
            &ask,
            |way| {
                let directory = self.nodes.get(parent)?;
                let at = self.nodes.file(&directory)?;
                let at = at.as_fd();
                let before = way.under.before(|| (inode(at, name), 0));
                match caller::making(call.uid, call.gid, umask, || make(at)) {
                    // The server that was killed had made it.
                    Err(Errno::EXIST) if before.begun && before.name == 0 => {}
                    made => made?,
                }
                self.entry(&directory, name, way)
            },
            answer,
        );
    }

    pub fn link<A>(self: &Arc<Self>, call: Call, number: u64, parent: u64, name: &[u8], answer: A)
    where
        A: FnOnce(Result<Entry, Errno>) + Send + 'static,
    {
        let ask = Ask { target: Some((parent, name)), ..Ask::new(Op::Link, On::Node(number)) };
        self.run(
            call,
            &ask,
            |way| {
                let directory = self.nodes.get(parent)?;
                let node = self.nodes.get(number)?;
                let at = self.nodes.file(&directory)?;
                let at = at.as_fd();
                let before = way.under.before(|| (inode(at, name), 0));
                let io = node.io();
                match rustix::fs::linkat(self.nodes.file(&node)?, "", at, name, AtFlags::EMPTY_PATH) {
                    Err(Errno::EXIST) if before.begun && before.name == 0 && inode(at, name) == number => {}
                    linked => linked?,
                }
                self.has_name(&node, &io);
                drop(io);
                self.entry(&directory, name, way)
            },
            answer,
        );
    }

    pub fn unlink<A>(self: &Arc<Self>, call: Call, parent: u64, name: &[u8], answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        self.remove(call, Op::Unlink, parent, name, AtFlags::empty(), answer);
    }

    pub fn rmdir<A>(self: &Arc<Self>, call: Call, parent: u64, name: &[u8], answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        self.remove(call, Op::Rmdir, parent, name, AtFlags::REMOVEDIR, answer);
    }

    fn remove<A>(self: &Arc<Self>, call: Call, op: Op, parent: u64, name: &[u8], flags: AtFlags, answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let ask = Ask::new(op, On::Name(parent, name));
        self.run(
            call,
            &ask,
            |way| {
                let directory = self.nodes.get(parent)?;
                let at = self.nodes.file(&directory)?;
                let at = at.as_fd();
                let before = way.under.before(|| (inode(at, name), 0));
                let gone = before.name;
                self.loses_a_name(way, gone);
                // Done by the server that was killed: the name stands for it no more.
                let done = before.begun && gone != 0 && inode(at, name) != gone;
                self.losing_name(gone, || if done { Ok(()) } else { rustix::fs::unlinkat(at, name, flags) })?;
                self.lost_a_name(way, gone);
                Ok(())
            },
            answer,
        );
    }

    /// Takes a name of an object, perhaps its last. Its handle leads nowhere then, so a descriptor is kept; while it is open, its
    /// bytes must outlive this server. Nobody opens, closes or names it meanwhile.
    fn losing_name(&self, number: u64, take: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let Ok(node) = self.nodes.get(number) else { return take() };
        let io = node.io();
        let file = match self.nodes.kept(&node) {
            Ok(file) => file,
            Err(error @ (Errno::MFILE | Errno::NFILE)) => return Err(error),
            // It is gone already.
            Err(_gone) => return take(),
        };
        self.nodes.record(&node).set_nameless(true);
        if io.is_open() {
            // Perhaps again: a server may have been killed between the two.
            self.hold_for_successors(&node, file);
        }
        let taken = take();
        let has_name = match rustix::fs::fstat(file) {
            // How many links a directory has says nothing, but it has only one name.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => taken.is_err(),
            Ok(stat) => stat.st_nlink > 0,
            Err(_) => taken.is_err(),
        };
        if has_name {
            self.has_name(&node, &io);
        }
        taken
    }

    /// An object has a name for sure. `io` is locked, so that nobody takes that away.
    fn has_name(&self, node: &Node, io: &IoMode) {
        let record = self.nodes.record(node);
        if record.is_nameless() {
            record.set_nameless(false);
            if io.is_open() {
                self.drop_held(node);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what renameat2(2) takes, and who asks")]
    pub fn rename<A>(
        self: &Arc<Self>,
        call: Call,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: RenameFlags,
        answer: A,
    ) where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let ask = Ask { target: Some((new_parent, new_name)), ..Ask::new(Op::Rename, On::Name(parent, name)) };
        self.run(
            call,
            &ask,
            |way| {
                let from = self.nodes.get(parent)?;
                let to = self.nodes.get(new_parent)?;
                let (from_file, to_file) = (self.nodes.file(&from)?, self.nodes.file(&to)?);
                let (from_at, to_at) = (from_file.as_fd(), to_file.as_fd());
                let before = way.under.before(|| (inode(from_at, name), inode(to_at, new_name)));
                let (moved, replaced) = (before.name, before.target);
                // Done by the server that was killed: the new name stands for what the old one stood for.
                let done =
                    before.begun && moved != 0 && inode(to_at, new_name) == moved && inode(from_at, name) != moved;
                let exchange = flags.contains(RenameFlags::EXCHANGE);
                let rename = || match done {
                    true => Ok(()),
                    false => rustix::fs::renameat_with(from_at, name, to_at, new_name, flags),
                };
                if replaced != moved && !exchange {
                    self.loses_a_name(way, replaced);
                    self.losing_name(replaced, rename)
                } else {
                    rename()
                }?;
                self.nodes.moved(moved, new_parent, new_name);
                if exchange {
                    self.nodes.moved(replaced, parent, name);
                } else if replaced != moved {
                    self.lost_a_name(way, replaced);
                }
                Ok(())
            },
            answer,
        );
    }
}

/// Inode number that a name stands for, as a node's number; 0 for none.
pub(super) fn inode(at: BorrowedFd<'_>, name: &[u8]) -> u64 {
    rustix::fs::statx(at, name, AtFlags::SYMLINK_NOFOLLOW, STATX).map_or(0, |stat| number_of(&stat))
}
