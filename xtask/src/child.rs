//! Runs a child and hands over its lines as they come, both streams in the order they were written.
//!
//! The child stays in our process group, so that Ctrl-C at the terminal ends all of it. A child that takes longer than
//! its limit is killed with its descendants; one that leaves a background process with our pipe open is not waited for.

use std::fs;
use std::io::{self, BufRead as _, BufReader, PipeReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const TICK: Duration = Duration::from_secs(1);

/// How long a pipe may stay open after the child itself has ended.
const GRACE: Duration = Duration::from_secs(3);

/// Lines read ahead of the consumer; a child that writes faster waits.
const LINES_AHEAD: usize = 1024;

pub(crate) enum Event<'a> {
    Line(&'a str),
    /// About once a second while nothing is written.
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    With(ExitStatus),
    TookTooLong(Duration),
}

impl Ended {
    pub(crate) fn is_success(self) -> bool {
        matches!(self, Self::With(status) if status.success())
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::With(status) => status.fmt(f),
            Self::TookTooLong(limit) => write!(f, "ended by us after {} s", limit.as_secs()),
        }
    }
}

/// Runs `command` without stdin.
pub(crate) fn stream(mut command: Command, limit: Duration, mut on_event: impl FnMut(Event<'_>)) -> Result<Ended> {
    let program = command.get_program().to_owned();
    let (reader, writer) = io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("make a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
    // The command holds our copies of the writing end: with them open the pipe would never end.
    drop(command);

    let lines = read_lines(reader);
    let deadline = Instant::now() + limit;
    let mut ended = None;
    let mut patience = None;
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => on_event(Event::Line(&line)),
            Err(RecvTimeoutError::Timeout) => on_event(Event::Quiet),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if ended.is_none() {
            ended = child.try_wait().context("wait for a child")?.map(Ended::With);
        }
        if ended.is_some() && Instant::now() > *patience.get_or_insert_with(|| Instant::now() + GRACE) {
            break;
        }
        if ended.is_none() && Instant::now() > deadline {
            kill_tree(&mut child);
            ended = Some(Ended::TookTooLong(limit));
        }
    }
    let status = child.wait().context("wait for a child")?;
    Ok(ended.unwrap_or(Ended::With(status)))
}

fn read_lines(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(LINES_AHEAD);
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Descendants first are read, then all are killed: a killed parent's children would belong to init.
fn kill_tree(child: &mut Child) {
    let parents = parents();
    let mut doomed = vec![child.id()];
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        doomed.extend(parents.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    let killed = Command::new("kill").arg("-KILL").args(doomed.iter().map(u32::to_string)).status();
    if killed.is_err() {
        // No `kill` program: at least the child itself. It may have ended meanwhile, which is what we want.
        child.kill().unwrap_or_default();
    }
}

/// (process, its parent) of everything in /proc.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, parent_in_stat(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// The name in parentheses may itself hold blanks and parentheses, hence from the right.
fn parent_in_stat(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn lines_of(script: &str, limit: Duration) -> (Vec<String>, Ended) {
        let mut lines = Vec::new();
        let ended = stream(shell(script), limit, |event| {
            if let Event::Line(line) = event {
                lines.push(line.to_owned());
            }
        });
        (lines, ended.expect("sh starts"))
    }

    #[test]
    fn both_streams_arrive_in_order_with_the_status() {
        let (lines, ended) = lines_of("echo one; echo two >&2; printf three; exit 7", Duration::from_secs(60));
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(matches!(ended, Ended::With(status) if status.code() == Some(7)));
    }

    #[test]
    fn a_child_over_its_limit_goes_with_its_children() {
        let (_, ended) = lines_of("sleep 600 & wait", Duration::ZERO);
        assert_eq!(ended, Ended::TookTooLong(Duration::ZERO));
    }

    #[test]
    fn the_parent_is_found_behind_an_odd_name() {
        assert_eq!(parent_in_stat("42 (a) b (c) S 7 42 42"), Some(7));
    }
}
