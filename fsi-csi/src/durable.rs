//! Small files that are there whole or not at all, also after a crash.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

/// How the names begin of files that are not whole yet.
const NEW: &str = ".new-";

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
    let mut file = NamedTempFile::with_prefix_in(NEW, folder)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all()?;
    // Closed before it has its name: a program that somebody writes to cannot be run.
    file.into_temp_path().persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Takes away what was left half written by who was killed, unless it is younger than so long: then somebody may be at it.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn sweep(folder: &Path, age: Duration) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(NEW.as_bytes())) {
        if is_older(&entry.path(), age) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether a file was written so long ago.
pub(crate) fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|file| file.modified()).ok();
    modified.and_then(|at| at.elapsed().ok()).is_some_and(|since| since >= age)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_half_written_is_swept_once_nobody_is_at_it() {
        let folder = tempfile::tempdir().unwrap();
        let (half, whole) = (folder.path().join(".new-abc"), folder.path().join("whole"));
        fs::write(&half, "x").unwrap();
        write(&whole, b"x").unwrap();
        sweep(folder.path(), Duration::from_secs(3600)).unwrap();
        assert!(half.exists());
        sweep(folder.path(), Duration::ZERO).unwrap();
        assert!(!half.exists() && whole.exists());
        sweep(&folder.path().join("missing"), Duration::ZERO).unwrap();
    }
}
