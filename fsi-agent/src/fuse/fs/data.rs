//! Bytes: read, write, fsync, fallocate, seek, copy. Only for files that are not open in passthrough, but for fsync and its kin.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Ask, Call, Interposer, On, Outcome, Way};
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
    pub fn read<A>(self: &Arc<Self>, call: Call, number: u64, handle: u64, offset: u64, size: u32, answer: A)
    where
        A: FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Read, On::Node(number)).of(handle).at(offset, u64::from(size));
        self.run(
            call,
            &ask,
            |way| {
                let open = self.open_files.get(handle)?;
                let file = open.file(&self.nodes)?;
                let size = match way.decision.effect {
                    Effect::Short(bytes) => u64::from(size).min(bytes),
                    _ => u64::from(size),
                };
                let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
                let length = read_all(file, &mut buffer, offset)?;
                buffer.truncate(length);
                if let Effect::Corrupt(corruption) = &way.decision.effect {
                    corrupt::apply(corruption, offset, &mut buffer);
                }
                Ok(buffer)
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
        set_id: SetId,
        answer: A,
    ) where
        A: FnOnce(Result<Count, Errno>) + Send + 'static,
    {
        let ask = Ask::new(Op::Write, On::Node(number)).of(handle).at(offset, data.len() as u64);
        self.run(
            call,
            &ask,
            |way| {
                let open = self.open_files.get(handle)?;
                let file = open.file(&self.nodes)?;
                match set_id {
                    SetId::Keep => write_as(way, file, data, offset),
                    SetId::Clear => {
                        self.for_caller(call, &*self.nodes.get(number)?, || write_as(way, file, data, offset))
                    }
                }
            },
            answer,
        );
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
        let file = open.file(&self.nodes)?;
        match way.decision.effect {
            Effect::FailFsync(errno) => Err(Errno::from_raw_os_error(errno)),
            Effect::LieFsync => Ok(()),
            _ if only_data => rustix::fs::fdatasync(file),
            _ => rustix::fs::fsync(file),
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
            |_way| {
                let open = self.open_files.get(handle)?;
                let file = open.file(&self.nodes)?;
                rustix::fs::fallocate(file, FallocateFlags::from_bits_retain(mode), offset, len)
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
            |_way| {
                let open = self.open_files.get(handle)?;
                let file = open.file(&self.nodes)?;
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
                let watched = [Op::Read, Op::Write].into_iter().collect();
                if self.armed().any.intersects(watched)
                    && [from.0, to.0].iter().any(|number| self.concern(|| self.nodes.path(*number)).intersects(watched))
                {
                    return Err(Errno::OPNOTSUPP);
                }
                let source = self.open_files.get(from.1)?;
                let target = self.open_files.get(to.1)?;
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

fn read_all(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_later) => break,
        }
    }
    Ok(done)
}

fn write_as(way: &Way<'_>, file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<Count, Errno> {
    let cut = |bytes: u64| &data[..data.len().min(usize::try_from(bytes).unwrap_or(usize::MAX))];
    match &way.decision.effect {
        Effect::Short(bytes) => write_all(file, cut(*bytes), offset),
        Effect::Torn(bytes) => {
            write_all(file, cut(*bytes), offset)?;
            Ok(Count(data.len() as u64))
        }
        Effect::Corrupt(corruption) => {
            let mut changed = data.to_vec();
            corrupt::apply(corruption, offset, &mut changed);
            write_all(file, &changed, offset)
        }
        Effect::Done | Effect::Fail(_) | Effect::Abort | Effect::FailFsync(_) | Effect::LieFsync => {
            write_all(file, data, offset)
        }
    }
}

fn write_all(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<Count, Errno> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(file, &data[done..], offset + done as u64) {
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_later) => break,
        }
    }
    Ok(Count(done as u64))
}
