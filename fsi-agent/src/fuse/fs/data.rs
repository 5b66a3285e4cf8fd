//! Bytes: read, write, fsync, fallocate, seek, copy. Only for files that are not open in passthrough, but for fsync and its kin.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::bytes::both;
use super::{Ask, Call, Interposer, On, Outcome, Way};
use crate::fuse::node::errno_of;
use crate::fuse::open_files::Open;
use crate::fuse::volume::Fake;
use crate::rules::corrupt;
use crate::rules::decision::Effect;
use crate::rules::op::Op;

/// Bytes written or copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl Outcome for Count {
    fn bytes(&self) -> u64 {
        self.0
    }
}

/// What a write carries beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetId {
    Keep,
    /// The caller may not keep setuid and setgid bits.
    Clear,
}

impl Interposer {
    #[expect(clippy::too_many_arguments, reason = "what pread(2) takes, and who asks")]
    pub fn read<A>(
        self: &Arc<Self>,
        call: Call,
        number: u64,
        handle: u64,
        offset: u64,
        size: u32,
        flags: OFlags,
        answer: A,
    ) where
        A: FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Read, On::Node(number)).of(handle).at(offset, u64::from(size)).with(flags);
        self.run(
            call,
            &ask,
            |way| {
                let open = self.open_files.get(handle)?;
                let size = match way.decision.effect {
                    Effect::Short(bytes) => u64::from(size).min(bytes),
                    _ => u64::from(size),
                };
                let mut bytes = self.fetch(way, &open, offset, size)?;
                if let Effect::Corrupt(corruption) = &way.decision.effect {
                    corrupt::apply(corruption, offset, &mut bytes);
                }
                Ok(bytes)
            },
            answer,
        );
    }

    #[expect(clippy::too_many_arguments, reason = "what pwrite(2) takes, and who asks")]
    pub fn write<A>(
        self: &Arc<Self>,
        call: Call,
        number: u64,
        handle: u64,
        offset: u64,
        data: &[u8],
        flags: OFlags,
        set_id: SetId,
        answer: A,
    ) where
        A: FnOnce(Result<Count, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Write, On::Node(number)).of(handle).at(offset, data.len() as u64).with(flags);
        self.run(
            call,
            &ask,
            |way| {
                let open = self.open_files.get(handle)?;
                match set_id {
                    SetId::Keep => self.write_as(way, &open, offset, data),
                    SetId::Clear => {
                        self.for_caller(call, &*self.nodes.get(number)?, || self.write_as(way, &open, offset, data))
                    }
                }
            },
            answer,
        );
    }

    fn write_as(&self, way: &Way<'_>, open: &Open, offset: u64, data: &[u8]) -> Result<Count, Errno> {
        let cut = |bytes: u64| &data[..data.len().min(usize::try_from(bytes).unwrap_or(usize::MAX))];
        match &way.decision.effect {
            Effect::Short(bytes) => self.put(way, open, offset, cut(*bytes)).map(Count),
            Effect::Torn(bytes) => {
                self.put(way, open, offset, cut(*bytes))?;
                Ok(Count(data.len() as u64))
            }
            Effect::Corrupt(corruption) => {
                let mut changed = data.to_vec();
                corrupt::apply(corruption, offset, &mut changed);
                self.put(way, open, offset, &changed).map(Count)
            }
            Effect::Done | Effect::Fail(_) | Effect::Abort | Effect::FailFsync(_) | Effect::LieFsync => {
                self.put(way, open, offset, data).map(Count)
            }
        }
    }

    pub fn flush<A>(self: &Arc<Self>, call: Call, number: u64, answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        // The backing file hears of a close when its own descriptor goes; a file system has nothing to flush before.
        self.run(call, &Ask::new(Op::Flush, On::Node(number)), |_way| Ok(()), answer);
    }

    pub fn fsync<A>(self: &Arc<Self>, call: Call, number: u64, handle: u64, only_data: bool, answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let op = if only_data { Op::Fdatasync } else { Op::Fsync };
        self.run(call, &Ask::new(op, On::Node(number)).of(handle), |way| self.sync(way, handle, only_data), answer);
    }

    pub fn fsyncdir<A>(self: &Arc<Self>, call: Call, number: u64, handle: u64, only_data: bool, answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Fsyncdir, On::Node(number)).of(handle);
        self.run(call, &ask, |way| self.sync(way, handle, only_data), answer);
    }

    fn sync(&self, way: &Way<'_>, handle: u64, only_data: bool) -> Result<(), Errno> {
        let open = self.open_files.get(handle)?;
        self.is_live(&open)?;
        let file = open.file(&self.nodes)?;
        let sync = || if only_data { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) };
        match (way.decision.effect.clone(), &way.armed.volume.durability) {
            (Effect::FailFsync(errno), durability) => {
                if let Some(durability) = durability {
                    let file = both(self, open.node)?;
                    self.taken_back(way, &file, || durability.revert(open.node, file.as_fd()))?;
                    self.device().forget_cached(vec![open.node]);
                }
                Err(Errno::from_raw_os_error(errno))
            }
            (Effect::LieFsync, _) => Ok(()),
            (_, Some(durability)) => durability.sync(open.node, sync),
            (_, None) => sync(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what fallocate(2) takes, and who asks")]
    pub fn fallocate<A>(
        self: &Arc<Self>,
        call: Call,
        number: u64,
        handle: u64,
        offset: u64,
        len: u64,
        mode: u32,
        answer: A,
    ) where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Fallocate, On::Node(number)).of(handle).at(offset, len);
        self.run(
            call,
            &ask,
            |way| {
                let open = self.open_files.get(handle)?;
                self.allocate(way, &open, FallocateFlags::from_bits_retain(mode), offset, len)
            },
            answer,
        );
    }

    pub fn lseek<A>(self: &Arc<Self>, call: Call, number: u64, handle: u64, offset: u64, whence: i32, answer: A)
    where
        A: FnOnce(Result<Count, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Lseek, On::Node(number)).of(handle).at(offset, 0);
        self.run(
            call,
            &ask,
            |way| {
                let open = self.open_files.get(handle)?;
                self.is_live(&open)?;
                let file = open.file(&self.nodes)?;
                if let Some(fake) = &way.armed.volume.fake {
                    return seek_fake(fake, file, offset, whence);
                }
                let to = match whence {
                    libc::SEEK_DATA => SeekFrom::Data(offset),
                    libc::SEEK_HOLE => SeekFrom::Hole(offset),
                    _ => return Err(Errno::INVAL),
                };
                rustix::fs::seek(file, to).map(Count)
            },
            answer,
        );
    }

    /// Copies between two open files; reads of the one and writes of the other are rules' matters under this operation's own name.
    #[expect(clippy::too_many_arguments, reason = "what copy_file_range(2) takes, and who asks")]
    pub fn copy_file_range<A>(
        self: &Arc<Self>,
        call: Call,
        from: (u64, u64),
        from_offset: u64,
        to: (u64, u64),
        to_offset: u64,
        len: u64,
        answer: A,
    ) where
        A: FnOnce(Result<Count, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::CopyFileRange, On::Node(to.0)).of(to.1).at(to_offset, len);
        self.run(
            call,
            &ask,
            |_way| {
                // Where a rule wants to see reads or writes, the caller falls back to them.
                if [from.0, to.0].into_iter().any(|number| self.is_watched(number)) {
                    return Err(Errno::OPNOTSUPP);
                }
                let source = self.open_files.get(from.1)?;
                let target = self.open_files.get(to.1)?;
                self.is_live(&source).and_then(|()| self.is_live(&target))?;
                let (mut read, mut written) = (from_offset, to_offset);
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let source = source.file(&self.nodes)?;
                let target = target.file(&self.nodes)?;
                let copied = rustix::fs::copy_file_range(source, Some(&mut read), target, Some(&mut written), len)?;
                Ok(Count(copied as u64))
            },
            answer,
        );
    }
}

/// A fake has data everywhere up to its end.
fn seek_fake(fake: &Fake, file: BorrowedFd<'_>, offset: u64, whence: i32) -> Result<Count, Errno> {
    let left = fake.sizes().readable(file, offset, u64::MAX).map_err(|error| errno_of(&error))?;
    match whence {
        _ if left == 0 => Err(Errno::NXIO),
        libc::SEEK_DATA => Ok(Count(offset)),
        libc::SEEK_HOLE => Ok(Count(offset + left)),
        _ => Err(Errno::INVAL),
    }
}
