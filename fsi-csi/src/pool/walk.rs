//! A way through a tree that others change meanwhile: from directory to directory by descriptor, so that no link leads out of it.
//!
//! A name is opened once and not followed, and what was opened is what is worked on, whatever has the name by then. Mounts are not entered.
//! However deep it goes, few directories are open at a time: one further up is opened again as `..`, and has to be the one that it was.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Metadata};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, openat2, unlinkat};
use rustix::io::Errno;

use crate::error::CallError;

/// So many directories above the one that is read stay open.
const OPEN: usize = 32;
/// What is read of a directory at once.
const BATCH: usize = 8 << 10;
/// So many names of a path are told.
const TOLD: usize = 16;
/// How often a directory is read again that got new files while it was removed.
const AGAIN: usize = 100;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where the walk is.
#[derive(Debug)]
pub(super) struct Way {
    root: PathBuf,
    here: Level,
    above: Vec<Above>,
}

/// A directory that is being read.
#[derive(Debug)]
struct Level {
    /// Nothing for the root.
    name: CString,
    /// Device and inode.
    is: (u64, u64),
    open: Open,
    /// Where to go on in it.
    next: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// What was read of it and not told yet, each with where to go on after it.
    batch: VecDeque<(CString, u64)>,
}

/// A directory that the walk comes back to.
#[derive(Debug)]
struct Above {
    name: CString,
    is: (u64, u64),
    open: Option<Open>,
    next: u64,
}

/// What has a name.
#[derive(Debug)]
pub(super) enum Found {
    Node(Node),
    /// Another file system, or another part of one: none of the files of the tree.
    Mounted,
    Gone,
}

/// Anything in a tree, opened so that it is held fast and nothing is done to it (`O_PATH`).
#[derive(Debug)]
pub(super) struct Node {
    pub(super) file: File,
    pub(super) metadata: Metadata,
}

/// The path of what is open: calls that take no such descriptor take this, and it leads nowhere else.
pub(super) fn by_descriptor(open: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", open.as_fd().as_raw_fd())
}

impl Way {
    /// Begins in a directory, of which the path is nobody's to change.
    pub(super) fn into(root: &Path) -> io::Result<Self> {
        let file = File::from(rustix::fs::open(root, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?);
        Ok(Self { root: root.to_owned(), here: Level::new(CString::default(), file)?, above: Vec::new() })
    }

    /// The directory that is being read.
    pub(super) fn here(&self) -> &File {
        &self.here.open.file
    }

    pub(super) fn is_below_the_root(&self) -> bool {
        !self.above.is_empty()
    }

    /// The next name in it.
    pub(super) fn next(&mut self) -> Result<Option<CString>, CallError> {
        if self.here.open.batch.is_empty() {
            self.here.open.fill().map_err(self.failed("read", c""))?;
        }
        let Some((name, next)) = self.here.open.batch.pop_front() else { return Ok(None) };
        self.here.next = next;
        Ok(Some(name))
    }

    /// What has that name in it.
    pub(super) fn look(&self, name: &CStr) -> Result<Found, CallError> {
        let (flags, resolve) = (OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, ResolveFlags::BENEATH);
        match openat2(self.here(), name, flags, Mode::empty(), resolve | ResolveFlags::NO_XDEV) {
            Err(Errno::NOENT) => Ok(Found::Gone),
            Err(Errno::XDEV) => Ok(Found::Mounted),
            opened => {
                let file = File::from(opened.map_err(self.failed("look at", name))?);
                let metadata = file.metadata().map_err(self.failed("look at", name))?;
                Ok(Found::Node(Node { file, metadata }))
            }
        }
    }

    /// Goes into a directory that was found here.
    pub(super) fn down(&mut self, name: CString, directory: &Node) -> Result<(), CallError> {
        let file = rustix::fs::openat(&directory.file, c".", DIRECTORY, Mode::empty());
        let file = File::from(file.map_err(self.failed("open", &name))?);
        let failed = self.failed("open", &name);
        let level = Level::new(name.clone(), file).map_err(failed)?;
        let Level { name, is, open, next } = mem::replace(&mut self.here, level);
        self.above.push(Above { name, is, open: Some(open), next });
        if let Some(far) = self.above.len().checked_sub(OPEN + 1).and_then(|far| self.above.get_mut(far)) {
            far.open = None;
        }
        Ok(())
    }

    /// Goes back to the directory above, to what comes after the one that the walk leaves: the name of that. Nothing at the root.
    pub(super) fn up(&mut self) -> Result<Option<CString>, CallError> {
        let Some(Above { name, is, open, next }) = self.above.pop() else { return Ok(None) };
        let level = match open {
            Some(open) => Level { name, is, open, next },
            None => {
                let above = openat2(self.here(), c"..", DIRECTORY, Mode::empty(), ResolveFlags::NO_XDEV);
                let file = File::from(above.map_err(self.failed("leave", c""))?);
                let level = Level::new(name, file).map_err(self.failed("leave", c""))?;
                if level.is != is {
                    return Err(CallError::Moved(self.path(c"")));
                }
                rustix::fs::seek(&level.open.file, SeekFrom::Start(next)).map_err(self.failed("go on in", c".."))?;
                Level { next, ..level }
            }
        };
        Ok(Some(mem::replace(&mut self.here, level).name))
    }

    /// For `map_err`: what was done to which name.
    pub(super) fn failed<E: Into<io::Error>>(&self, what: &'static str, name: &CStr) -> impl FnOnce(E) -> CallError {
        move |error| CallError::Io { what, path: self.path(name), error: error.into() }
    }

    /// For sentences: of a deep one the middle is left out.
    pub(super) fn path(&self, name: &CStr) -> PathBuf {
        let above = self.above.iter().map(|above| above.name.as_c_str()).chain([self.here.name.as_c_str()]);
        let mut names: Vec<_> = above.skip(1).take(TOLD).collect();
        if self.above.len() > TOLD {
            names.push(c"...");
        }
        names.push(name);
        let names = names.into_iter().filter(|name| !name.is_empty());
        self.root.join(names.map(|name| OsStr::from_bytes(name.to_bytes())).collect::<PathBuf>())
    }
}

impl Level {
    fn new(name: CString, file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let open = Open { file, batch: VecDeque::new() };
        Ok(Self { name, is: (metadata.dev(), metadata.ino()), open, next: 0 })
    }
}

impl Open {
    fn fill(&mut self) -> Result<(), Errno> {
        let mut room = [MaybeUninit::uninit(); BATCH];
        let mut entries = RawDir::new(&self.file, &mut room);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // It was removed.
                Err(Errno::NOENT) => return Ok(()),
                entry => entry?,
            };
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.batch.push_back((entry.file_name().to_owned(), entry.next_entry_cookie()));
            }
            if entries.is_buffer_empty() && !self.batch.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Removes a tree, if it is there; its path but for the last name is nobody's to change.
pub(super) fn remove(root: &Path) -> Result<(), CallError> {
    let (Some(folder), Some(name)) = (root.parent(), root.file_name()) else { return Ok(()) };
    let name = CString::new(name.as_bytes()).map_err(CallError::io("remove", root))?;
    let mut way = Way::into(folder).map_err(CallError::io("open", folder))?;
    remove_here(&mut way, name)?;
    let mut again = AGAIN;
    while way.is_below_the_root() {
        if let Some(name) = way.next()? {
            remove_here(&mut way, name)?;
            continue;
        }
        let Some(name) = way.up()? else { break };
        match unlinkat(way.here(), &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) if again > 0 => {
                again -= 1;
                remove_here(&mut way, name)?;
            }
            Err(error) => return Err(way.failed("remove", &name)(error)),
        }
    }
    Ok(())
}

/// Removes what is no directory, and goes into what is one.
fn remove_here(way: &mut Way, name: CString) -> Result<(), CallError> {
    match unlinkat(way.here(), &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(way.failed("remove", &name)(error)),
    }
    match way.look(&name)? {
        Found::Node(node) if node.metadata.is_dir() => way.down(name, &node),
        Found::Mounted => Err(CallError::Foreign(way.path(&name))),
        // Something else has taken the name: the directory turns out not to be empty, and is read again.
        Found::Node(_) | Found::Gone => Ok(()),
    }
}
