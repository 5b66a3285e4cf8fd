//! Files that results go to: proved writable before anything starts, and written as a whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::ObserveConfig;
use crate::telemetry::jsonl::JsonLinesError;
use crate::telemetry::metrics::MetricsError;
use crate::telemetry::serve::ServeError;

/// Why an output cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("{option} {}: cannot be written: {source}", path.display())]
    Unwritable { option: &'static str, path: PathBuf, source: io::Error },
    #[error("--spans: {0}")]
    Spans(#[from] JsonLinesError),
    #[error("--metrics-listen: {0}")]
    Listen(#[from] ServeError),
    #[error("{0}")]
    Render(#[from] MetricsError),
}

/// Refuses outputs that cannot be written, and leaves nothing behind.
pub(super) fn check(config: &ObserveConfig) -> Result<(), OutputError> {
    for (option, path) in [("--spans", &config.spans), ("--metrics", &config.metrics)] {
        if let Some(path) = path {
            let unwritable = |source| OutputError::Unwritable { option, path: path.clone(), source };
            writable(path).map_err(unwritable)?;
        }
    }
    Ok(())
}

/// Opens without emptying; a file that this makes is removed again.
pub(crate) fn writable(path: &Path) -> io::Result<()> {
    if fs::exists(path)? {
        // A pipe would wait for its reader here.
        let is_plain = fs::metadata(path)?.is_file() || path.is_dir();
        return if is_plain { OpenOptions::new().append(true).open(path).map(drop) } else { Ok(()) };
    }
    OpenOptions::new().write(true).create_new(true).open(path)?;
    fs::remove_file(path)
}

/// Replaces the file in one step, so that a reader finds the old text or the new one. A path that is no regular file
/// (a pipe, a terminal) is written to.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), OutputError> {
    let unwritable = |source| OutputError::Unwritable { option: "--metrics", path: path.to_owned(), source };
    let in_place = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if in_place {
        let mut file = OpenOptions::new().write(true).open(path).map_err(unwritable)?;
        return file.write_all(text.as_bytes()).map_err(unwritable);
    }
    // Through a link the file it points to is replaced, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_new| path.to_owned());
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    let fresh = target.with_file_name(name);
    let written = File::create(&fresh).and_then(|mut file| file.write_all(text.as_bytes()));
    written.and_then(|()| fs::rename(&fresh, &target)).map_err(|source| {
        fs::remove_file(&fresh).ok();
        unwritable(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let fresh = directory.path().join("fresh");
        writable(&fresh).unwrap();
        assert!(!fresh.exists());
        let old = directory.path().join("old");
        fs::write(&old, "kept").unwrap();
        writable(&old).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "kept");
        assert!(writable(directory.path()).is_err());
        assert!(writable(&directory.path().join("no/such")).is_err());
        writable(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn replaces_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics");
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        replace(Path::new("/dev/null"), "gone").unwrap();
    }
}
