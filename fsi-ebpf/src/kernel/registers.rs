//! The registers of a system call.

use fsi_common::probe_config::Offsets;

use super::config::{offset, offset_at};
use super::load;

/// The registers of a system call.
#[derive(Clone, Copy)]
pub(crate) struct Registers(pub *const u8);

impl Registers {
    /// Number of the system call, also at its exit.
    #[inline(always)]
    pub(crate) fn number(self) -> u64 {
        load(self.0, offset!(regs_number))
    }

    /// Copies the six arguments.
    #[inline(always)]
    pub(crate) fn arguments(self, to: &mut [u64; 8]) {
        to[0] = load(self.0, argument_offset(0));
        to[1] = load(self.0, argument_offset(1));
        to[2] = load(self.0, argument_offset(2));
        to[3] = load(self.0, argument_offset(3));
        to[4] = load(self.0, argument_offset(4));
        to[5] = load(self.0, argument_offset(5));
    }

    /// The third argument alone.
    #[inline(always)]
    pub(crate) fn third(self) -> u64 {
        load(self.0, argument_offset(2))
    }
}

/// Where an argument stands.
#[inline(always)]
fn argument_offset(index: usize) -> usize {
    offset_at(core::mem::offset_of!(Offsets, regs_args) + index * size_of::<u32>())
}
