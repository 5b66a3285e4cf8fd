//! FSI's CSI driver as a library: volumes that are folders of a pool, shown to pods as they are or through an interposer.
//!
//! ```text
//! call --> controller, node --> locks, bounded --> mounting --> mounts, server     what is mounted
//!                                                         `--> pool, records      what is on disk
//! ```

pub mod access;
pub mod authority;
pub mod bounded;
mod calls;
pub mod controller;
pub mod driver;
mod durable;
pub mod error;
pub mod events;
pub mod holder;
pub mod identity;
pub mod kubernetes;
pub mod leftovers;
pub mod locks;
pub mod metrics;
pub mod mounting;
pub mod mounts;
pub mod node;
pub mod parameters;
pub mod pool;
pub mod proto;
pub mod pulse;
pub mod records;
pub mod registration;
pub mod server;
pub mod socket;
pub mod volume_id;
pub mod watch;

/// The name by which StorageClasses and pods ask for it.
pub const DRIVER: &str = "interposer.fsi.dev";
/// The label of nodes that says where a volume is.
pub const TOPOLOGY_KEY: &str = "interposer.fsi.dev/node";
