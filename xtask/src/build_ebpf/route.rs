//! Which compiler builds for BPF here. Stable Rust ships no `core` for BPF, so there are two ways: Debian packages one
//! (rustc-web with libstd-rust-web-dev-bpf), and a rustup nightly with rust-src builds its own. Both link with
//! bpf-linker. What a machine has (`Found`) is read apart from what follows from it (`Found::route`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, error, fmt, fs};

use crate::cargo_env::forget_outer_cargo;
use crate::tools;

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";

/// What this machine has, as far as a route is concerned.
#[derive(Debug, Default, Clone)]
pub struct Found {
    pub linker: Option<PathBuf>,
    /// A compiler with a ready `core` for BPF.
    pub debian_rustc: Option<PathBuf>,
    pub nightly: Option<Nightly>,
}

#[derive(Debug, Clone)]
pub struct Nightly {
    pub rustc: PathBuf,
    pub has_rust_src: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    Debian { rustc: PathBuf },
    Nightly { rustc: PathBuf },
}

/// A compiler and a linker that build for BPF.
#[derive(Debug, Clone)]
pub struct Route {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

/// Why there is no route; says what to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub compiler: Option<MissingCompiler>,
    pub linker: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingCompiler {
    Any,
    OnlyRustSrc,
}

impl Found {
    #[must_use]
    pub fn on_this_machine() -> Self {
        Self { linker: tools::bpf_linker(), debian_rustc: debian_rustc(), nightly: nightly() }
    }

    /// Debian's first: its `core` is compiled already and its LLVM is the one our bpf-linker is built with.
    pub fn compiler(&self) -> Result<Compiler, MissingCompiler> {
        if let Some(rustc) = &self.debian_rustc {
            return Ok(Compiler::Debian { rustc: rustc.clone() });
        }
        match &self.nightly {
            Some(Nightly { rustc, has_rust_src: true }) => Ok(Compiler::Nightly { rustc: rustc.clone() }),
            Some(Nightly { has_rust_src: false, .. }) => Err(MissingCompiler::OnlyRustSrc),
            None => Err(MissingCompiler::Any),
        }
    }

    pub fn route(self) -> Result<Route, Missing> {
        match (self.compiler(), self.linker) {
            (Ok(compiler), Some(linker)) => Ok(Route { compiler, linker }),
            (compiler, linker) => Err(Missing { compiler: compiler.err(), linker: linker.is_none() }),
        }
    }
}

impl Route {
    /// The cargo that goes with the compiler, without arguments.
    #[must_use]
    pub fn cargo(&self) -> Command {
        match self.compiler {
            Compiler::Debian { .. } => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Compiler::Nightly { .. } => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
        }
    }

    /// Sets the compiler, after the outer cargo's settings have been removed.
    pub(super) fn apply(&self, command: &mut Command) {
        match &self.compiler {
            // Bootstrap: aya-ebpf needs features that only a nightly admits to having.
            Compiler::Debian { rustc } => command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1"),
            Compiler::Nightly { .. } => command,
        };
    }

    pub(super) fn extra_arguments(&self) -> &'static [&'static str] {
        match self.compiler {
            Compiler::Debian { .. } => &[],
            Compiler::Nightly { .. } => &["-Z", "build-std=core"],
        }
    }

    #[must_use]
    pub fn rustc(&self) -> &Path {
        self.compiler.rustc()
    }
}

impl Compiler {
    #[must_use]
    pub fn rustc(&self) -> &Path {
        let (Self::Debian { rustc } | Self::Nightly { rustc }) = self;
        rustc
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { rustc } => write!(f, "Debian's compiler {}", rustc.display()),
            Self::Nightly { .. } => f.write_str("rustup's nightly"),
        }
    }
}

impl fmt::Display for MissingCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyRustSrc => "the source of `core` (`rustup component add rust-src --toolchain nightly`)",
            Self::Any => {
                "a compiler for BPF (Debian 12: rustc-web and libstd-rust-web-dev-bpf; elsewhere: `rustup toolchain \
                 install nightly --component rust-src`)"
            }
        })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("building the eBPF programs needs ")?;
        if let Some(compiler) = &self.compiler {
            compiler.fmt(f)?;
        }
        if self.compiler.is_some() && self.linker {
            f.write_str(" and ")?;
        }
        if self.linker {
            f.write_str("bpf-linker (`cargo install bpf-linker`)")?;
        }
        f.write_str(": `cargo xtask setup` gets it, or says how")
    }
}

impl error::Error for Missing {}

/// Any rustc in /usr/bin will do that has `core` for BPF beside it; which package that is differs between releases.
fn debian_rustc() -> Option<PathBuf> {
    let core = fs::read_dir(DEBIAN_CORE).ok()?;
    let has_core = core.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"));
    let rustc = PathBuf::from(DEBIAN_RUSTC);
    (has_core && tools::is_executable(&rustc)).then_some(rustc)
}

fn nightly() -> Option<Nightly> {
    let rustc = PathBuf::from(ask_rustup(&["which", "rustc", "--toolchain", "nightly"])?);
    let sysroot = rustc.parent()?.parent()?;
    let has_rust_src = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file();
    Some(Nightly { rustc, has_rust_src })
}

/// One line of rustup's answer. It must not go and fetch a toolchain just because somebody asked for it.
fn ask_rustup(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("rustup");
    forget_outer_cargo(&mut command);
    command.env("RUSTUP_AUTO_INSTALL", "0").args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(linker: bool, debian: bool, rust_src: Option<bool>) -> Found {
        Found {
            linker: linker.then(|| "/l/bpf-linker".into()),
            debian_rustc: debian.then(|| DEBIAN_RUSTC.into()),
            nightly: rust_src.map(|has_rust_src| Nightly { rustc: "/n/rustc".into(), has_rust_src }),
        }
    }

    #[test]
    fn either_compiler_will_do_and_debian_comes_first() {
        let debian = found(true, true, Some(true)).route().expect("complete");
        assert_eq!(debian.compiler, Compiler::Debian { rustc: DEBIAN_RUSTC.into() });
        let nightly = found(true, false, Some(true)).route().expect("complete");
        assert_eq!(nightly.compiler, Compiler::Nightly { rustc: "/n/rustc".into() });
        assert_eq!(nightly.extra_arguments(), ["-Z", "build-std=core"]);
    }

    #[test]
    fn one_sentence_names_each_missing_piece() {
        let cases = [
            (
                found(true, false, Some(false)),
                "building the eBPF programs needs the source of `core` (`rustup component add rust-src --toolchain \
                 nightly`): `cargo xtask setup` gets it, or says how",
            ),
            (
                found(false, true, None),
                "building the eBPF programs needs bpf-linker (`cargo install bpf-linker`): `cargo xtask setup` gets \
                 it, or says how",
            ),
            (
                found(false, false, None),
                "building the eBPF programs needs a compiler for BPF (Debian 12: rustc-web and \
                 libstd-rust-web-dev-bpf; elsewhere: `rustup toolchain install nightly --component rust-src`) and \
                 bpf-linker (`cargo install bpf-linker`): `cargo xtask setup` gets it, or says how",
            ),
        ];
        for (found, sentence) in cases {
            assert_eq!(found.route().expect_err("incomplete").to_string(), sentence);
        }
    }
}
