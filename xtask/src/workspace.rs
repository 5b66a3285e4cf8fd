//! Where the checkout and its build output are. Found at run time: a binary that remembers the path it was compiled
//! under is wrong as soon as the checkout moves.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The checkout this command works on.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Walks up from the package that cargo runs (`cargo run` and build scripts both set `CARGO_MANIFEST_DIR`), or from
    /// the current directory when the binary is started by hand.
    pub fn find() -> Result<Self> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => env::current_dir().context("read the current directory")?,
        };
        Self::above(&start).with_context(|| format!("{} is not inside a checkout of FSI", start.display()))
    }

    fn above(start: &Path) -> Option<Self> {
        let is_root = |dir: &&Path| dir.join("Cargo.toml").is_file() && dir.join("fsi-ebpf/Cargo.toml").is_file();
        start.ancestors().find(is_root).map(|root| Self { root: root.to_path_buf() })
    }

    /// A path inside the checkout.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    #[must_use]
    pub fn target_dir(&self) -> PathBuf {
        // A relative CARGO_TARGET_DIR means the current directory, which `join` leaves to the checkout: for `cargo
        // xtask` started at the root the two are the same.
        match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) if !dir.is_empty() => self.root.join(dir),
            _ => self.root.join("target"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_root_from_a_member_and_from_below_it() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().expect("xtask is inside the checkout");
        for start in [here, root, &here.join("src")] {
            assert_eq!(Workspace::above(start).expect("inside the checkout").root(), root);
        }
    }

    #[test]
    fn finds_nothing_outside_a_checkout() {
        assert!(Workspace::above(Path::new("/proc/self")).is_none());
    }
}
