//! One line on the terminal for a long step, all of the child's words in a log file, and the last of them on failure.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::child::{self, Event};

/// How much of the log a failure shows.
const LAST_LINES: usize = 20;

/// Where no line can be redrawn (a CI log), a new one that often says that we live.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// No step of a set-up takes longer; what does hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs `command` as one step called `label`.
pub(crate) fn run_logged(label: &str, command: Command, log: &Path) -> Result<()> {
    let parent = log.parent().context("a log file is in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut last = VecDeque::with_capacity(LAST_LINES + 1);
    let mut line = StatusLine::new(label);
    let ended = child::stream(command, LIMIT, |event| {
        if let Event::Line(text) = event {
            // A full disk must not end the step: the log is a convenience.
            writeln!(file, "{text}").unwrap_or_default();
            last.push_back(text.to_owned());
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
        line.show(last.back().map_or("", String::as_str));
    })?;
    if ended.is_success() {
        line.close("done");
        return Ok(());
    }
    line.close("FAILED");
    for text in &last {
        println!("    | {text}");
    }
    bail!("{label}: {ended}; the whole log is {}", log.display());
}

struct StatusLine<'a> {
    label: &'a str,
    start: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl<'a> StatusLine<'a> {
    fn new(label: &'a str) -> Self {
        let is_terminal = io::stdout().is_terminal();
        if !is_terminal {
            println!("  {label} ...");
        }
        Self { label, start: Instant::now(), shown: None, is_terminal }
    }

    fn show(&mut self, doing: &str) {
        let interval = if self.is_terminal { Duration::from_millis(200) } else { HEARTBEAT };
        if self.shown.unwrap_or(self.start).elapsed() < interval {
            return;
        }
        self.shown = Some(Instant::now());
        let doing: String = doing.trim().chars().filter(|c| !c.is_control()).take(60).collect();
        let seconds = self.start.elapsed().as_secs();
        if self.is_terminal {
            print!("\r\x1b[K  {} ... {seconds} s  {doing}", self.label);
            // A terminal that went away is noticed by the next println.
            io::stdout().flush().unwrap_or_default();
        } else {
            println!("  {} ... {seconds} s so far: {doing}", self.label);
        }
    }

    fn close(&self, how: &str) {
        let redraw = if self.is_terminal { "\r\x1b[K" } else { "" };
        println!("{redraw}  {} ... {how} in {:.0} s", self.label, self.start.elapsed().as_secs_f64());
    }
}
