//! The interposer: a file system that passes everything through, and does to chosen operations what the rules say.

pub mod adapter;
pub mod agent_link;
pub mod capacity;
pub mod config;
pub mod control;
pub mod device;
mod durability;
pub mod exports;
mod extent;
pub mod fake;
pub mod fault_log;
pub mod fs;
mod gate;
mod hold;
pub mod keeper_link;
mod node;
mod open_files;
mod pods;
pub mod report;
pub mod serve;
pub mod session;
mod sharded;
pub mod state;
mod under_way;
pub mod undo;
mod volume;
