//! The only system calls that need unsafe, as typed calls; and those that change what the machine has mounted.

pub mod backing;
pub mod caller;
pub mod fd;
pub mod fsxattr;
pub mod handle;
pub mod memory;
pub mod mount;
pub mod task_storage;
