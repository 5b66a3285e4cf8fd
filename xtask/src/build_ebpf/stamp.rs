//! When a built object may stay: the same inputs, the same compiler and linker, and the object itself as it was left.
//!
//! Contents are compared, not times: a checkout, a `git stash` or a restored cache sets every time anew. The two
//! programs are compared by size and time, because reading 100 MB of compiler costs more than it tells.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fmt, fs, io};

use crate::digest;

/// What is written beside the object after it was built.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    arch: String,
    inputs: u64,
    object: u64,
    tools: Vec<String>,
}

impl Stamp {
    pub(super) fn new(arch: &str, inputs: u64, tools: &[&Path], object: &Path) -> io::Result<Self> {
        Ok(Self {
            arch: arch.to_owned(),
            inputs,
            object: digest::of_bytes(&fs::read(object)?),
            tools: tools.iter().map(|tool| tool_mark(tool)).collect::<io::Result<_>>()?,
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "arch {}\ninputs {:016x}\nobject {:016x}", self.arch, self.inputs, self.object)?;
        self.tools.iter().try_for_each(|tool| writeln!(f, "tool {tool}"))
    }
}

/// Whether the object that `stored` was written for is what a build would make now. Starts no process.
pub(super) fn is_current(stored: &str, arch: &str, inputs: u64, object: &Path) -> bool {
    // The stamp names the tools it was made with, so that nobody has to be asked where they are.
    let tools: Vec<&Path> =
        stored.lines().filter_map(|line| line.strip_prefix("tool ")?.rsplitn(3, ' ').nth(2)).map(Path::new).collect();
    Stamp::new(arch, inputs, &tools, object).is_ok_and(|now| now.to_string() == stored)
}

fn tool_mark(tool: &Path) -> io::Result<String> {
    let meta = fs::metadata(tool)?;
    Ok(format!("{} {} {}", tool.display(), meta.len(), meta.mtime()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A directory of its own for each case; removed with what is in it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("fsi-stamp-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("src")).expect("create a scratch directory");
            for (file, text) in [("src/main.rs", "fn main() {}"), ("object", "ELF"), ("rust c", "compiler")] {
                fs::write(dir.join(file), text).expect("write a scratch file");
            }
            Self(dir)
        }

        fn inputs(&self) -> u64 {
            digest::of_files(&self.0, &[self.0.join("src")]).expect("digest")
        }

        fn stored(&self) -> String {
            let object = self.0.join("object");
            Stamp::new("x86_64", self.inputs(), &[&self.0.join("rust c")], &object).expect("stamp").to_string()
        }

        fn is_current(&self, stored: &str) -> bool {
            is_current(stored, "x86_64", self.inputs(), &self.0.join("object"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("remove the scratch directory");
        }
    }

    #[test]
    fn nothing_changed_is_current_and_each_change_is_not() {
        let changes: [(&str, &str); 4] =
            [("src/main.rs", "fn main() { }"), ("src/new.rs", ""), ("object", "FLE"), ("rust c", "newer compiler")];
        for (number, (file, text)) in changes.into_iter().enumerate() {
            let scratch = Scratch::new(&format!("change{number}"));
            let stored = scratch.stored();
            assert!(scratch.is_current(&stored));
            fs::write(scratch.0.join(file), text).expect("change a file");
            assert!(!scratch.is_current(&stored), "{file}");
        }
    }

    #[test]
    fn another_machine_or_a_missing_object_is_not_current() {
        let scratch = Scratch::new("other");
        let stored = scratch.stored();
        assert!(!is_current(&stored, "aarch64", scratch.inputs(), &scratch.0.join("object")));
        assert!(!is_current(&stored, "x86_64", scratch.inputs(), &scratch.0.join("gone")));
        assert!(!scratch.is_current("garbage"));
    }
}
