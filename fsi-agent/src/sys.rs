//! The only system calls that need unsafe, as typed calls.

pub mod task_storage;
