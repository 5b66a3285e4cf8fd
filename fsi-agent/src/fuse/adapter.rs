//! Glue between fuser and the file system: arguments in, answers out, nothing decided here.
#![expect(clippy::disallowed_types, reason = "fuser speaks of times as SystemTime; no clock is read here")]

mod convert;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno as WireErrno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{StatVfs, Timestamps};
use rustix::io::Errno;

use self::convert::{attributes, flags_of, kind, nothing, open_flags, timestamp};
use super::fs::{Attributes, Call, Change, Count, Created, DirectoryEntry, Entry, Interposer, Opened, SetId};
use crate::sys::backing;

/// What we ask of every kernel; each is taken where it is offered.
const WANTED: InitFlags = InitFlags::FUSE_HANDLE_KILLPRIV_V2
    .union(InitFlags::FUSE_POSIX_ACL)
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_AUTO_INVAL_DATA)
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::FUSE_HAS_RESEND)
    .union(InitFlags::FUSE_ABORT_ERROR);

/// Largest read or write in one request.
const MAX_WRITE: u32 = 1 << 20;
/// Requests the kernel may have under way in the background (read-ahead, asynchronous I/O).
const MAX_BACKGROUND: u16 = 128;

/// The file system as fuser wants it.
#[derive(Debug)]
pub struct Adapter {
    fs: Arc<Interposer>,
}

impl Adapter {
    #[must_use]
    pub const fn new(fs: Arc<Interposer>) -> Self {
        Self { fs }
    }
}

fn call(request: &Request) -> Call {
    Call { unique: request.unique().0, tid: request.pid(), uid: request.uid(), gid: request.gid() }
}

fn wire(error: Errno) -> WireErrno {
    WireErrno::from_i32(error.raw_os_error())
}

/// Gives the one answer of a request.
macro_rules! answer {
    ($reply:ident, |$done:ident: $kind:ty| $good:expr) => {
        move |result: Result<$kind, Errno>| match result {
            Ok($done) => $good,
            Err(error) => $reply.error(wire(error)),
        }
    };
}

/// The answer of a request that makes the kernel know an object.
fn entered(reply: ReplyEntry) -> impl FnOnce(Result<Entry, Errno>) + Send + 'static {
    answer!(reply, |entry: Entry| {
        reply.entry(&entry.ttl, &attributes(&entry.stat), Generation(entry.generation));
    })
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED.iter() {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::debug!(?missing, "the kernel has no such capability");
            }
        }
        if self.fs.device().passthrough() {
            match config.add_capabilities(InitFlags::FUSE_PASSTHROUGH) {
                // The backing files may be on a stacked file system themselves (overlayfs).
                Ok(()) => {
                    config.set_max_stack_depth(2).map_err(|most| io::Error::other(format!("stack depth {most}")))?;
                }
                Err(_missing) => self.fs.device().no_passthrough(),
            }
        }
        let refused = |most| io::Error::other(format!("the bound is {most}"));
        config.set_max_write(MAX_WRITE).map_err(refused)?;
        config.set_max_background(MAX_BACKGROUND).map_err(|most| refused(u32::from(most)))?;
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.fs.lookup(call(request), parent.0, name.as_bytes(), entered(reply));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, lookups: u64) {
        self.fs.forget(ino.0, lookups);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.fs.getattr(call(request), ino.0, answer!(reply, |a: Attributes| reply.attr(&a.ttl, &attributes(&a.stat))));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = (atime.is_some() || mtime.is_some())
            .then(|| Timestamps { last_access: timestamp(atime), last_modification: timestamp(mtime) });
        let change = Change { mode, uid, gid, size, times, handle: handle.map(|handle| handle.0) };
        self.fs.setattr(
            call(request),
            ino.0,
            change,
            answer!(reply, |a: Attributes| reply.attr(&a.ttl, &attributes(&a.stat))),
        );
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.fs.readlink(call(request), ino.0, answer!(reply, |content: Vec<u8>| reply.data(&content)));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.fs.mknod(call(request), parent.0, name.as_bytes(), mode, umask, rdev, entered(reply));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.fs.mkdir(call(request), parent.0, name.as_bytes(), mode, umask, entered(reply));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.fs.unlink(call(request), parent.0, name.as_bytes(), answer!(reply, |_done: ()| reply.ok()));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.fs.rmdir(call(request), parent.0, name.as_bytes(), answer!(reply, |_done: ()| reply.ok()));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.fs.symlink(call(request), parent.0, name.as_bytes(), target.as_os_str().as_bytes(), entered(reply));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let answer = answer!(reply, |_done: ()| reply.ok());
        self.fs.rename(call(request), parent.0, name.as_bytes(), new_parent.0, new_name.as_bytes(), flags, answer);
    }

    fn link(&self, request: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        self.fs.link(call(request), ino.0, new_parent.0, new_name.as_bytes(), entered(reply));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = answer!(reply, |opened: Opened| {
            let flags = flags_of(&opened);
            match opened.backing {
                Some(id) => backing::opened(reply, opened.handle, flags, id),
                None => reply.opened(FileHandle(opened.handle), flags),
            }
        });
        self.fs.open(call(request), ino.0, open_flags(flags.0), answer);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let answer = answer!(reply, |created: Created| {
            let (entry, opened) = (created.entry, created.opened);
            let (attr, flags) = (attributes(&entry.stat), flags_of(&opened));
            match opened.backing {
                Some(id) => backing::created(reply, entry.ttl, &attr, entry.generation, opened.handle, flags, id),
                None => {
                    reply.created(&entry.ttl, &attr, Generation(entry.generation), FileHandle(opened.handle), flags)
                }
            }
        });
        self.fs.create(call(request), parent.0, name.as_bytes(), mode, umask, open_flags(flags), answer);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = answer!(reply, |data: Vec<u8>| reply.data(&data));
        self.fs.read(call(request), ino.0, handle.0, offset, size, open_flags(flags.0), answer);
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let clear = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let set_id = if clear { SetId::Clear } else { SetId::Keep };
        let answer = answer!(reply, |count: Count| reply.written(u32::try_from(count.0).unwrap_or(u32::MAX)));
        self.fs.write(call(request), ino.0, handle.0, offset, data, open_flags(flags.0), set_id, answer);
    }

    fn flush(&self, request: &Request, ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        self.fs.flush(call(request), ino.0, answer!(reply, |_done: ()| reply.ok()));
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(handle.0);
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fs.fsync(call(request), ino.0, handle.0, datasync, answer!(reply, |_done: ()| reply.ok()));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = answer!(reply, |opened: Opened| reply.opened(FileHandle(opened.handle), FopenFlags::empty()));
        self.fs.opendir(call(request), ino.0, open_flags(flags.0), answer);
    }

    fn readdir(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let answer = move |result: Result<Vec<DirectoryEntry>, Errno>| match result {
            Ok(entries) => {
                for entry in entries {
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(INodeNo(entry.ino), entry.next, kind(entry.kind), name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(wire(error)),
        };
        self.fs.readdir(call(request), ino.0, handle.0, offset, answer);
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let fs = Arc::clone(&self.fs);
        let answer = move |result: Result<Vec<DirectoryEntry>, Errno>| match result {
            Ok(entries) => {
                for (number, entry) in entries.iter().enumerate() {
                    match add_with_attributes(&fs, ino.0, entry, &mut reply) {
                        Ok(Room::Left) => {}
                        Err(error) if number == 0 => return reply.error(wire(error)),
                        // The kernel asks for the rest, or for the name that failed, again.
                        Ok(Room::None) | Err(_) => break,
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(wire(error)),
        };
        self.fs.readdir(call(request), ino.0, handle.0, offset, answer);
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.fs.release(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fs.fsyncdir(call(request), ino.0, handle.0, datasync, answer!(reply, |_done: ()| reply.ok()));
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let number = if ino.0 == 0 { super::node::ROOT } else { ino.0 };
        let answer = answer!(reply, |s: StatVfs| reply.statfs(
            s.f_blocks,
            s.f_bfree,
            s.f_bavail,
            s.f_files,
            s.f_ffree,
            u32::try_from(s.f_bsize).unwrap_or(4096),
            u32::try_from(s.f_namemax).unwrap_or(255),
            u32::try_from(s.f_frsize).unwrap_or(4096),
        ));
        self.fs.statfs(call(request), number, answer);
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _at: u32,
        reply: ReplyEmpty,
    ) {
        let answer = answer!(reply, |_done: ()| reply.ok());
        self.fs.setxattr(call(request), ino.0, name.as_bytes(), value, flags.cast_unsigned(), answer);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.fs.getxattr(
            call(request),
            ino.0,
            name.as_bytes(),
            answer!(reply, |value: Vec<u8>| sized(reply, size, &value)),
        );
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.fs.listxattr(call(request), ino.0, answer!(reply, |names: Vec<u8>| sized(reply, size, &names)));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.fs.removexattr(call(request), ino.0, name.as_bytes(), answer!(reply, |_done: ()| reply.ok()));
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let answer = answer!(reply, |_done: ()| reply.ok());
        self.fs.fallocate(call(request), ino.0, handle.0, offset, length, mode.cast_unsigned(), answer);
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let answer = answer!(reply, |bytes: Vec<u8>| reply.ioctl(0, &bytes));
        self.fs.ioctl(call(request), ino.0, command, data, answer);
    }

    fn lseek(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Ok(offset) = u64::try_from(offset) else { return reply.error(WireErrno::ENXIO) };
        let answer = answer!(reply, |at: Count| reply.offset(i64::try_from(at.0).unwrap_or(i64::MAX)));
        self.fs.lseek(call(request), ino.0, handle.0, offset, whence, answer);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((ino_in.0, handle_in.0), (ino_out.0, handle_out.0));
        let answer = answer!(reply, |count: Count| reply.written(u32::try_from(count.0).unwrap_or(u32::MAX)));
        // The answer has 32 bits.
        let len = len.min(u64::from(u32::MAX) & !0xfff);
        self.fs.copy_file_range(call(request), from, offset_in, to, offset_out, len, answer);
    }
}

/// Whether an answer takes more names.
enum Room {
    Left,
    None,
}

/// Adds a name with its attributes. The kernel then knows the object: fuser takes the number of the attributes for the node's, so
/// that a name cannot be given with a number and without a lookup.
fn add_with_attributes(
    fs: &Interposer,
    parent: u64,
    entry: &DirectoryEntry,
    reply: &mut ReplyDirectoryPlus,
) -> Result<Room, Errno> {
    let name = OsStr::from_bytes(&entry.name);
    let room = |full| if full { Room::None } else { Room::Left };
    let plain = |ino| FileAttr { ino: INodeNo(ino), kind: kind(entry.kind), ..nothing() };
    let mut add = |ttl: Duration, attr: &FileAttr, generation| {
        reply.add(attr.ino, entry.next, name, &ttl, attr, Generation(generation))
    };
    if entry.name == b"." || entry.name == b".." {
        // Of these two the kernel only passes the number on.
        return Ok(room(add(Duration::ZERO, &plain(entry.ino), 0)));
    }
    match fs.entry_of(parent, &entry.name) {
        Ok(found) => {
            let full = add(found.ttl, &attributes(&found.stat), found.generation);
            if full {
                fs.forget(found.number, 1);
            }
            Ok(room(full))
        }
        // Gone since the directory was read; an answer without any name would be its end.
        Err(Errno::NOENT) => Ok(room(add(Duration::ZERO, &plain(0), 0))),
        Err(error) => Err(error),
    }
}

/// Extended attributes are asked for twice: how long, then what.
fn sized(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        Ok(_) | Err(_) => reply.error(WireErrno::ERANGE),
    }
}
