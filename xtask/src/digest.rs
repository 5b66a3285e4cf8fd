//! A number that changes when files change. Fixed for ever, unlike std's hasher; it notices edits and is no defence
//! against anyone.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// One number for all files under `inputs`, their names relative to `root` included.
pub fn of_files(root: &Path, inputs: &[PathBuf]) -> io::Result<u64> {
    let mut files = Vec::new();
    for input in inputs {
        collect(input, &mut files)?;
    }
    files.sort();
    let mut state = FNV_START;
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        let contents = fs::read(&file)?;
        // The lengths keep (name, contents) pairs apart that concatenate to the same bytes.
        state = fnv(state, &name.as_os_str().len().to_le_bytes());
        state = fnv(state, name.as_os_str().as_encoded_bytes());
        state = fnv(state, &contents.len().to_le_bytes());
        state = fnv(state, &contents);
    }
    Ok(state)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        // A member's own target directory, left by a build started inside it.
        if path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        }
    }
    Ok(())
}

#[must_use]
pub fn of_bytes(bytes: &[u8]) -> u64 {
    fnv(FNV_START, bytes)
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a.
fn fnv(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
