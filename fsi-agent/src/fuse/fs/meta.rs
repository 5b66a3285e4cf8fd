//! Attributes: getattr, chmod, chown, truncate, utimens, readlink, statfs.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, StatVfs, Statx, StatxFlags, Timestamps, Uid};
use rustix::io::Errno;

use super::{Ask, Call, Interposer, On, Outcome, Way};
use crate::fuse::node::Node;
use crate::fuse::open_files::{object_path, reopen};
use crate::rules::op::Op;
use crate::sys::caller::Credentials;

/// Attributes as an answer.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub stat: Statx,
    pub ttl: Duration,
}

impl Outcome for Attributes {}
impl Outcome for StatVfs {}

/// What is to be changed.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    /// With "unchanged" for the one that is not set.
    pub times: Option<Timestamps>,
    pub handle: Option<u64>,
}

impl Change {
    /// What the application called. A change of nothing is how the kernel has setuid bits cleared after a write.
    const fn op(&self) -> Op {
        match self {
            Self { size: Some(_), .. } => Op::Truncate,
            Self { uid: Some(_), .. } | Self { gid: Some(_), .. } => Op::Chown,
            Self { times: Some(_), mode: None, .. } => Op::Utimens,
            _ => Op::Chmod,
        }
    }
}

const SET_ID_BITS: u16 = 0o6000;

impl Interposer {
    pub fn getattr<A>(self: &Arc<Self>, call: Call, number: u64, answer: A)
    where
        A: FnOnce(Result<Attributes, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Getattr, On::Node(number)),
            |_way| self.attributes(&*self.nodes.get(number)?),
            answer,
        );
    }

    fn attributes(&self, node: &Node) -> Result<Attributes, Errno> {
        Ok(Attributes { stat: self.stat(node)?, ttl: self.ttl_of(node) })
    }

    pub fn setattr<A>(self: &Arc<Self>, call: Call, number: u64, change: Change, answer: A)
    where
        A: FnOnce(Result<Attributes, Errno>) + Send + 'static,
    {
        let ask = Ask::new(change.op(), On::Node(number)).at(change.size.unwrap_or(0), 0);
        self.run(
            call,
            &ask,
            move |way| {
                let node = self.nodes.get(number)?;
                self.change(call, way, &node, &change)?;
                self.attributes(&node)
            },
            answer,
        );
    }

    fn change(&self, call: Call, way: &Way<'_>, node: &Node, change: &Change) -> Result<(), Errno> {
        let Change { mode, uid, gid, size, times, handle } = change;
        let file = self.nodes.file(node)?;
        let file = file.as_fd();
        if uid.is_some() || gid.is_some() {
            let owner = uid.map(Uid::from_raw);
            let group = gid.map(Gid::from_raw);
            self.for_caller(call, node, || rustix::fs::chownat(file, "", owner, group, AtFlags::EMPTY_PATH))?;
        }
        if let Some(mode) = mode {
            rustix::fs::chmod(object_path(file), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if let Some(size) = size {
            let cut = || match handle.and_then(|handle| self.open_files.get(handle).ok()) {
                Some(open) if open.flags.intersects(OFlags::WRONLY | OFlags::RDWR) => {
                    self.is_live(&open)?;
                    self.resize(way, node, open.file(&self.nodes)?, *size)
                }
                Some(_) | None => self.resize(way, node, reopen(&self.nodes, node, OFlags::WRONLY)?.as_fd(), *size),
            };
            self.for_caller(call, node, cut)?;
        }
        if let Some(times) = times {
            rustix::fs::utimensat(rustix::fs::CWD, object_path(file), times, AtFlags::empty())?;
        }
        let nothing = mode.is_none() && uid.is_none() && gid.is_none() && size.is_none() && times.is_none();
        if nothing { self.take_privileges(call, node) } else { Ok(()) }
    }

    /// What a write takes of a file: its capabilities, and setuid and setgid bits unless the caller keeps them.
    fn take_privileges(&self, call: Call, node: &Node) -> Result<(), Errno> {
        let file = self.nodes.file(node)?;
        let file = file.as_fd();
        if Credentials::of(call.tid, call.uid).keep_set_id() {
            return match rustix::fs::removexattr(object_path(file), "security.capability") {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                removed => removed,
            };
        }
        // A chown that changes no owner does the same as a write.
        self.for_caller(call, node, || rustix::fs::chownat(file, "", None, None, AtFlags::EMPTY_PATH))
    }

    /// Changes a file so that the backing file system decides on its setuid and setgid bits as for the caller. fuser does not say
    /// whether the caller may keep them, so that is looked up, for files that have any.
    pub(super) fn for_caller<T>(
        &self,
        call: Call,
        node: &Node,
        change: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let wanted = StatxFlags::MODE | StatxFlags::GID;
        let stat = rustix::fs::statx(self.nodes.file(node)?, "", AtFlags::EMPTY_PATH, wanted)?;
        if stat.stx_mode & SET_ID_BITS == 0 {
            return change();
        }
        Credentials::of(call.tid, call.uid).changing(call.gid, stat.stx_gid, change)
    }

    pub fn readlink<A>(self: &Arc<Self>, call: Call, number: u64, answer: A)
    where
        A: FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Readlink, On::Node(number)),
            |_way| {
                let node = self.nodes.get(number)?;
                Ok(rustix::fs::readlinkat(self.nodes.file(&node)?, "", Vec::new())?.into_bytes())
            },
            answer,
        );
    }

    pub fn statfs<A>(self: &Arc<Self>, call: Call, number: u64, answer: A)
    where
        A: FnOnce(Result<StatVfs, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Statfs, On::Node(number)),
            |way| {
                let node = self.nodes.get(number)?;
                let mut stat = rustix::fs::fstatvfs(self.nodes.file(&node)?)?;
                let volume = &way.armed.volume;
                let memory = volume.fake.as_ref().and_then(|fake| fake.memory()).map(|m| (m.limit(), m.used()));
                let limit = volume.capacity.as_ref().map(|c| (c.limit(), self.used().load(Ordering::Acquire)));
                if let Some((limit, used)) = memory.or(limit) {
                    let free = limit.saturating_sub(used) / stat.f_frsize.max(1);
                    stat.f_blocks = limit / stat.f_frsize.max(1);
                    // A capacity promises no more than the disk below has.
                    let free = if memory.is_some() { free } else { free.min(stat.f_bavail) };
                    (stat.f_bfree, stat.f_bavail) = (free, free);
                }
                Ok(stat)
            },
            answer,
        );
    }
}
