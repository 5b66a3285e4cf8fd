//! Control of a mount over its unix socket: the gRPC service, its client, and where the socket of a mount is.
//!
//! The socket is made by whoever starts the mount, mode 0600; here it is only listened on and connected to.

pub mod client;
pub(crate) mod convert;
pub mod document;
pub(crate) mod incoming;
pub mod service;
pub mod target;
pub mod words;

/// Most bytes of rules that a mount takes.
pub const MAX_RULES_BYTES: usize = 1 << 20;
/// What may stand around the rules in a message.
const MAX_REQUEST_BYTES: usize = MAX_RULES_BYTES + (64 << 10);
/// A page of the fault log is cut before it is larger than this.
const FAULTS_PAGE_BYTES: usize = 1 << 20;
/// The longest answer: a page of faults whose last entry has a long path, or a status with the longest rules.
const MAX_REPLY_BYTES: usize = 4 << 20;
/// Most bytes of a sentence in an error; it travels as a header, where each byte may take three.
const MAX_SENTENCE_BYTES: usize = 32 << 10;
const MAX_HEADER_BYTES: u32 = 256 << 10;

/// The messages and the service as generated from `proto/control.proto`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub(crate) mod generated {
    tonic::include_proto!("fsi.control.v1");
}

#[cfg(test)]
mod tests;
