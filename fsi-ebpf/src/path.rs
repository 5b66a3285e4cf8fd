//! From a place in the tree of mounts to a path that the agent knows.
//!
//! A path is walked from its end to the process's root, once: a cache per CPU remembers what the agent already has. An entry
//! holds while no rename, removed directory or (un)mount happened anywhere ([`crate::maps::GENERATION`]) and the dentry still has
//! its parent, name hash and inode; a dentry that a process holds open cannot be anything else meanwhile.
#![expect(unsafe_code, reason = "walk state and buffers live in map memory, reached by pointer")]

use core::ffi::c_void;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_loop};
use fsi_common::loss::Counter;
use fsi_common::record::{PATH_MAX, PathRecord, PathState, RecordHeader, RecordKind};

use crate::emit;
use crate::filter;
use crate::kernel::{self, Dentry, Mount, Place, Task, config};
use crate::maps::{GENERATION, PATH_SLOTS, PATHS, SCRATCH, count};
use crate::state::{HEADROOM, PathSlot, Scratch};

/// A path as the agent knows it.
#[derive(Clone, Copy)]
pub(crate) struct KnownPath {
    /// 0: the agent does not have it.
    pub(crate) id: u64,
    pub(crate) state: PathState,
    /// Verdict of the path globs.
    pub(crate) selected: bool,
}

/// More components than any path has that fits.
const STEPS: u32 = 4096;

/// One component, or one hop to the mount above. 0: go on; 1: done, `state` says how.
unsafe extern "C" fn step(_index: u32, _context: *mut c_void) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 1 };
    // SAFETY: scratch of this CPU; the path is another part of it than the walk.
    let walk = unsafe { &mut (*scratch).walk };
    if walk.dentry == walk.root_dentry && walk.mnt == walk.root_mnt {
        walk.state = PathState::Resolved as u64;
        return 1;
    }
    if walk.dentry == walk.mount_root {
        let Some(above) = Mount::mounted_at(walk.mnt) else {
            // The topmost mount, and not the process's root: outside of it, or unmounted while in use.
            walk.state = PathState::Unreachable as u64;
            return 1;
        };
        walk.dentry = above.dentry;
        walk.mnt = above.mnt;
        walk.mount_root = Mount::root(above.mnt);
        return 0;
    }
    let Some(dentry) = Dentry::read(walk.dentry) else {
        walk.state = PathState::Race as u64;
        return 1;
    };
    if dentry.parent == walk.dentry || dentry.parent == 0 {
        walk.state = PathState::Unreachable as u64;
        return 1;
    }
    let name_length = (dentry.hash_len >> 32) & 0xff;
    if walk.length + name_length + 1 > PATH_MAX as u64 {
        walk.state = PathState::TooLong as u64;
        return 1;
    }
    walk.length += name_length + 1;
    let start = (PATH_MAX as u64 - walk.length) & (PATH_MAX as u64 - 1);
    // SAFETY: start is below PATH_MAX and a name below 256 bytes, so both ends are inside `path`.
    let read = unsafe {
        let at = addr_of_mut!((*scratch).path).cast::<u8>().add(HEADROOM + start as usize);
        *at = b'/';
        kernel::read_bytes(at.add(1), name_length as u32, dentry.name)
    };
    if !read {
        walk.state = PathState::Race as u64;
        return 1;
    }
    walk.dentry = dentry.parent;
    0
}

/// Walks from a place to the current task's root; leaves the path at the end of `scratch.path`. The answer is the length, and the
/// state from bit 16 on.
///
/// A global function in the sense of the verifier: it is verified once, not again for every way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_walk(dentry: u64, mnt: u64) -> u64 {
    let root = Task::current().root();
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return PathState::Lost as u64 };
    // SAFETY: scratch of this CPU; the callback finds its walk there.
    unsafe {
        let walk = &mut (*scratch).walk;
        walk.dentry = dentry;
        walk.mnt = mnt;
        walk.mount_root = Mount::root(mnt);
        walk.root_dentry = root.dentry;
        walk.root_mnt = root.mnt;
        walk.length = 0;
        walk.state = PathState::TooLong as u64;
        bpf_loop(STEPS, step as *mut c_void, core::ptr::null_mut(), 0);
        ((*scratch).walk.length & 0x1fff) | (*scratch).walk.state << 16
    }
}

/// Where a path of that length starts in `scratch.path`.
#[inline(always)]
fn start_of(length: u64) -> usize {
    HEADROOM + ((PATH_MAX as u64 - length) & (PATH_MAX as u64 - 1)) as usize
}

#[inline(always)]
fn generation() -> u64 {
    GENERATION.get(0).copied().unwrap_or(0)
}

/// The slot of a place: addresses are aligned, so their low bits say nothing.
#[inline(always)]
fn slot_of(place: Place, root: Place) -> u32 {
    let mix = (place.dentry >> 6) ^ (place.mnt >> 5) ^ (root.dentry >> 7);
    ((mix ^ (mix >> 10) ^ (mix >> 20)) as u32) & (PATH_SLOTS - 1)
}

/// The path of a place as the task sees it; sends it to the agent if the agent does not have it yet. Leaves the path's id in
/// `scratch.known_path`; the answer holds its state and, from bit 8 on, the verdict of the globs.
///
/// A global function in the sense of the verifier: it is verified once, not again for every way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_resolve(dentry: u64, mnt: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return PathState::Lost as u64 };
    let root = Task::current().root();
    let index = slot_of(Place { dentry, mnt }, root);
    let Some(slot) = PATHS.get_ptr_mut(index) else { return PathState::Lost as u64 };
    // SAFETY: scratch and a slot of this CPU, and programs do not preempt each other on a CPU.
    let (slot, wanted, known) = unsafe { (&mut *slot, &mut (*scratch).wanted_path, &mut (*scratch).known_path) };
    *known = 0;
    let Some(name) = Dentry::read(dentry) else { return PathState::Race as u64 };
    wanted.dentry = dentry;
    wanted.mnt = mnt;
    wanted.root_dentry = root.dentry;
    wanted.root_mnt = root.mnt;
    wanted.parent = name.parent;
    wanted.hash_len = name.hash_len;
    wanted.ino = Dentry::ino(dentry);
    wanted.generation = generation();
    if is_same(slot, wanted) {
        *known = slot.id;
        return u64::from(slot.state) | u64::from(slot.verdict) << 8;
    }

    let walked = fsi_walk(dentry, mnt);
    let (length, state) = (walked & 0x1fff, walked >> 16);
    let verdict = if config!(path_filter) == 0 || filter::path_selected(length) { 1 } else { 2 };
    if state == PathState::Race as u64 {
        return state | verdict << 8;
    }
    // SAFETY: scratch of this CPU.
    let sequence = unsafe {
        (*scratch).path_sequence += 1;
        (*scratch).path_sequence
    };
    let id = sequence << 32 | u64::from(cpu()) << 10 | u64::from(index);
    if !send(scratch, id, length, state) {
        count(Counter::RingPath, 1);
        return PathState::Lost as u64 | verdict << 8;
    }
    slot.dentry = wanted.dentry;
    slot.mnt = wanted.mnt;
    slot.root_dentry = wanted.root_dentry;
    slot.root_mnt = wanted.root_mnt;
    slot.parent = wanted.parent;
    slot.hash_len = wanted.hash_len;
    slot.ino = wanted.ino;
    slot.generation = wanted.generation;
    slot.state = state as u32;
    slot.verdict = verdict as u32;
    slot.id = id;
    *known = id;
    state | verdict << 8
}

/// Whether a slot holds the path of that object. Without branches: each would be another way for the verifier to follow through
/// all that comes after.
#[inline(always)]
fn is_same(slot: &PathSlot, wanted: &PathSlot) -> bool {
    let difference = (slot.dentry ^ wanted.dentry)
        | (slot.mnt ^ wanted.mnt)
        | (slot.root_dentry ^ wanted.root_dentry)
        | (slot.root_mnt ^ wanted.root_mnt)
        | (slot.parent ^ wanted.parent)
        | (slot.hash_len ^ wanted.hash_len)
        | (slot.ino ^ wanted.ino)
        | (slot.generation ^ wanted.generation)
        | u64::from(slot.id == 0);
    difference == 0
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

/// Puts the record's header right in front of the path and sends both.
#[inline(always)]
fn send(scratch: *mut Scratch, id: u64, length: u64, state: u64) -> bool {
    // The root itself has no component: its path is one slash.
    let is_root = length == 0 && state == PathState::Resolved as u64;
    let length = if is_root { 1 } else { length };
    let start = start_of(length);
    let size = size_of::<PathRecord>() as u64 + (length & 0x1fff).min(PATH_MAX as u64);
    let header = PathRecord {
        header: RecordHeader { kind: RecordKind::Path as u16, detail: 0, len: size as u32 },
        id,
        state: state as u32,
        path_len: length as u32,
    };
    // SAFETY: start is at least HEADROOM, so the header fits before it; both are inside `path`.
    unsafe {
        let at = addr_of_mut!((*scratch).path).cast::<u8>().add(start);
        if is_root {
            *at = b'/';
        }
        let record = at.sub(size_of::<PathRecord>());
        core::ptr::copy_nonoverlapping(addr_of!(header).cast::<u64>(), record.cast::<u64>(), 3);
        emit::output(record, size)
    }
}

/// [`fsi_resolve`] with its results as types.
#[inline(always)]
pub(crate) fn known(place: Place) -> KnownPath {
    let answer = fsi_resolve(place.dentry, place.mnt);
    // SAFETY: scratch of this CPU.
    let id = SCRATCH.get_ptr(0).map_or(0, |scratch| unsafe { (*scratch).known_path });
    let state = match answer & 0xff {
        1 => PathState::Resolved,
        2 => PathState::Unreachable,
        3 => PathState::TooLong,
        6 => PathState::Race,
        _ => PathState::Lost,
    };
    KnownPath { id, state, selected: answer >> 8 != 2 }
}

/// Walks without sending, for the globs on a path operation; the path is left at the end of `scratch.path`.
#[inline(always)]
pub(crate) fn walk_only(place: Place) -> u64 {
    fsi_walk(place.dentry, place.mnt) & 0x1fff
}
