//! Paths the kernel announced, and names joined to them.

use std::sync::Arc;

use fsi_common::record::PathState;

use super::decode::Announced;
use super::table::{Displaced, Table};
use crate::span::Path;

/// More than the kernel side has slots; a bound for the case that its records are not what they should be.
const MAX_PATHS: usize = 1 << 18;

/// One path per slot of the kernel's cache.
#[derive(Debug)]
pub(super) struct Paths {
    slots: Table<(u64, Path)>,
    empty: Arc<[u8]>,
    scratch: Vec<u8>,
}

/// What an announcement did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    Kept,
    /// Another path had to go.
    Evicted,
}

impl Paths {
    pub(super) fn new() -> Self {
        Self { slots: Table::new(MAX_PATHS), empty: Arc::from([]), scratch: Vec::new() }
    }

    /// The slot of an id; the upper half says the how-manieth path of that slot it is.
    const fn slot(id: u64) -> u64 {
        id & 0xffff_ffff
    }

    pub(super) fn announce(&mut self, path: &Announced<'_>) -> Announcement {
        let known = Path { bytes: Arc::from(path.bytes), state: path.state };
        match self.slots.insert(Self::slot(path.id), (path.id, known)) {
            Displaced::Nothing | Displaced::Same(_) => Announcement::Kept,
            Displaced::Oldest(_) => Announcement::Evicted,
        }
    }

    /// The path of an id; nothing when its record did not come, or another path has its slot.
    pub(super) fn get(&self, id: u64) -> Option<&Path> {
        self.slots.get(Self::slot(id)).filter(|(known, _)| *known == id).map(|(_, path)| path)
    }

    /// A path of which nothing is known but why.
    pub(super) fn nameless(&self, state: PathState) -> Path {
        Path { bytes: Arc::clone(&self.empty), state }
    }

    /// `name` as the process gave it, below a directory it is relative to; an empty name is the directory itself.
    pub(super) fn join(&mut self, dir: &Path, name: &[u8]) -> Arc<[u8]> {
        if name.is_empty() {
            return Arc::clone(&dir.bytes);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&dir.bytes);
        append(&mut self.scratch, name);
        Arc::from(self.scratch.as_slice())
    }

    /// A name that stands alone: absolute, or of an unknown directory.
    pub(super) fn alone(&mut self, name: &[u8]) -> Arc<[u8]> {
        self.scratch.clear();
        if name.first() == Some(&b'/') {
            self.scratch.push(b'/');
        }
        append(&mut self.scratch, name);
        if self.scratch.is_empty() && !name.is_empty() {
            self.scratch.push(b'.');
        }
        Arc::from(self.scratch.as_slice())
    }
}

/// Appends the components of `name` that are neither empty nor `.`. `..` stays: what it means depends on symbolic links.
fn append(path: &mut Vec<u8>, name: &[u8]) {
    for component in name.split(|byte| *byte == b'/') {
        if component.is_empty() || component == b"." {
            continue;
        }
        if path.last().is_some_and(|last| *last != b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(paths: &mut Paths, id: u64, bytes: &[u8]) {
        paths.announce(&Announced { id, state: PathState::Resolved, bytes });
    }

    #[test]
    fn names_join_without_resolving() {
        let cases: [(&str, &str, &str); 12] = [
            ("/", "a", "/a"),
            ("/a", "b", "/a/b"),
            ("/a", "./b", "/a/b"),
            ("/a", "b//c/", "/a/b/c"),
            ("/a", "../b", "/a/../b"),
            ("/a", ".", "/a"),
            ("/a", "", "/a"),
            ("/a", "./././x/./y/.", "/a/x/y"),
            ("/", ".", "/"),
            ("/a", "..", "/a/.."),
            ("/a", ".hidden", "/a/.hidden"),
            ("", "b/c", "b/c"),
        ];
        let mut paths = Paths::new();
        for (dir, name, joined) in cases {
            let dir = Path { bytes: Arc::from(dir.as_bytes()), state: PathState::Resolved };
            assert_eq!(&*paths.join(&dir, name.as_bytes()), joined.as_bytes(), "{dir:?} + {name}");
        }
        for (name, alone) in [("/", "/"), ("//a//b/", "/a/b"), ("/./a", "/a"), ("a/./b", "a/b"), (".", "."), ("", "")] {
            assert_eq!(&*paths.alone(name.as_bytes()), alone.as_bytes(), "{name}");
        }
    }

    #[test]
    fn a_newer_path_ends_the_one_in_its_slot() {
        let mut paths = Paths::new();
        announce(&mut paths, 1 << 32 | 7, b"/old");
        announce(&mut paths, 2 << 32 | 7, b"/new");
        assert!(paths.get(1 << 32 | 7).is_none());
        assert_eq!(&*paths.get(2 << 32 | 7).unwrap().bytes, b"/new");
        assert!(paths.get(2 << 32 | 8).is_none());
    }
}
