//! The group of a volume: who is in it may read and write every file, and new files have it too.
//!
//! Done to the backing files by the driver, not by the kubelet through the mount: there, rules would strike the walk, and its operations
//! would count as the application's.

use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, chownat};
use rustix::io::Errno;

use super::walk::{Found, Way, by_descriptor};
use crate::error::CallError;

const SETGID: u32 = 0o2000;
/// For the group: of a folder, of a file.
const FOLDER: u32 = 0o070 | SETGID;
const FILE: u32 = 0o060;

/// What comes of a file that cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Fails,
    /// As the kubelet does with the volumes that it gives itself: what the file system behind does not allow is only logged.
    Logged,
}

/// Gives all files to a group, unless the root of the volume has it already.
///
/// # Errors
/// When one cannot be given.
pub fn give_to(root: &Path, group: u32, refusal: Refusal) -> Result<(), CallError> {
    let mut way = Way::into(root).map_err(CallError::io("open", root))?;
    let metadata = way.here().metadata().map_err(CallError::io("look at", root))?;
    if metadata.gid() == group && metadata.mode() & FOLDER == FOLDER {
        return Ok(());
    }
    let mut refused = Refused { refusal, first: None, count: 0 };
    loop {
        while let Some(name) = way.next()? {
            // A mount is none of the volume's files.
            let Found::Node(node) = way.look(&name)? else { continue };
            if node.metadata.is_dir() {
                refused.only_logged(way.down(name, &node))?;
            } else {
                let given = one(&node.file, &node.metadata, group);
                refused.only_logged(given.map_err(way.failed("give to the group", &name)))?;
            }
        }
        // What is in a directory comes before it, and so the root last: it says that all is done.
        let metadata = way.here().metadata().map_err(way.failed("look at", c""))?;
        let given = one(way.here(), &metadata, group).map_err(way.failed("give to the group", c""));
        refused.only_logged(given)?;
        if way.up()?.is_none() {
            break;
        }
    }
    if let Some(first) = refused.first {
        tracing::warn!(group, files = refused.count, %first, "files are not given to the group of a claim that is wrapped");
    }
    Ok(())
}

/// The files that could not be given.
struct Refused {
    refusal: Refusal,
    first: Option<CallError>,
    count: u64,
}

impl Refused {
    fn only_logged(&mut self, given: Result<(), CallError>) -> Result<(), CallError> {
        match given {
            Err(error) if self.refusal == Refusal::Logged && is_refusal(&error) => {
                self.first.get_or_insert(error);
                self.count += 1;
                Ok(())
            }
            given => given,
        }
    }
}

/// Of a file system that is read-only, has no groups, or trusts no root.
fn is_refusal(error: &CallError) -> bool {
    let CallError::Io { error, .. } = error else { return false };
    let refusals = [Errno::PERM, Errno::ACCESS, Errno::ROFS, Errno::OPNOTSUPP, Errno::NOSYS];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

fn one(file: &File, metadata: &Metadata, group: u32) -> std::io::Result<()> {
    chownat(file, c"", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    // A change of the owner takes setuid and setgid bits away, which a program in the volume may need.
    let more = if metadata.is_dir() { FOLDER } else { FILE };
    fs::set_permissions(by_descriptor(file), Permissions::from_mode(metadata.mode() & 0o7777 | more))
}
