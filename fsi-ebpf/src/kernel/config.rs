//! What the agent sets before loading: knobs, offsets, the table of system calls. Read-only afterwards, so the verifier takes them as
//! constants and drops the branches that are not taken.
#![expect(unsafe_code, reason = "the agent changes these statics after compilation, so they are read as memory")]

use core::hint::black_box;
use core::ptr::{addr_of, read_volatile};

use fsi_common::probe_config::{Offsets, ProbeConfig};
use fsi_common::syscall::{CALLS, Call};

/// Set by the agent before loading.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;
/// Set by the agent before loading.
#[unsafe(no_mangle)]
static CONFIG: ProbeConfig = ProbeConfig::UNSET;
/// Set by the agent before loading: how to read each system call.
#[unsafe(no_mangle)]
static SYSCALLS: [u64; CALLS] = [0; CALLS];

/// A knob.
macro_rules! config {
    ($field:ident) => {
        $crate::kernel::config::knob(core::mem::offset_of!(fsi_common::probe_config::ProbeConfig, $field))
    };
}
pub(crate) use config;

/// The knob at that place of CONFIG; only for the macro `config`, which knows the place from the field.
#[inline(always)]
pub(crate) fn knob(at: usize) -> u32 {
    // SAFETY: the field is inside CONFIG; volatile because the agent changes the bytes after compilation.
    unsafe { read_volatile(addr_of!(CONFIG).cast::<u8>().add(at).cast()) }
}

/// Whether operations of that code are told of.
#[inline(always)]
pub(crate) fn is_chosen(op: u16) -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!(CONFIG.operations)) >> (op & 63) & 1 != 0 }
}

/// Durations from which an operation counts as slow.
#[inline(always)]
pub(crate) fn slower_ns() -> u64 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!(CONFIG.slower_ns)) }
}

/// Where the running kernel keeps a field.
macro_rules! offset {
    ($($field:tt)+) => {
        $crate::kernel::config::offset_at(core::mem::offset_of!(fsi_common::probe_config::Offsets, $($field)+))
    };
}
pub(super) use offset;

/// The offset at that place of OFFSETS; only for the macro `offset`, which knows the place from the field.
#[inline(always)]
pub(super) fn offset_at(at: usize) -> usize {
    // SAFETY: the field is inside OFFSETS; volatile because the agent changes the bytes after compilation.
    (unsafe { read_volatile(addr_of!(OFFSETS).cast::<u8>().add(at).cast::<u32>()) }) as usize
}

/// How to read a system call. [`Call::NONE`] for the many that are none of our business.
#[inline(always)]
pub(crate) fn call_of(number: u64) -> Call {
    if number >= CALLS as u64 {
        return Call::NONE;
    }
    // Older verifiers forget what was compared when a number waits on the stack; a mask that the compiler cannot see through they see.
    let index = black_box(number) as usize & (CALLS - 1);
    // SAFETY: inside the array; volatile because the agent changes the bytes after compilation.
    Call(unsafe { read_volatile(addr_of!(SYSCALLS).cast::<u64>().add(index)) })
}
