//! What `strace -f -yy -o LOG` saw, as counts of file operations: the second opinion that FSI is compared with.
//!
//! `-yy` rather than `-y`, because it says which descriptors are character devices.

mod call;
mod lines;
mod operation;

use std::path::Path;

use crate::counts::Counts;
use call::Outcome;
use operation::Class;

/// A log as counts.
#[derive(Debug, Default)]
pub struct StraceLog {
    pub counts: Counts,
    /// Operations whose process ended inside them: they have no result, and either side may have counted them.
    pub cut: Vec<String>,
    /// Lines that cannot be told to be operations or not.
    pub unclear: Vec<String>,
}

impl StraceLog {
    /// Reads a log.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("strace's log can be read");
        Self::of(&String::from_utf8_lossy(&bytes))
    }

    fn of(text: &str) -> Self {
        let mut log = Self::default();
        for line in lines::whole(text) {
            log.add(&line.text);
        }
        log
    }

    fn add(&mut self, line: &str) {
        // A process ended before strace could ask which call it was in. Had it been an operation that FSI counted, the counts would differ.
        if line.starts_with("???(") && line.trim_end().ends_with("= ?") {
            return;
        }
        let Some(call) = call::parse(line) else {
            self.unclear.push(line.to_owned());
            return;
        };
        match operation::classify(&call) {
            Class::Other => {}
            Class::Unclear => self.unclear.push(line.to_owned()),
            Class::Operation(_) if call.result == Outcome::Cut => self.cut.push(line.to_owned()),
            Class::Operation(operation) => {
                let errno = if let Outcome::Failed(errno) = call.result { Some(errno) } else { None };
                let (read, written) = operation::bytes(&operation, &call.result);
                self.counts.add_call(operation.name, errno, read, written);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_counts() {
        let log = StraceLog::of(concat!(
            "7 execve(\"/bin/x\", [\"x\"], 0x7f /* 3 vars */) = 0\n",
            "7 openat(AT_FDCWD</t>, \"a\", O_RDONLY) = 3</t/a>\n",
            "7 read(3</t/a>, \"abc\", 10) = 3\n",
            "7 openat(AT_FDCWD</t>, \"b\", O_RDONLY) = -1 ENOENT (No such file or directory)\n",
            "7 exit_group(0) = ?\n",
            "7 +++ exited with 0 +++\n",
        ));
        let mut expected = Counts::default();
        expected.add_call("open", None, 0, 0);
        expected.add_call("read", None, 3, 0);
        expected.add_call("open", Some("ENOENT"), 0, 0);
        assert_eq!(log.counts, expected);
        assert!(log.cut.is_empty() && log.unclear.is_empty());
    }
}
