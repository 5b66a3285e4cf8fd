//! Programs that FSI's build and tests need and no distribution packages: where they are kept, in which version.
//!
//! They live outside the checkout, one folder per name and version, so that every checkout of one user shares them and
//! `git clean` does not cost ten minutes.

use std::env;
use std::path::{Path, PathBuf};

/// Links LLVM bitcode to an eBPF object. Pinned: an older one refuses the bitcode of a newer compiler.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// Tests POSIX on a file system.
pub const PJDFSTEST: Crate = Crate { name: "pjdfstest", version: "0.2.2" };

/// Does random things to one file and compares it with what memory says.
pub const FSX: Crate = Crate { name: "fsx", version: "0.3.2" };

/// libfuse's own pass-through file system, as Debian ships its source.
#[must_use]
pub fn passthrough_ll() -> PathBuf {
    tool_dir("passthrough_ll", "debian").join("passthrough_ll")
}

/// A crate whose one program has its name, in the version that we test with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crate {
    pub name: &'static str,
    pub version: &'static str,
}

impl Crate {
    /// Its folder, whether it is there or not.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        tool_dir(self.name, self.version)
    }

    /// Its program, whether it is there or not.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.place().join("bin").join(self.name)
    }
}

/// `$XDG_CACHE_HOME/fsi` or `~/.cache/fsi`.
#[must_use]
pub fn cache_dir() -> PathBuf {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match (absolute("XDG_CACHE_HOME"), absolute("HOME")) {
        (Some(cache), _) => cache.join("fsi"),
        (None, Some(home)) => home.join(".cache/fsi"),
        // A service account without a home still has a place of its own that survives until the next boot.
        (None, None) => env::temp_dir().join("fsi-cache"),
    }
}

/// The folder of one version of one tool, whether it is there or not.
#[must_use]
pub fn tool_dir(name: &str, version: &str) -> PathBuf {
    cache_dir().join("tools").join(format!("{name}-{version}"))
}

/// Our own bpf-linker if `cargo xtask setup` built one, else the user's.
#[must_use]
pub fn bpf_linker() -> Option<PathBuf> {
    let ours = tool_dir("bpf-linker", BPF_LINKER_VERSION).join("bin/bpf-linker");
    if is_executable(&ours) { Some(ours) } else { on_path("bpf-linker") }
}

/// The first executable file of that name on `PATH`.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| is_executable(candidate))
}

#[must_use]
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
