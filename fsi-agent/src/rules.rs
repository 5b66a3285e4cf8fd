//! What is done to whom: rules as written, checked, and decided on for each operation. Pure: no file system, no clock, no I/O.
//!
//! ```text
//! text --parse--> RuleSet --arm--> Engine --decide(Request)--> Decision
//! ```

pub mod corrupt;
pub mod decision;
mod delay;
pub mod engine;
pub mod errno;
pub mod explain;
pub(crate) mod hash;
pub mod model;
pub mod op;
pub mod parse;
pub mod replay;
