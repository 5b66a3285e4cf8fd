//! Verbs for the tests that need a kernel; the cases are in `tests/`.
//!
//! `cargo test -p fsi-tests -- --test-threads=1` as root, or `cargo xtask test`. One at a time, because they count what the
//! whole kernel does. A test whose means are missing prints `SKIPPED <name>: <reason>` and returns.
#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a verb that cannot do what it says fails the test")]

pub mod agent;
pub mod cgroup;
pub mod collector;
pub mod conformance;
pub mod counts;
pub mod csi;
pub mod eventually;
pub mod expected;
pub mod fidelity;
pub mod fsi;
pub mod http;
pub mod jaeger;
pub mod loaded;
pub mod mapped;
pub mod mount;
pub mod need;
pub mod observe;
pub mod posix;
pub mod postgres;
pub mod prom;
pub mod promql;
pub mod served;
pub mod spans;
pub mod stop;
pub mod strace;
pub mod vm;
pub mod waterfall;
