//! The group of a volume: who is in it may read and write every file, and new files have it too.
//!
//! Done to the backing files by the driver, not by the kubelet through the mount: there, rules would strike the walk, and its operations
//! would count as the application's.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

use crate::error::CallError;

const SETGID: u32 = 0o2000;
/// For the group: of a folder, of a file.
const FOLDER: u32 = 0o070 | SETGID;
const FILE: u32 = 0o060;

/// Gives all files to a group, unless the root of the volume has it already.
///
/// # Errors
/// When one cannot be given.
pub fn give_to(root: &Path, group: u32) -> Result<(), CallError> {
    let metadata = fs::symlink_metadata(root).map_err(CallError::io("look at", root))?;
    if metadata.gid() == group && metadata.mode() & FOLDER == FOLDER {
        return Ok(());
    }
    // The root comes last: it says that all is done.
    below(root, group)?;
    one(root, &metadata, group)
}

fn below(folder: &Path, group: u32) -> Result<(), CallError> {
    for entry in fs::read_dir(folder).map_err(CallError::io("read", folder))? {
        let path = entry.map_err(CallError::io("read", folder))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(CallError::io("look at", &path))?;
        if metadata.is_dir() {
            below(&path, group)?;
        }
        one(&path, &metadata, group)?;
    }
    Ok(())
}

fn one(path: &Path, metadata: &Metadata, group: u32) -> Result<(), CallError> {
    lchown(path, None, Some(group)).map_err(CallError::io("give to the group", path))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    // A change of the owner takes setuid and setgid bits away, which a program in the volume may need.
    let more = if metadata.is_dir() { FOLDER } else { FILE };
    let mode = Permissions::from_mode(metadata.mode() & 0o7777 | more);
    fs::set_permissions(path, mode).map_err(CallError::io("open to the group", path))
}
