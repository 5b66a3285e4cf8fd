//! Small files that are there whole or not at all, also after a crash.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces a file by one that has these bytes; makes its folder if need be.
///
/// # Errors
/// When it cannot; the file is then what it was.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Replaces a file by one that is filled so; makes its folder if need be.
///
/// # Errors
/// When it cannot; the file is then what it was.
pub(crate) fn replace(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::with_prefix_in(".new-", folder)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all()?;
    // Closed before it has its name: a program that somebody writes to cannot be run.
    file.into_temp_path().persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Takes a file away, if it is there.
///
/// # Errors
/// When it cannot be.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
