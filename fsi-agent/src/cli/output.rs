//! The only place that writes to stdout and stderr. A reader that went away (`| head`) ends the writing, not the program.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use ratatui::crossterm::terminal;
use tracing_subscriber::EnvFilter;

use super::Failure;

/// Human text: to stderr, with a line end.
pub(super) fn say(text: &str) {
    // Nothing can be said about a stderr that does not take what is said.
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Whether somebody still reads our stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
}

/// A result: to stdout, with a line end.
pub(super) fn result(text: &str) -> Result<(), Failure> {
    part(text).map(|_nothing_follows| ())
}

/// A part of a result that goes on as long as there is a reader.
pub(super) fn part(text: &str) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::Failed(anyhow::anyhow!("write to stdout: {error}"))),
    }
}

/// How human text may look on stderr.
pub(super) fn look() -> fsi_agent::summary::Look {
    let is_terminal = io::stderr().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let width = is_terminal
        .then(|| terminal::size().ok())
        .flatten()
        .map(|(columns, _)| usize::from(columns))
        // A serial console does not say how wide it is.
        .filter(|columns| *columns > 0);
    fsi_agent::summary::Look { width, color: is_terminal && !no_color }
}

/// What the library logs goes to stderr; `RUST_LOG` says how much.
pub(super) fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_none| EnvFilter::new("info"));
    // One that is set already stays.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init().ok();
}
