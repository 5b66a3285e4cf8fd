//! The `fsi` under test: where it is, and how it is run.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use xtask::cargo_env::forget_outer_package;

/// The `fsi` under test: `$FSI_BIN`, or the one beside this test, which is then built first.
///
/// Cargo does not build another package's binary for a test, and `cargo test -p fsi-tests` must not test an old one.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| program("FSI_BIN", "fsi-agent", "fsi"))
}

/// A program under test: where the variable says, or beside this test, where it is then built first.
pub(crate) fn program(variable: &str, package: &str, name: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => path.into(),
        None => built(package, name),
    }
}

fn built(package: &str, name: &str) -> PathBuf {
    let directory = target_directory();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--bin", name]);
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    forget_outer_package(&mut cargo);
    assert!(cargo.status().expect("cargo runs").success(), "{name} builds");
    directory.join(name)
}

/// A helper binary of this package.
#[must_use]
pub fn load() -> PathBuf {
    target_directory().join("fsi-test-load")
}

/// `target/<profile>`: this test stands in its `deps`.
fn target_directory() -> PathBuf {
    let test = env::current_exe().expect("this test has a path");
    let deps = test.parent().expect("it is in a directory");
    deps.parent().expect("which is in target").to_owned()
}

/// `fsi` with arguments, its stdin empty. Cargo's library path, which every program would search, is taken away.
pub fn fsi<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = wrapped(binary());
    command.args(arguments);
    command
}

/// Another program in the same surroundings, which runs `fsi`.
pub fn wrapped(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env("NO_COLOR", "1").env("LC_ALL", "C").env_remove("LD_LIBRARY_PATH");
    command
}

/// Runs a command to its end.
#[must_use]
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    output
}

/// Bytes as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
