//! The contract between FSI's kernel side and its agent: what stands in a record, a map or a knob, and what it means.
//!
//! Nothing here does I/O or allocates. Everything that crosses is `#[repr(C)]`, made of integers and byte arrays without
//! padding, so that both sides agree on every byte; codes are integers on the wire and become enums by `TryFrom`.

#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

pub mod aggregate;
pub mod glob;
pub mod loss;
pub mod op;
#[cfg(feature = "user")]
mod pod;
pub mod probe_config;
pub mod record;
pub mod syscall;

/// Changes whenever a layout or a code changes meaning; the agent refuses an object of another version.
pub const ABI_VERSION: u32 = 4;
