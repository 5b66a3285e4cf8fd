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
use crate::enter::argument;
use crate::exit::Done;
use crate::files;
use crate::filter;
use crate::kernel::{self, FileAddress, Place, Task, config};
use crate::maps::{FILES, SCRATCH};
use crate::path;
use crate::state::{OpenFile, TaskState};

/// O_WRONLY | O_CREAT | O_TRUNC: what creat means.
const CREAT_FLAGS: u64 = 0o1101;

/// The names of an operation, once read: they stand in `scratch.names`, the second right behind the first.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    is_read: bool,
    length1: u64,
    length2: u64,
    state1: PathState,
    state2: PathState,
}

impl Names {
    const UNREAD: Self =
        Self { is_read: false, length1: 0, length2: 0, state1: PathState::None, state2: PathState::None };
}

/// The open flags of a call; 0 for calls that do not open.
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

/// The names as far as the path globs need them; nothing where the globs refuse the operation.
#[inline(always)]
pub(crate) fn names(state: &TaskState, done: &Done, file: Option<*mut OpenFile>) -> Option<Names> {
    if config!(path_filter) == 0 {
        return Some(Names::UNREAD);
    }
    if let Some(file) = file {
        return files::selected(file, &done.object).then_some(Names::UNREAD);
    }
    if !names_path(done) {
        // Neither a followed file nor a path: the globs cannot select it.
        return None;
    }
    let names = read_names(state, done.call);
    let first = selected(state, done.call.dir1(), 0, names.length1);
    let second = done.call.path2() != NO_ARGUMENT && selected(state, done.call.dir2(), names.length1, names.length2);
    (first || second).then_some(names)
}

/// Whether the operation is told by a path rather than by an open file.
#[inline(always)]
fn names_path(done: &Done) -> bool {
    matches!(done.call.shape(), Shape::Path | Shape::Open) && done.object.file == 0
}

#[inline(always)]
fn selected(state: &TaskState, dir: u8, name_at: u64, name_length: u64) -> bool {
    let walked = if first_byte(name_at) == b'/' { 0 } else { path::walk_only(directory(state, dir)) };
    filter::names_selected(walked, name_at, name_length)
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
    const AT_FDCWD: i32 = -100;
    let task = Task::current();
    if dir == NO_ARGUMENT || argument(state, dir) as i32 == AT_FDCWD {
        return task.working_directory();
    }
    let file = task.file(argument(state, dir));
    if file == 0 { Place { dentry: 0, mnt: 0 } } else { FileAddress(file).place() }
}

/// Reads both names from the process. At the exit: then their pages are surely there.
#[inline(never)]
fn read_into_scratch(address: u64, at: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return u64::MAX };
    // SAFETY: the mask leaves room for PATH_MAX bytes behind.
    let length = unsafe {
        let to = addr_of_mut!((*scratch).names).cast::<u8>().add((at & (PATH_MAX as u64 - 1)) as usize);
        kernel::read_user_string(to, PATH_MAX as u32, address)
    };
    length.unwrap_or(u64::MAX)
}

#[inline(always)]
fn read_names(state: &TaskState, call: Call) -> Names {
    let mut names = Names { is_read: true, ..Names::UNREAD };
    if call.path1() != NO_ARGUMENT {
        (names.length1, names.state1) = read_name(argument(state, call.path1()), 0);
    }
    if call.path2() != NO_ARGUMENT {
        (names.length2, names.state2) = read_name(argument(state, call.path2()), names.length1);
    }
    names
}

#[inline(always)]
fn read_name(address: u64, at: u64) -> (u64, PathState) {
    let length = read_into_scratch(address, at);
    if length == u64::MAX { (0, PathState::Fault) } else { (length & (PATH_MAX as u64 - 1), PathState::Resolved) }
}

/// Puts the record together and sends it.
#[inline(always)]
pub(crate) fn send(state: &TaskState, done: &Done, file: Option<*mut OpenFile>, names: Names) {
    let call = done.call;
    let mut file_id = 0;
    if let Some(file) = file {
        files::announce(file, &done.object);
        // SAFETY: a map value.
        file_id = unsafe { (*file).id };
    }
    let file2_id = second_file(state);
    let mut names = names;
    let (mut dir1, mut dir2) = (0, 0);
    if done.op == OpKind::Chdir.code() && done.errno == 0 {
        // The working directory is already the new one, and its path says more than the name that led there.
        let known = path::known(Task::current().working_directory());
        dir1 = known.id;
        names = Names { is_read: true, state1: known.state, ..Names::UNREAD };
    } else if names_path(done) {
        if !names.is_read {
            names = read_names(state, call);
        }
        (dir1, names.state1) = base(state, call.dir1(), 0, names.state1);
        if done.op != OpKind::Symlink.code() {
            (dir2, names.state2) = base(state, call.dir2(), names.length1, names.state2);
        }
    }

    let task = Task::current();
    let (tgid, tid) = kernel::current_ids();
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: scratch of this CPU.
    let record: &mut OpRecord = unsafe { &mut (*scratch).record };
    *record = OpRecord {
        header: RecordHeader { kind: RecordKind::Operation as u16, detail: 0, len: 0 },
        start_ns: state.start_ns,
        duration_ns: done.duration_ns,
        cgroup: done.cgroup,
        file_id,
        file2_id,
        ino: done.object.ino,
        offset: offset(state, done),
        asked: asked(state, call),
        ret: done.ret,
        dir1,
        dir2,
        tgid,
        tid,
        uid: kernel::current_uid(),
        dev: done.object.dev,
        comm: kernel::comm_bytes(task.comm()),
        op: done.op,
        errno: done.errno,
        mode: done.object.mode as u16,
        path1: names.state1 as u8,
        path2: names.state2 as u8,
        open_flags: if matches!(call.shape(), Shape::Open) { open_flags(state, call) as u32 } else { 0 },
        syscall: done.number as u32,
        name1_len: names.length1 as u16,
        name2_len: names.length2 as u16,
        flags: done.flags,
        reserved: 0,
    };
    emit::operation(names.length1 + names.length2);
}

/// Id of the second file, announced.
#[inline(always)]
fn second_file(state: &TaskState) -> u64 {
    if state.file2 == 0 || config!(follow_files) == 0 {
        return 0;
    }
    let Some(object) = FileAddress(state.file2).object() else { return 0 };
    let Some(file) = files::follow(&object, 0) else { return 0 };
    files::announce(file, &object);
    // SAFETY: a map value.
    FILES.get_ptr(state.file2).map_or(0, |file| unsafe { (*file).id })
}

/// The path id of the directory that a name is relative to, and what the path is worth.
#[inline(always)]
fn base(state: &TaskState, dir: u8, name_at: u64, name: PathState) -> (u64, PathState) {
    if !matches!(name, PathState::Resolved) || first_byte(name_at) == b'/' {
        return (0, name);
    }
    let place = directory(state, dir);
    if place.dentry == 0 {
        // A bad descriptor: the name alone is all there is.
        return (0, PathState::Unreachable);
    }
    let known = path::known(place);
    (known.id, known.state)
}

#[inline(always)]
fn offset(state: &TaskState, done: &Done) -> i64 {
    let call = done.call;
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
