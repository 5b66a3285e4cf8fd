//! A cargo inside a cargo must not take the outer one's settings for its own: its compiler, flags, wrapper and job
//! server belong to the host build.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

/// What stays of the `CARGO_*` variables: where cargo keeps its downloads and how it reaches the network.
const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];

/// Not RUSTUP_TOOLCHAIN: without it, rustup's rustc obeys the rust-toolchain.toml of whichever dependency it compiles,
/// and goes to update the person's toolchain for a component that one names. `rustup run` sets its own.
const DROPPED: [&str; 10] = [
    "CARGO",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "TARGET",
    "MAKEFLAGS",
];

/// Removes from `command` what an outer cargo or clippy put into the environment.
pub fn forget_outer_cargo(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_outer_cargo(name)) {
        command.env_remove(name);
    }
}

/// Removes from `command` what cargo tells of the package that it runs, and nothing that a person may have set. Some build scripts of
/// dependencies look at it, so that builds from a shell and from a program of cargo's would each begin anew.
pub fn forget_outer_package(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| tells_of_package(name)) {
        command.env_remove(name);
    }
}

fn tells_of_package(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

fn belongs_to_outer_cargo(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    if KEPT.iter().any(|kept| name.starts_with(kept)) {
        return false;
    }
    name.starts_with("CARGO_") || DROPPED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_outer_package_alone() {
        for dropped in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_LINKS"] {
            assert!(tells_of_package(OsStr::new(dropped)), "{dropped}");
        }
        for kept in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "CARGO_HOME", "RUSTFLAGS"] {
            assert!(!tells_of_package(OsStr::new(kept)), "{kept}");
        }
    }

    #[test]
    fn drops_the_outer_build_and_keeps_the_network() {
        for dropped in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_MAKEFLAGS", "CARGO_TARGET_DIR", "RUSTC"] {
            assert!(belongs_to_outer_cargo(OsStr::new(dropped)), "{dropped}");
        }
        for kept in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "PATH", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            assert!(!belongs_to_outer_cargo(OsStr::new(kept)), "{kept}");
        }
    }
}
