//! The half of xtask that builds the eBPF object, as a library: fsi-agent's build script uses it, so that a plain
//! `cargo build` embeds a current object. It has no command line and one dependency, because every build of the agent
//! compiles it first. `other_layout` is here for `tests` and `e2e` alike.

#![forbid(unsafe_code)]

pub mod build_ebpf;
pub mod cargo_env;
pub mod digest;
pub mod other_layout;
pub mod tools;
pub mod workspace;
