//! Lines of a log as whole calls: what was interrupted by another process's line is put together again.

use std::collections::HashMap;

/// A line that is about one process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) pid: u32,
    pub(super) text: String,
}

const UNFINISHED: &str = " <unfinished ...>";
const RESUMED: &str = " resumed>";

/// Whole calls, in the order in which they ended; notes about signals and exits are left out.
pub(super) fn whole(log: &str) -> Vec<Line> {
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut whole = Vec::new();
    for line in log.lines() {
        let Some((pid, text)) = split_pid(line) else { continue };
        if text.starts_with("---") || text.starts_with("+++") {
            continue;
        }
        if let Some(head) = text.strip_suffix(UNFINISHED) {
            begun.insert(pid, head.to_owned());
        } else if let Some(tail) = text.strip_prefix("<... ").and_then(|rest| rest.split_once(RESUMED)) {
            match begun.remove(&pid) {
                Some(head) => whole.push(Line { pid, text: head + tail.1 }),
                // A thread that executes another program goes on under the number of its process.
                None => assert!(tail.0 == "execve", "resumed without a beginning: {line}"),
            }
        } else {
            whole.push(Line { pid, text: text.to_owned() });
        }
    }
    // A process that was killed in a call never comes back to it.
    whole.extend(
        begun
            .into_iter()
            .filter(|(_, head)| !head.starts_with("execve("))
            .map(|(pid, head)| Line { pid, text: head + ") = ?" }),
    );
    whole
}

/// Process and the rest; nothing for strace's own remarks.
fn split_pid(line: &str) -> Option<(u32, &str)> {
    let (pid, rest) = line.split_once(' ')?;
    Some((pid.parse().ok()?, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_what_was_interrupted() {
        let log = "1 read(3</a>,  <unfinished ...>\n2 close(4</b>) = 0\n1 <... read resumed>\"x\", 1) = 1\n";
        let lines = whole(log);
        assert_eq!(lines[0], Line { pid: 2, text: "close(4</b>) = 0".to_owned() });
        assert_eq!(lines[1], Line { pid: 1, text: "read(3</a>, \"x\", 1) = 1".to_owned() });
    }

    #[test]
    fn leaves_out_what_is_no_call_and_ends_what_never_came_back() {
        let log =
            "1 --- SIGCHLD {si_signo=SIGCHLD} ---\n1 +++ exited with 0 +++\n3 write(1</a>, \"x\", 1 <unfinished ...>\n";
        assert_eq!(whole(log), [Line { pid: 3, text: "write(1</a>, \"x\", 1) = ?".to_owned() }]);
    }
}
