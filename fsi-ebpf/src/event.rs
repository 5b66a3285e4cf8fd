//! An operation as an event: names, places, sizes. Nothing here runs for an operation that nobody asked for, unless globs on
//! paths must see its name.
#![expect(
    unsafe_code,
    reason = "records are filled in the scratch of this CPU; callbacks get their context by pointer"
)]

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use aya_ebpf::helpers::generated::bpf_loop;
use fsi_common::op::OpKind;
use fsi_common::record::{NO_OFFSET, OpRecord, PATH_MAX, PathState, RecordHeader, RecordKind};
use fsi_common::syscall::{Call, NO_ARGUMENT, Shape};

use crate::emit;
use crate::enter::{AT_FDCWD, argument};
use crate::exit;
use crate::filter;
use crate::kernel::{self, FileAddress, Place, Task};
use crate::maps::{SCRATCH, TASKS};
use crate::path;
use crate::state::{Done, TaskState};

/// O_WRONLY | O_CREAT | O_TRUNC: what creat means.
const CREAT_FLAGS: u64 = 0o1101;

/// The open flags of a call that opens.
#[inline(always)]
pub(crate) fn open_flags(state: &TaskState, call: Call) -> u64 {
    let index = call.open_flags_argument();
    if index == NO_ARGUMENT {
        return CREAT_FLAGS;
    }
    let value = argument(state, index);
    // openat2 gives a structure that begins with the flags.
    if call.is_open_how() { kernel::read_user(value).unwrap_or(0) } else { value }
}

/// Whether a call that may name its descriptor's file by an empty path does.
#[inline(always)]
pub(crate) fn path_is_empty(state: &TaskState, call: Call) -> bool {
    let address = argument(state, call.path1());
    address == 0 || kernel::read_user::<u8>(address) == Some(0)
}

/// What the path globs say to the operation under report, which has no followed file. 0: they refuse it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_names_selected() -> u64 {
    let (Some(done), Some(state)) = (exit::done(), TASKS.get(Task::current())) else { return 1 };
    if !names_path(done) {
        // Neither a followed file nor a path: the globs cannot select it.
        return 0;
    }
    let call = Call(done.call);
    read_names(state, done);
    let first = selected(state, call.dir1(), 0, done.name1);
    let second = call.path2() != NO_ARGUMENT && selected(state, call.dir2(), done.name1, done.name2);
    u64::from(first || second)
}

/// Whether the operation is told by a path rather than by an open file.
#[inline(always)]
fn names_path(done: &Done) -> bool {
    matches!(Call(done.call).shape(), Shape::Path | Shape::Open) && done.object.file == 0
}

#[inline(always)]
fn selected(state: &TaskState, dir: u8, name_at: u64, name_length: u64) -> bool {
    let walked = if first_byte(name_at) == b'/' { 0 } else { path::walk_only(directory(state, dir)) };
    filter::fsi_globs_select(walked, name_at, name_length) != 0
}

#[inline(always)]
fn first_byte(at: u64) -> u8 {
    let Some(scratch) = SCRATCH.get_ptr(0) else { return 0 };
    // SAFETY: the mask keeps the index inside `names`.
    unsafe { *core::ptr::addr_of!((*scratch).names).cast::<u8>().add((at & (PATH_MAX as u64 - 1)) as usize) }
}

/// Where a relative name starts: the directory behind the descriptor, or the working directory.
#[inline(always)]
fn directory(state: &TaskState, dir: u8) -> Place {
    let task = Task::current();
    if dir == NO_ARGUMENT || argument(state, dir) as i32 == AT_FDCWD {
        return task.working_directory();
    }
    let file = task.file(argument(state, dir));
    if file == 0 { Place { dentry: 0, mnt: 0 } } else { FileAddress(file).place() }
}

/// Reads a name from the process to that place of `scratch.names`; its length, or `u64::MAX`. At the exit of the call: then its
/// page is surely there.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_read_name(address: u64, at: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return u64::MAX };
    // SAFETY: the mask leaves room for PATH_MAX bytes behind.
    let length = unsafe {
        let to = addr_of_mut!((*scratch).names).cast::<u8>().add((at & (PATH_MAX as u64 - 1)) as usize);
        kernel::read_user_string(to, PATH_MAX as u32, address)
    };
    length.unwrap_or(u64::MAX)
}

/// Reads the names of a call, unless they are there already.
#[inline(always)]
fn read_names(state: &TaskState, done: &mut Done) {
    if done.has_names != 0 {
        return;
    }
    let call = Call(done.call);
    done.has_names = 1;
    if call.path1() != NO_ARGUMENT {
        (done.name1, done.state1) = read_name(argument(state, call.path1()), 0);
    }
    if call.path2() != NO_ARGUMENT {
        (done.name2, done.state2) = read_name(argument(state, call.path2()), done.name1);
    }
}

#[inline(always)]
fn read_name(address: u64, at: u64) -> (u64, u64) {
    let length = fsi_read_name(address, at);
    if length == u64::MAX {
        (0, PathState::Fault as u64)
    } else {
        (length & (PATH_MAX as u64 - 1), PathState::Resolved as u64)
    }
}

/// Puts the record of the operation under report together and sends it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_send() -> u64 {
    let task = Task::current();
    let (Some(done), Some(state)) = (exit::done(), TASKS.get(task)) else { return 0 };
    let call = Call(done.call);
    let (mut dir1, mut dir2) = (0, 0);
    if done.op == u32::from(OpKind::Chdir.code()) && done.errno == 0 {
        // The working directory is already the new one, and its path says more than the name that led there.
        let known = path::known(task.working_directory());
        dir1 = known.id;
        done.state1 = known.state as u64;
        done.name1 = 0;
    } else if names_path(done) {
        read_names(state, done);
        (dir1, done.state1) = base(state, call.dir1(), 0, done.state1);
        if done.op != u32::from(OpKind::Symlink.code()) {
            (dir2, done.state2) = base(state, call.dir2(), done.name1, done.state2);
        }
    } else if call.path2() != NO_ARGUMENT {
        // linkat of a descriptor: its file is known, and the new name stands alone.
        (done.name2, done.state2) = read_name(argument(state, call.path2()), 0);
        (dir2, done.state2) = base(state, call.dir2(), 0, done.state2);
    }
    if done.errno == ENAMETOOLONG {
        done.state1 = cut(done.state1, done.name1);
        done.state2 = cut(done.state2, done.name2);
    }
    let (tgid, tid) = kernel::current_ids();
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: scratch of this CPU; the record is another part of it than the operation.
    let record: &mut OpRecord = unsafe { &mut (*scratch).record };
    record.header = RecordHeader { kind: RecordKind::Operation as u16, detail: 0, len: 0 };
    record.start_ns = done.start_ns;
    record.duration_ns = done.duration_ns;
    record.cgroup = done.cgroup;
    record.file_id = done.file_id;
    record.file2_id = done.file2_id;
    record.ino = done.object.ino;
    record.offset = offset(state, done);
    record.asked = asked(state, call);
    record.ret = done.ret;
    record.dir1 = dir1;
    record.dir2 = dir2;
    record.tgid = tgid;
    record.tid = tid;
    record.uid = kernel::current_uid();
    record.dev = done.object.dev;
    record.comm = kernel::comm_bytes(task.comm());
    record.op = done.op as u16;
    record.errno = done.errno as u16;
    record.mode = done.object.mode as u16;
    record.path1 = done.state1 as u8;
    record.path2 = done.state2 as u8;
    record.open_flags = if matches!(call.shape(), Shape::Open) { open_flags(state, call) as u32 } else { 0 };
    record.syscall = done.number as u32;
    record.name1_len = done.name1 as u16;
    record.name2_len = done.name2 as u16;
    record.flags = done.flags as u16;
    record.is_wanted = done.is_wanted as u16;
    record.requests = done.requests;
    record.reserved = 0;
    u64::from(emit::operation(done.name1 + done.name2))
}

const ENAMETOOLONG: u32 = 36;

/// A name that fills its room is the beginning of a longer one, if the kernel found it too long.
#[inline(always)]
fn cut(state: u64, length: u64) -> u64 {
    if length == PATH_MAX as u64 - 1 { PathState::TooLong as u64 } else { state }
}

/// The path id of the directory that a name is relative to, and what the path is worth.
#[inline(always)]
fn base(state: &TaskState, dir: u8, name_at: u64, name: u64) -> (u64, u64) {
    if name != PathState::Resolved as u64 || first_byte(name_at) == b'/' {
        return (0, name);
    }
    let place = directory(state, dir);
    if place.dentry == 0 {
        // A bad descriptor: the name alone is all there is.
        return (0, PathState::Unreachable as u64);
    }
    let known = path::known(place);
    (known.id, known.state as u64)
}

#[inline(always)]
fn offset(state: &TaskState, done: &Done) -> i64 {
    let call = Call(done.call);
    if call.offset_argument() != NO_ARGUMENT {
        let given = argument(state, call.offset_argument()) as i64;
        if given != -1 || !call.is_at_position() {
            return given;
        }
    }
    if !call.is_at_position() || done.object.file == 0 {
        return NO_OFFSET;
    }
    // The position has moved already by what was read or written.
    FileAddress(done.object.file).position() - done.bytes as i64
}

/// A sum over iovecs.
#[repr(C)]
struct Vectors {
    address: u64,
    count: u64,
    total: u64,
}

unsafe extern "C" fn add_vector(index: u32, vectors: *mut Vectors) -> i64 {
    // SAFETY: bpf_loop hands through the pointer to the caller's Vectors.
    let vectors = unsafe { &mut *vectors };
    if u64::from(index) >= vectors.count {
        return 1;
    }
    vectors.total += kernel::read_user::<u64>(vectors.address + u64::from(index) * 16 + 8).unwrap_or(0);
    0
}

/// The kernel takes at most so many iovecs.
const UIO_MAXIOV: u32 = 1024;

/// Bytes asked for.
#[inline(always)]
fn asked(state: &TaskState, call: Call) -> u64 {
    let index = call.asked_argument();
    if index == NO_ARGUMENT {
        return 0;
    }
    let value = argument(state, index);
    if !call.is_iovec() {
        return value;
    }
    let mut vectors = Vectors { address: argument(state, index - 1), count: value, total: 0 };
    // SAFETY: the callback takes what is passed here, and the loop is over before `vectors` goes out of scope.
    unsafe { bpf_loop(UIO_MAXIOV, add_vector as *mut c_void, addr_of_mut!(vectors).cast(), 0) };
    vectors.total
}
