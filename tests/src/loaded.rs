//! The eBPF programs that the kernel holds.

use std::collections::BTreeSet;

/// Ids of FSI's programs, whoever loaded them.
#[must_use]
pub fn ours() -> BTreeSet<u32> {
    let programs = aya::programs::loaded_programs().filter_map(Result::ok);
    programs
        .filter(|program| program.name_as_str().is_some_and(|name| name.starts_with("fsi_")))
        .map(|program| program.id())
        .collect()
}
