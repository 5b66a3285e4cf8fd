//! The programs that servers are started from: our own, and those of other versions whose volumes are still there. A mount goes on only under
//! a program of its layout, and the image of another version does not bring it.
//!
//! They are at `FOLDER/HASH OF THE LAYOUT/fsi`. Every version puts its own there when it starts, so that whoever follows it, newer or older,
//! finds it; what no volume needs is removed.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fsi_agent::keeper::program::Program;

use super::ServerError;
use crate::durable;
use crate::volume_id;

/// What they are called, each in a folder of its own.
const NAME: &str = "fsi";
/// They are run as root: nobody else may change or put one.
const MODE: u32 = 0o700;

/// How often one says that our own is not kept, for as long as it is so.
const SAY_EVERY: Duration = Duration::from_secs(600);

/// How the copy of our own was when it was looked at last.
#[derive(Debug, Default)]
enum Copy {
    #[default]
    Unknown,
    Well,
    Bad {
        why: String,
        said: Instant,
    },
}

/// All of this host.
#[derive(Debug)]
pub(super) struct Programs {
    own: PathBuf,
    folder: PathBuf,
    /// Of our own; nothing when it does not say.
    layout: Option<String>,
    copy: Mutex<Copy>,
}

impl Programs {
    pub(super) fn new(own: PathBuf, folder: PathBuf) -> Self {
        let layout = match says(&own) {
            Ok(layout) => Some(layout),
            Err(error) => {
                tracing::error!(program = %own.display(), %error, "it does not say which mounts it can serve");
                None
            }
        };
        let programs = Self { own, folder, layout, copy: Mutex::default() };
        programs.keep(|kept| is_same(&programs.own, kept).unwrap_or(false));
        programs
    }

    /// What new volumes are served by.
    pub(super) fn own(&self) -> &Path {
        &self.own
    }

    /// The layout of new volumes.
    pub(super) fn layout(&self) -> Option<&str> {
        self.layout.as_deref()
    }

    /// What serves mounts of a layout.
    ///
    /// # Errors
    /// When there is no such program here.
    pub(super) fn of(&self, layout: &str) -> Result<PathBuf, ServerError> {
        // A keeper of an earlier version does not tell, and a program that does not say is the only one there is.
        if layout.is_empty() || self.layout.as_deref().is_none_or(|own| own == layout) {
            return Ok(self.own.clone());
        }
        let kept = self.place(layout);
        match kept.is_file() {
            true => Ok(kept),
            false => Err(ServerError::NoProgram { layout: layout.to_owned(), folder: self.folder.clone() }),
        }
    }

    /// Removes what none of these layouts needs, and puts our own back if somebody took it away. How many there are.
    pub(super) fn tidy(&self, needed: &HashSet<String>) -> usize {
        self.keep(Path::is_file);
        let needed: HashSet<_> = needed.iter().map(String::as_str).chain(self.layout()).map(hash).collect();
        let folders = self.folders();
        let (stay, go): (Vec<_>, Vec<_>) = folders.into_iter().partition(|name| needed.contains(name));
        for name in go {
            let place = self.folder.join(name);
            match fs::remove_dir_all(&place) {
                Ok(()) => {
                    tracing::info!(place = %place.display(), "a program that no volume needs any more is removed")
                }
                Err(error) => {
                    tracing::warn!(place = %place.display(), %error, "a program that no volume needs is left")
                }
            }
        }
        stay.len()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.folders().len()
    }

    /// Names of the folders that have one; what else somebody put there is not ours.
    fn folders(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let is_hash = |name: &String| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        names.filter(is_hash).collect()
    }

    fn place(&self, layout: &str) -> PathBuf {
        self.folder.join(hash(layout)).join(NAME)
    }

    /// Has our own there for the version that follows.
    fn keep(&self, is_there: impl FnOnce(&Path) -> bool) {
        let Some(layout) = &self.layout else { return };
        let kept = self.place(layout);
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = match (is_there(&kept), &*copy) {
            (false, _) => self.put(&kept, layout),
            (true, Copy::Well) => Ok(()),
            (true, Copy::Unknown | Copy::Bad { .. }) => runs(&kept, layout),
        };
        let Err(error) = looked else {
            *copy = Copy::Well;
            return;
        };
        let why = error.to_string();
        let said = match &*copy {
            Copy::Bad { why: before, said } if *before == why && said.elapsed() < SAY_EVERY => *said,
            Copy::Unknown | Copy::Well | Copy::Bad { .. } => {
                tracing::error!(
                    place = %kept.display(), error = why,
                    "the program of servers is not kept: under a version with another layout, the volumes of this one will have no server"
                );
                Instant::now()
            }
        };
        *copy = Copy::Bad { why, said };
    }

    fn put(&self, kept: &Path, layout: &str) -> io::Result<()> {
        let folder = kept.parent().unwrap_or(&self.folder);
        DirBuilder::new().recursive(true).mode(MODE).create(folder)?;
        fs::set_permissions(&self.folder, Permissions::from_mode(MODE))?;
        // Of one who was killed here.
        for left in fs::read_dir(folder)?.flatten().filter(|entry| entry.file_name() != NAME) {
            fs::remove_file(left.path())?;
        }
        durable::replace(kept, |file| {
            io::copy(&mut File::open(&self.own)?, file)?;
            file.set_permissions(Permissions::from_mode(MODE))
        })?;
        File::open(&self.folder)?.sync_all()?;
        runs(kept, layout)
    }
}

/// Better known now than when it is needed; a file system may be mounted noexec.
fn runs(kept: &Path, layout: &str) -> io::Result<()> {
    match says(kept)? {
        said if said == layout => Ok(()),
        said => Err(io::Error::other(format!("the copy says that it has the layout `{said}`, not `{layout}`"))),
    }
}

/// The layout of a program.
fn says(program: &Path) -> io::Result<String> {
    match Program::open(program)?.layout()? {
        said if said.is_empty() => Err(io::Error::other("it is no `fsi` that can serve a mount")),
        said => Ok(said),
    }
}

fn hash(layout: &str) -> String {
    volume_id::hex(layout.as_bytes())
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
        one.consume(length);
        other.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// What these say of themselves when they are asked for their layout.
    const ECHO: (&str, &str) = ("/bin/echo", "serve --layout");
    const PRINTF: (&str, &str) = ("/usr/bin/printf", "serve");

    fn program(place: &Path, (program, _): (&str, &str)) {
        fs::copy(program, place).unwrap();
    }

    fn needed(layouts: &[&str]) -> HashSet<String> {
        layouts.iter().map(|&layout| layout.to_owned()).collect()
    }

    #[test]
    fn each_version_finds_the_program_of_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let (own, folder) = (directory.path().join("fsi"), directory.path().join("programs"));
        program(&own, ECHO);
        let programs = Programs::new(own.clone(), folder.clone());
        assert_eq!(programs.of(ECHO.1).unwrap(), own);
        assert_eq!(programs.of("").unwrap(), own, "a keeper that does not tell");
        let error = programs.of(PRINTF.1).unwrap_err().to_string();
        assert!(error.contains("`serve`") && error.contains(folder.to_str().unwrap()), "{error}");

        program(&own, PRINTF);
        let programs = Programs::new(own.clone(), folder.clone());
        assert_eq!(programs.of(PRINTF.1).unwrap(), own);
        let kept = programs.of(ECHO.1).unwrap();
        assert_eq!(says(&kept).unwrap(), ECHO.1);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(programs.tidy(&needed(&[ECHO.1, PRINTF.1])), 2);

        program(&own, ECHO);
        let programs = Programs::new(own, folder);
        assert_eq!(says(&programs.of(PRINTF.1).unwrap()).unwrap(), PRINTF.1);
        assert_eq!(programs.tidy(&needed(&[])), 1, "our own stays");
        assert!(programs.of(PRINTF.1).is_err());
    }

    #[test]
    fn the_copy_is_the_program_that_ran_last() {
        let directory = tempfile::tempdir().unwrap();
        let (own, folder) = (directory.path().join("fsi"), directory.path().join("programs"));
        program(&own, ECHO);
        let kept = Programs::new(own.clone(), folder.clone()).place(ECHO.1);
        fs::write(kept.with_file_name(".new-x"), "of one who was killed").unwrap();
        // As a program of another version that has the same layout.
        File::options().append(true).open(&own).unwrap().write_all(b"more").unwrap();
        let programs = Programs::new(own.clone(), folder);
        assert_eq!(fs::read(&kept).unwrap(), fs::read(&own).unwrap());
        assert_eq!(fs::read_dir(kept.parent().unwrap()).unwrap().count(), 1, "nothing else is there");
        fs::remove_file(&kept).unwrap();
        programs.tidy(&needed(&[ECHO.1]));
        assert!(kept.is_file(), "it is put back");
    }

    #[test]
    fn what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (own, folder) = (directory.path().join("fsi"), directory.path().join("programs"));
        program(&own, ECHO);
        let programs = Programs::new(own, folder.clone());
        fs::create_dir(folder.join("theirs")).unwrap();
        assert_eq!(programs.tidy(&needed(&[])), 1);
        assert!(folder.join("theirs").is_dir());
    }
    #[test]
    fn a_copy_that_cannot_run_is_complained_of_for_as_long_as_it_cannot() {
        let directory = tempfile::tempdir().unwrap();
        let (own, folder) = (directory.path().join("fsi"), directory.path().join("programs"));
        program(&own, ECHO);
        let kept = Programs::new(own.clone(), folder.clone()).place(ECHO.1);
        // As on a file system that is mounted noexec.
        fs::set_permissions(&kept, Permissions::from_mode(0o600)).unwrap();
        let programs = Programs::new(own, folder);
        let is_bad = || matches!(&*programs.copy.lock().unwrap(), Copy::Bad { .. });
        assert!(is_bad(), "also by a driver that finds it there");
        for _ in 0..2 {
            programs.tidy(&needed(&[]));
            assert!(is_bad());
        }
        fs::set_permissions(&kept, Permissions::from_mode(MODE)).unwrap();
        programs.tidy(&needed(&[]));
        assert!(!is_bad());
    }
}
