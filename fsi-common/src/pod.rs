//! The only unsafe of this crate: which types aya may copy to and from maps as bytes.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait; the types are repr(C) integers without padding")]

use crate::aggregate::{AggregateKey, AggregateValue};
use crate::glob::Automaton;
use crate::probe_config::{Offsets, Policy, ProbeConfig};
use crate::record::OpenFile;

// SAFETY: repr(C), two u64-aligned halves of integers, no padding (zerocopy::IntoBytes proves it); any bytes are valid.
unsafe impl aya::Pod for AggregateKey {}
// SAFETY: repr(C), u64 fields only; any bytes are valid.
unsafe impl aya::Pod for AggregateValue {}
// SAFETY: repr(C), arrays of u64 only; any bytes are valid.
unsafe impl aya::Pod for Automaton {}
// SAFETY: repr(C): two u32, then a u64 at 8: no padding; any bytes are valid.
unsafe impl aya::Pod for Policy {}
// SAFETY: repr(C): four u32, two u64 from 16 on, six u32: no padding; any bytes are valid.
unsafe impl aya::Pod for ProbeConfig {}
// SAFETY: repr(C), u32 fields only; any bytes are valid.
unsafe impl aya::Pod for Offsets {}
// SAFETY: repr(C), u64 fields and two u32 side by side, no padding (zerocopy::IntoBytes proves it); any bytes are valid.
unsafe impl aya::Pod for OpenFile {}
