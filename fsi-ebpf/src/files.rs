//! Open files from open to last close: who they are, what was done through them, when they end.
//!
//! A file is known by the address of its `struct file`. dup and fork share it, so nothing has to be followed there. It ends
//! when its last reference goes: seen at the exit of close and dup2, at the exit of a process, or found later by the sweep.
#![expect(unsafe_code, reason = "totals are added in map memory that several CPUs share")]

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::{addr_of_mut, null_mut};

use aya_ebpf::helpers::generated::{bpf_for_each_map_elem, bpf_get_smp_processor_id, bpf_loop};
use fsi_common::aggregate::{READ, WRITTEN};
use fsi_common::loss::Counter;
use fsi_common::record::{CloseKind, CloseRecord, FileRecord, FileTotals, RecordHeader, RecordKind};

use crate::emit;
use crate::kernel::{self, FileAddress, Task, config};
use crate::maps::{FILES, SCRATCH, count};
use crate::path;
use crate::state::{Object, OpenFile};

/// Adds in memory that other CPUs add to as well.
#[inline(always)]
fn add(cell: *mut u64, by: u64) {
    // SAFETY: the cell is a u64 in a map value.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(cell, by) };
}

/// The followed file behind an object; begun now if it was open before we looked.
#[inline(always)]
pub(crate) fn follow(object: &Object, opened_ns: u64) -> Option<*mut OpenFile> {
    let dentry = FileAddress(object.file).dentry();
    if let Some(file) = FILES.get_ptr_mut(object.file) {
        // SAFETY: a map value; if it is removed meanwhile the memory stays until the program ends.
        let known = unsafe { (*file).inode == object.inode && (*file).dentry == dentry && opened_ns == 0 };
        if known {
            return Some(file);
        }
        // The kernel used the memory for another file: the old one ended unseen.
        end(object.file, CloseKind::Unseen);
    }
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: scratch of this CPU; OpenFile is plain integers.
    unsafe {
        (*scratch).file_sequence += 1;
        let id = (*scratch).file_sequence << 12 | u64::from(bpf_get_smp_processor_id()) | 1 << 63;
        (*scratch).open_file = OpenFile {
            id,
            inode: object.inode,
            dentry,
            announced: 0,
            verdict: 0,
            opened_ns,
            totals: FileTotals::ZERO,
        };
        if FILES.insert(object.file, &(*scratch).open_file, 0).is_err() {
            count(Counter::FilesFull, 1);
            return None;
        }
    }
    FILES.get_ptr_mut(object.file)
}

/// The verdict of the path globs on a file, worked out once.
#[inline(always)]
pub(crate) fn selected(file: *mut OpenFile, object: &Object) -> bool {
    if config!(path_filter) == 0 {
        return true;
    }
    // SAFETY: a map value; two CPUs that work it out come to the same verdict.
    unsafe {
        if (*file).verdict == 0 {
            let known = path::known(FileAddress(object.file).place());
            (*file).verdict = if known.selected { 1 } else { 2 };
        }
        (*file).verdict == 1
    }
}

/// Tells the agent of a file it does not know yet. Whether it knows it now.
#[inline(always)]
pub(crate) fn announce(file: *mut OpenFile, object: &Object) -> bool {
    // SAFETY: a map value; should two CPUs announce at once, the agent takes the second as the same.
    let file = unsafe { &mut *file };
    if file.announced != 0 {
        return true;
    }
    let address = FileAddress(object.file);
    let known = path::known(address.place());
    let task = Task::current();
    let (tgid, tid) = kernel::current_ids();
    let comm = task.comm();
    let record = FileRecord {
        header: RecordHeader { kind: RecordKind::File as u16, detail: 0, len: size_of::<FileRecord>() as u32 },
        file_id: file.id,
        path_id: known.id,
        opened_ns: file.opened_ns,
        ino: object.ino,
        cgroup: task.cgroup(),
        tgid,
        tid,
        dev: object.dev,
        open_flags: address.flags(),
        mode: object.mode as u16,
        path: known.state as u16,
        reserved: 0,
        comm: kernel::comm_bytes(comm),
    };
    if emit::file(&record) {
        file.announced = 1;
        return true;
    }
    false
}

/// One more operation on a file.
#[inline(always)]
pub(crate) fn add_to_totals(
    file: *mut OpenFile,
    direction: u16,
    bytes: u64,
    failed: bool,
    start_ns: u64,
    duration_ns: u64,
) {
    // SAFETY: a map value; sums are atomic, the two marks below may lose a race between two calls that end together.
    let totals = unsafe { &mut (*file).totals };
    add(&raw mut totals.operations, 1);
    add(&raw mut totals.duration_ns, duration_ns);
    if failed {
        add(&raw mut totals.errors, 1);
    }
    if direction & READ != 0 {
        add(&raw mut totals.reads, 1);
        add(&raw mut totals.bytes_read, bytes);
    }
    if direction & WRITTEN != 0 {
        add(&raw mut totals.writes, 1);
        add(&raw mut totals.bytes_written, bytes);
    }
    if totals.max_ns < duration_ns {
        totals.max_ns = duration_ns;
    }
    totals.last_ns = start_ns + duration_ns;
}

/// Ends a followed file: only the one whose removal succeeds tells the agent.
#[inline(always)]
pub(crate) fn end(address: u64, kind: CloseKind) {
    let Some(file) = FILES.get_ptr(address) else { return };
    // SAFETY: a map value; copied before the removal.
    let file = unsafe { &*file };
    let announced = file.announced != 0;
    let record = CloseRecord {
        header: RecordHeader {
            kind: RecordKind::Close as u16,
            detail: kind as u16,
            len: size_of::<CloseRecord>() as u32,
        },
        file_id: file.id,
        closed_ns: kernel::now_ns(),
        totals: file.totals,
    };
    if FILES.remove(address).is_ok() && announced {
        emit::close(&record);
    }
}

/// Ends a file whose last reference is gone.
#[inline(always)]
pub(crate) fn end_if_dead(address: u64, kind: CloseKind) {
    if address != 0 && FileAddress(address).is_dead() {
        end(address, kind);
    }
}

/// A walk over a descriptor table.
#[repr(C)]
struct Table {
    array: u64,
    length: u64,
}

unsafe extern "C" fn at_exit(descriptor: u32, table: *mut Table) -> i64 {
    // SAFETY: bpf_loop hands through the pointer to the caller's Table.
    let table = unsafe { &*table };
    if u64::from(descriptor) >= table.length {
        return 1;
    }
    let address = kernel::read::<u64>(table.array, descriptor as usize * 8).unwrap_or(0);
    if address != 0 && FileAddress(address).has_one_reference() {
        end(address, CloseKind::Exit);
    }
    0
}

/// Most descriptors that are looked at when a process ends; what is over is found by the sweep.
const DESCRIPTORS_AT_EXIT: u32 = 1 << 16;

/// Ends the files that only this task holds, which is about to give up its descriptor table.
#[inline(always)]
pub(crate) fn end_all_of(task: Task) {
    if task.descriptor_table_users() != 1 {
        return;
    }
    let Some((array, length)) = task.descriptors() else { return };
    let mut table = Table { array, length: u64::from(length) };
    // SAFETY: the callback takes what is passed here, and the loop is over before `table` goes out of scope.
    unsafe { bpf_loop(DESCRIPTORS_AT_EXIT, at_exit as *mut c_void, addr_of_mut!(table).cast(), 0) };
}

unsafe extern "C" fn sweep_one(
    _map: *mut c_void,
    address: *mut u64,
    file: *mut OpenFile,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: the helper hands the key and value of an element.
    let (address, inode, dentry) = unsafe { (*address, (*file).inode, (*file).dentry) };
    let now = FileAddress(address);
    if now.is_dead() || now.inode() != inode || now.dentry() != dentry {
        end(address, CloseKind::Unseen);
    }
    0
}

/// Ends the files that died unseen.
#[inline(always)]
pub(crate) fn sweep() {
    let map = core::ptr::addr_of!(FILES).cast_mut().cast();
    // SAFETY: the callback has the form that the helper calls.
    unsafe { bpf_for_each_map_elem(map, sweep_one as *mut c_void, null_mut(), 0) };
}
