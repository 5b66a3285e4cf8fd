//! What a person may say about whom and what to observe, turned into plain data or one sentence that says what is wrong.

pub mod container;
pub mod glob;
pub mod quantity;
