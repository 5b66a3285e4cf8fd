//! What POSIX and Linux say of files, as cases that say what they saw. A mount must make each say what it says on the disk
//! below; no expectation is written here that a disk would have to be believed for.

mod data;
mod names;
mod users;

use std::fmt::Debug;
use std::path::Path;

use rustix::io::Errno;

/// Everything that was seen, as `case: what`.
#[derive(Debug, Default)]
pub struct Seen {
    lines: Vec<String>,
}

impl Seen {
    fn saw(&mut self, case: &str, what: impl Debug) {
        self.lines.push(format!("{case}: {what:?}"));
    }

    /// The lines that only one of both has.
    #[must_use]
    pub fn difference(&self, native: &Self) -> Vec<String> {
        let only = |mark: &str, these: &Self, those: &Self| -> Vec<String> {
            let lines = these.lines.iter().filter(|line| !those.lines.contains(line));
            lines.map(|line| format!("{mark} {line}")).collect()
        };
        [only("natively", native, self), only("here", self, native)].concat()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The one that starts so.
    #[must_use]
    pub fn line(&self, start: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.starts_with(start)).map(String::as_str)
    }
}

/// Content: reads, writes, holes, offsets past 4 GiB, ranges, files without a name, ways to open.
#[must_use]
pub fn data(directory: &Path) -> Seen {
    collected(directory, data::see)
}

/// Names: long ones and odd ones, links, renames, attributes, directories, times.
#[must_use]
pub fn names(directory: &Path) -> Seen {
    collected(directory, names::see)
}

/// Who may do what, and what is left of setuid, setgid and capabilities; needs root, and programs that act as another user.
#[must_use]
pub fn users(directory: &Path) -> Seen {
    collected(directory, users::see)
}

fn collected(directory: &Path, see: fn(&Path, &mut Seen)) -> Seen {
    let own = directory.join("posix");
    std::fs::create_dir(&own).expect("a directory");
    let mut seen = Seen::default();
    see(&own, &mut seen);
    std::fs::remove_dir_all(&own).expect("it can be removed");
    seen
}

/// What std's error was.
fn errno<T>(result: std::io::Result<T>) -> Result<T, Option<Errno>> {
    result.map_err(|error| Errno::from_io_error(&error))
}
