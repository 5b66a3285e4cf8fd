//! The `fsi` command.

fn main() {}
