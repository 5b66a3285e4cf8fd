//! Opening, making and closing files; who reads and writes them, the kernel or we.
//!
//! The kernel wants all descriptors of an inode to agree: while one is open in passthrough, each other must name the same backing
//! file. So the first open of an inode decides, and a later one that must be watched reads and writes through us but keeps the number.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::names::inode;
use super::{Ask, Call, DATA, Interposer, On, Outcome, Way};
use crate::fuse::keeper_link::Keeper;
use crate::fuse::node::{IoMode, Node, STATX};
use crate::fuse::open_files::{Kind, reopen};
use crate::rules::op::Op;
use crate::sys::caller;

/// An answer to open.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub handle: u64,
    /// The number of the backing file, where there is one.
    pub backing: Option<u32>,
    /// Reads and writes come to us.
    pub direct: bool,
    /// close(2) must be told to us.
    pub wants_flush: bool,
}

impl Outcome for Opened {}

/// An answer to create.
#[derive(Debug)]
pub struct Created {
    pub entry: super::names::Entry,
    pub opened: Opened,
}

impl Outcome for Created {}

impl Interposer {
    /// open(2) of a file that exists.
    pub fn open<A>(self: &Arc<Self>, call: Call, number: u64, flags: OFlags, answer: A)
    where
        A: FnOnce(Result<Opened, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Open, On::Node(number));
        self.run(
            call,
            &ask,
            |way| {
                self.close_unanswered(way);
                let node = self.nodes.get(number)?;
                self.open_node(call, way, &node, flags)
            },
            answer,
        );
    }

    fn open_node(&self, call: Call, way: &Way<'_>, node: &Node, flags: OFlags) -> Result<Opened, Errno> {
        let concern = self.concern(|| self.nodes.path(node.number));
        let concerned = concern.intersects(DATA) || self.armed().volume.sees_data();
        let wants_flush = concern.contains(Op::Flush);
        let mut io = node.io();
        self.hold_nameless(node, &io)?;
        if !io.is_open() && !concerned && self.device().passthrough() {
            // The kernel opens the backing file itself: what it would refuse must be refused here.
            match self.device().register(self.nodes.file(node)?.as_fd()) {
                Ok(id) => self.nodes.set_backing(node, &mut io, id),
                Err(error) => tracing::debug!(%error, "a file cannot be opened in passthrough"),
            }
        }
        let kind = match (io.backing, concerned) {
            (Some(_), false) => Kind::Passthrough,
            (Some(_), true) => Kind::DirectBacked,
            (None, _) => Kind::Direct,
        };
        let opened = self.add_open(call, way, node, flags, kind);
        match &opened {
            Ok(_) => kind.opened(&mut io),
            Err(_) if io.passthrough == 0 => {
                self.nodes.drop_backing(node, &mut io, |id| self.device().unregister(id));
                self.let_go(node, &io);
            }
            Err(_) => {}
        }
        Ok(Opened { handle: opened?, backing: io.backing, direct: kind != Kind::Passthrough, wants_flush })
    }

    /// Before an object is open that nobody had open: if it has no name, its bytes must outlive this server from now on.
    pub(super) fn hold_nameless(&self, node: &Node, io: &IoMode) -> Result<(), Errno> {
        if io.is_open() || !self.nodes.record(node).is_nameless() {
            return Ok(());
        }
        self.hold_for_successors(node, self.nodes.kept(node)?);
        Ok(())
    }

    pub(super) fn hold_for_successors(&self, node: &Node, file: BorrowedFd<'_>) {
        if let Err(error) = self.keeper.hold(node.number, file) {
            tracing::error!(%error, "an open file without a name would not outlive this server");
        }
    }

    /// Nobody has it open any more: if it has no name, the keeper need not hold it.
    pub(super) fn let_go(&self, node: &Node, io: &IoMode) {
        if !io.is_open() && self.nodes.record(node).is_nameless() {
            self.drop_held(node);
        }
    }

    pub(super) fn drop_held(&self, node: &Node) {
        if let Err(error) = Keeper::drop(&*self.keeper, node.number) {
            tracing::debug!(%error, "the keeper holds a file longer than it must");
        }
    }

    fn add_open(&self, call: Call, way: &Way<'_>, node: &Node, flags: OFlags, kind: Kind) -> Result<u64, Errno> {
        // In passthrough the kernel has its own file; ours is opened when an fsync or an lseek asks for it.
        let file = match kind {
            Kind::Passthrough => None,
            Kind::Direct | Kind::DirectBacked | Kind::Directory => Some(reopen(&self.nodes, node, flags)?),
        };
        let open = self.open_files.add(node.number, flags, kind, file, |handle| way.under.opens(handle))?;
        self.tell_opened(call, node, &open);
        Ok(open.handle)
    }

    /// `open(2)` with `O_CREAT` of a name that the kernel thinks is free.
    #[expect(clippy::too_many_arguments, reason = "what open(2) with O_CREAT takes, and who asks")]
    pub fn create<A>(
        self: &Arc<Self>,
        call: Call,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        flags: OFlags,
        answer: A,
    ) where
        A: FnOnce(Result<Created, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Create, On::Name(parent, name));
        self.run(
            call,
            &ask,
            |way| {
                self.close_unanswered(way);
                let directory = self.nodes.get(parent)?;
                let at = self.nodes.file(&directory)?;
                let at = at.as_fd();
                let before = way.under.before(|| (inode(at, name), 0));
                let exclusive = flags & OFlags::EXCL;
                let making = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let make = |exclusive: OFlags| {
                    rustix::fs::openat(at, name, making | exclusive, Mode::from_raw_mode(mode & 0o7777))
                };
                // The kernel thinks that the name is free, and mostly it is: then there is nothing to truncate.
                let mut is_new = true;
                let made = caller::making(call.uid, call.gid, umask, || match make(OFlags::EXCL) {
                    Err(Errno::EXIST) if exclusive.is_empty() => {
                        is_new = false;
                        make(exclusive)
                    }
                    made => made,
                });
                match made {
                    Ok(made) => drop(made),
                    // An earlier server made it, and was killed before it could say so.
                    Err(Errno::EXIST) if before.begun && before.name == 0 => {}
                    // A file that exists already and that we may not write: opening it is what counts.
                    Err(Errno::ACCESS | Errno::ISDIR | Errno::NXIO) if exclusive.is_empty() => {}
                    Err(error) => return Err(error),
                }
                let entry = self.entry(&directory, name, way)?;
                let node = self.nodes.get(entry.number)?;
                let opened = if flags.contains(OFlags::TRUNC) && !is_new {
                    reopen(&self.nodes, &node, OFlags::WRONLY)
                        .and_then(|file| self.resize(way, &node, file.as_fd(), 0))
                        .and_then(|()| self.open_node(call, way, &node, flags))
                } else {
                    self.open_node(call, way, &node, flags)
                };
                match opened {
                    Ok(opened) => Ok(Created { entry, opened }),
                    Err(error) => {
                        // The lookup is taken back once: here, and not by a successor.
                        way.under.counts(0);
                        self.nodes.forget(entry.number, 1);
                        Err(error)
                    }
                }
            },
            answer,
        );
    }

    /// What a server opened that was killed before it could say so is open for nobody.
    pub(super) fn close_unanswered(&self, way: &Way<'_>) {
        if let Some(handle) = way.past().and_then(|past| past.opened) {
            self.release(handle);
        }
    }

    /// The last descriptor of an open file is gone.
    pub fn release(&self, handle: u64) {
        self.tell_released(handle);
        let Some(open) = self.open_files.remove(handle) else { return };
        let Ok(node) = self.nodes.get(open.node) else { return };
        let mut io = node.io();
        open.kind.closed(&mut io);
        if io.passthrough == 0 {
            self.nodes.drop_backing(&node, &mut io, |id| self.device().unregister(id));
        }
        self.let_go(&node, &io);
        let is_last = !io.is_open();
        drop(io);
        if is_last {
            self.has_ended(&node);
        }
    }

    /// Attributes of an object.
    pub(in crate::fuse) fn stat(&self, node: &Node) -> Result<Statx, Errno> {
        rustix::fs::statx(self.nodes.file(node)?, "", AtFlags::EMPTY_PATH, STATX)
    }
}
