//! Where the bytes of files are kept: below, or by a fake; what they may take of a volume; what of them a power cut takes back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::ask::Way;
use super::{Interposer, Node};
use crate::fuse::capacity::{Capacity, CapacityError, Grant};
use crate::fuse::durability::Changing;
use crate::fuse::fake;
use crate::fuse::node::errno_of;
use crate::fuse::open_files::{Open, reopen};
use crate::fuse::state::Word;
use crate::fuse::undo::Kept;
use crate::fuse::volume::Fake;

impl Interposer {
    /// Bytes of a file, as many as there are.
    pub(super) fn fetch(&self, way: &Way<'_>, open: &Open, offset: u64, size: u64) -> Result<Vec<u8>, Errno> {
        self.is_live(open)?;
        let file = open.file(&self.nodes)?;
        let Some(fake) = &way.armed.volume.fake else { return read_all(file, offset, size) };
        let size = fake.sizes().readable(file, offset, size).map_err(|error| errno_of(&error))?;
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
        if let Fake::Pattern(_) = fake {
            fake::fill(open.node, offset, &mut buffer);
        } else if let Some(memory) = fake.memory() {
            let read = memory.read(open.node, offset, &mut buffer, &below(file));
            read.map_err(|error| errno_of(&error))?;
        }
        Ok(buffer)
    }

    /// Writes; how many bytes were taken.
    pub(super) fn put(&self, way: &Way<'_>, open: &Open, offset: u64, data: &[u8]) -> Result<u64, Errno> {
        let file = open.file(&self.nodes)?;
        let changing = match self.is_volatile(way) {
            true => self.keep(way, open.node, open.reader(&self.nodes)?, offset, data.len() as u64)?,
            false => None,
        };
        // A power cut may have come while we waited for it.
        self.is_live(open)?;
        let done = match &way.armed.volume.fake {
            None => self.write_below(way, file, offset, data)?,
            Some(fake) => {
                let done = match fake.memory() {
                    None => data.len(),
                    Some(mut memory) => {
                        let reader = open.reader(&self.nodes)?;
                        let written = memory.write(open.node, offset, data, &below(reader));
                        written.map_err(|error| self.is_full(way, &error))?
                    }
                } as u64;
                fake.sizes().grow(file, offset + done).map_err(|error| errno_of(&error))?;
                done
            }
        };
        let is_durable = open.flags.intersects(OFlags::SYNC | OFlags::DSYNC);
        self.changed(way, open.node, changing, is_durable)?;
        Ok(done)
    }

    fn write_below(&self, way: &Way<'_>, file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<u64, Errno> {
        let Some(capacity) = &way.armed.volume.capacity else { return write_all(file, offset, data) };
        let grant = capacity.reserve(self.used(), file, offset, data.len() as u64);
        let grant = grant.map_err(|error| refused(way, &error))?;
        let granted = usize::try_from(grant.bytes).unwrap_or(usize::MAX).min(data.len());
        let written = write_all(file, offset, &data[..granted]);
        self.settle(capacity, grant, file);
        written
    }

    /// Gives a file another size. `file` is open for writing.
    pub(super) fn resize(&self, way: &Way<'_>, node: &Node, file: BorrowedFd<'_>, size: u64) -> Result<(), Errno> {
        let number = node.number;
        let changing = match self.is_volatile(way) {
            true => self.keep(way, number, reopen(&self.nodes, node, OFlags::RDONLY)?.as_fd(), size, u64::MAX)?,
            false => None,
        };
        let volume = &way.armed.volume;
        match (&volume.fake, &volume.capacity) {
            (Some(fake), _) => {
                if let Some(mut memory) = fake.memory() {
                    memory.clear(number, size, u64::MAX).map_err(|error| errno_of(&error))?;
                }
                fake.sizes().set(file, size).map_err(|error| errno_of(&error))?;
            }
            (None, Some(capacity)) => {
                let grant = capacity.change(file).map_err(|error| errno_of(&error))?;
                let cut = rustix::fs::ftruncate(file, size);
                self.settle(capacity, grant, file);
                cut?;
            }
            (None, None) => rustix::fs::ftruncate(file, size)?,
        }
        self.changed(way, number, changing, false)
    }

    /// Allocates, zeroes or punches out a range.
    pub(super) fn allocate(
        &self,
        way: &Way<'_>,
        open: &Open,
        mode: FallocateFlags,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        let file = open.file(&self.nodes)?;
        let changing = match self.is_volatile(way) {
            true => self.keep(way, open.node, open.reader(&self.nodes)?, offset, len)?,
            false => None,
        };
        self.is_live(open)?;
        let volume = &way.armed.volume;
        match (&volume.fake, &volume.capacity) {
            (Some(fake), _) => allocate_fake(fake, open.node, file, mode, offset, len)?,
            (None, Some(capacity)) => {
                let used = self.used();
                let grant = match mode.contains(FallocateFlags::PUNCH_HOLE) {
                    true => capacity.change(file).map_err(|error| errno_of(&error))?,
                    false => capacity.reserve(used, file, offset, len).map_err(|error| refused(way, &error))?,
                };
                // All of it or nothing.
                let fits = grant.bytes >= len || mode.contains(FallocateFlags::PUNCH_HOLE);
                let allocated = match fits {
                    true => rustix::fs::fallocate(file, mode, offset, len),
                    false => Err(refused(way, &CapacityError::Full { errno: capacity.errno() })),
                };
                self.settle(capacity, grant, file);
                allocated?;
            }
            (None, None) => rustix::fs::fallocate(file, mode, offset, len)?,
        }
        self.changed(way, open.node, changing, false)
    }

    /// Whether the change could be taken back.
    const fn is_volatile(&self, way: &Way<'_>) -> bool {
        way.decision.volatile && way.armed.volume.durability.is_some()
    }

    /// Writes down what is there before a change.
    fn keep<'w>(
        &self,
        way: &'w Way<'_>,
        number: u64,
        reader: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Option<Changing<'w>>, Errno> {
        let Some(durability) = &way.armed.volume.durability else { return Ok(None) };
        let sync = |number| {
            let node = self.nodes.get(number)?;
            Ok(rustix::fs::fsync(reopen(&self.nodes, &node, OFlags::RDONLY)?)?)
        };
        durability.keep(number, reader, offset, len, sync).map(Some).map_err(|error| errno_of(&error))
    }

    /// The change is made; what cannot be taken back or is durable by itself is durable now.
    fn changed(
        &self,
        way: &Way<'_>,
        number: u64,
        changing: Option<Changing<'_>>,
        is_durable: bool,
    ) -> Result<(), Errno> {
        let Some(durability) = &way.armed.volume.durability else { return Ok(()) };
        let is_too_large = changing.is_some_and(|changing| changing.kept == Kept::TooLarge);
        if !is_too_large && !is_durable {
            return Ok(());
        }
        durability.sync(number, || match is_too_large {
            true => {
                let node = self.nodes.get(number)?;
                rustix::fs::fsync(reopen(&self.nodes, &node, OFlags::RDONLY)?)
            }
            false => Ok(()),
        })
    }

    /// Puts a file back to what it was, and counts what it takes then.
    pub(super) fn taken_back(
        &self,
        way: &Way<'_>,
        file: &OwnedFd,
        revert: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<(), Errno> {
        let capacity = way.armed.volume.capacity.as_ref();
        let grant = capacity.map(|capacity| capacity.change(file.as_fd())).transpose();
        let grant = grant.map_err(|error| errno_of(&error))?;
        let reverted = revert();
        if let Some((capacity, grant)) = capacity.zip(grant) {
            self.settle(capacity, grant, file.as_fd());
        }
        reverted.map_err(|error| errno_of(&error))
    }

    /// A file that was open when the power was cut is of no use any more.
    pub(super) fn is_live(&self, open: &Open) -> Result<(), Errno> {
        if open.era == self.state.word(Word::Era).load(Ordering::Acquire) { Ok(()) } else { Err(Errno::IO) }
    }

    /// Bytes that the files of the volume take.
    pub(super) fn used(&self) -> &AtomicU64 {
        self.state.word(Word::Used)
    }

    pub(super) fn settle(&self, capacity: &Capacity, grant: Grant, file: BorrowedFd<'_>) {
        if let Err(error) = capacity.settle(self.used(), grant, file) {
            tracing::warn!(%error, "a file's growth is not counted");
        }
    }

    /// Memory ran out: its bound is what the rules call capacity.
    fn is_full(&self, way: &Way<'_>, error: &std::io::Error) -> Errno {
        let errno = errno_of(error);
        if errno == Errno::NOSPC {
            way.refused.set(Some(errno.raw_os_error()));
        }
        errno
    }
}

fn refused(way: &Way<'_>, error: &CapacityError) -> Errno {
    match error {
        CapacityError::Full { errno } => {
            way.refused.set(Some(*errno));
            Errno::from_raw_os_error(*errno)
        }
        CapacityError::Io(error) => errno_of(error),
    }
}

fn allocate_fake(
    fake: &Fake,
    number: u64,
    file: BorrowedFd<'_>,
    mode: FallocateFlags,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    let clears = mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE);
    let end = offset.checked_add(len).filter(|_| len > 0).ok_or(Errno::INVAL)?;
    if clears && let Some(mut memory) = fake.memory() {
        // What lies below would show through.
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, punch, offset, len)?;
        memory.clear(number, offset, end).map_err(|error| errno_of(&error))?;
    }
    if mode.contains(FallocateFlags::KEEP_SIZE) {
        return Ok(());
    }
    fake.sizes().grow(file, end).map_err(|error| errno_of(&error))
}

/// The bytes of a backing file, zeros past its end.
fn below(file: BorrowedFd<'_>) -> impl Fn(u64, &mut [u8]) -> std::io::Result<()> {
    move |offset, buffer| {
        let done = read_into(file, offset, buffer)?;
        buffer[done..].fill(0);
        Ok(())
    }
}

fn read_all(file: BorrowedFd<'_>, offset: u64, size: u64) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
    let length = read_into(file, offset, &mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn read_into(file: impl AsFd, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_later) => break,
        }
    }
    Ok(done)
}

fn write_all(file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<u64, Errno> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(file, &data[done..], offset + done as u64) {
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_later) => break,
        }
    }
    Ok(done as u64)
}

/// Opens a file for both, whatever it is called by now; for putting back what a power cut takes.
pub(super) fn both(fs: &Interposer, number: u64) -> Result<OwnedFd, Errno> {
    let node = fs.nodes.get(number)?;
    reopen(&fs.nodes, &node, OFlags::RDWR)
}
