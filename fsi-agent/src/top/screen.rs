//! The live table on the terminal, and the keys. The terminal is restored at every way out, a panic included.

use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row as Cells, Table as Grid};

use super::gather::Gatherer;
use super::table::{SortBy, Table};
use super::{DRAIN, TopConfig, TopError};
use crate::clock::{Clock, monotonic_ns};
use crate::observe::Signals;
use crate::summary::format::{count, nanoseconds, shortened};

/// Columns of a number.
const NUMBER: u16 = 10;

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Stay,
    Redraw,
    Quit,
}

struct Screen<'a> {
    config: &'a TopConfig,
    sort: SortBy,
    first: usize,
    table: Table,
}

/// Until `q`, a signal or the end of the duration.
pub(super) fn run(config: &TopConfig, mut gatherer: Gatherer, signals: &Signals) -> Result<(), TopError> {
    let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    let _restore = Restore;
    let mut screen = Screen { config, sort: config.sort, first: 0, table: Table::empty(config.by.head()) };
    let start_ns = monotonic_ns();
    let mut last_ns = start_ns;
    terminal.draw(|frame| screen.draw(frame)).map_err(TopError::Terminal)?;
    while !signals.any() && config.duration.is_none_or(|limit| Clock::since(start_ns) < limit) {
        gatherer.drain()?;
        let mut redraw = false;
        if Clock::since(last_ns) >= config.interval {
            last_ns = monotonic_ns();
            screen.table = gatherer.table(screen.sort)?;
            redraw = true;
        }
        match screen.input(DRAIN)? {
            Next::Quit => break,
            Next::Redraw => redraw = true,
            Next::Stay => {}
        }
        if redraw {
            terminal.draw(|frame| screen.draw(frame)).map_err(TopError::Terminal)?;
        }
    }
    Ok(())
}

/// Gives the terminal back when dropped; for a panic ratatui's hook does it first, so that its message can be read.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl Screen<'_> {
    /// Waits for a key, at most so long.
    fn input(&mut self, patience: Duration) -> Result<Next, TopError> {
        if !event::poll(patience).map_err(TopError::Terminal)? {
            return Ok(Next::Stay);
        }
        match event::read().map_err(TopError::Terminal)? {
            Event::Key(key) if key.kind == KeyEventKind::Press => Ok(self.key(key)),
            Event::Resize(_, _) => Ok(Next::Redraw),
            Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => Ok(Next::Stay),
        }
    }

    fn key(&mut self, key: KeyEvent) -> Next {
        // In raw mode the terminal sends Ctrl-C as a key.
        let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
            return Next::Quit;
        }
        let last = self.table.rows().len().saturating_sub(1);
        match key.code {
            KeyCode::Down => self.first = (self.first + 1).min(last),
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::PageDown => self.first = (self.first + 20).min(last),
            KeyCode::PageUp => self.first = self.first.saturating_sub(20),
            KeyCode::Home => self.first = 0,
            KeyCode::Char(c) => match SortBy::ALL.into_iter().find(|sort| sort.key() == c) {
                Some(sort) => {
                    self.sort = sort;
                    self.first = 0;
                    self.table.sort(sort);
                }
                None => return Next::Stay,
            },
            _ => return Next::Stay,
        }
        Next::Redraw
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let [title, body, help] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(self.title(), title);
        let numbers = NUMBER + 1;
        let name_width = body.width.saturating_sub(numbers * 6).max(12);
        frame.render_widget(self.grid(name_width), body);
        let keys = SortBy::ALL.map(|sort| format!("{} {}", sort.key(), sort.head())).join("  ");
        frame.render_widget(Line::from(format!("sort: {keys}   arrows scroll   q quit")).dim(), help);
    }

    fn title(&self) -> Line<'static> {
        let interval = nanoseconds(u64::try_from(self.config.interval.as_nanos()).unwrap_or(u64::MAX));
        let rows = count(u64::try_from(self.table.rows().len()).unwrap_or(u64::MAX));
        let lost = if self.table.lost == 0 { "nothing".to_owned() } else { count(self.table.lost) };
        Line::from(format!("fsi top by {}, every {interval}: {rows} rows, lost: {lost}", self.config.by.head())).bold()
    }

    fn grid(&self, name_width: u16) -> Grid<'static> {
        let heads = self.table.heads();
        let sorted = self.sort.head();
        let head_cells = heads.into_iter().enumerate().map(|(at, head)| {
            let style = if at > 0 && head == sorted { Style::new().bold().reversed() } else { Style::new().bold() };
            cell(at, head.to_owned()).style(style)
        });
        let rows = self.table.rows().iter().skip(self.first).map(|row| {
            let cells = row.cells().into_iter().enumerate();
            let cells = cells.map(|(at, text)| {
                let text = if at == 0 { shortened(&text, usize::from(name_width)) } else { text };
                cell(at, text)
            });
            Cells::new(cells.collect::<Vec<_>>())
        });
        let mut widths = vec![Constraint::Length(name_width)];
        widths.extend([Constraint::Length(NUMBER); 6]);
        Grid::new(rows.collect::<Vec<_>>(), widths).header(Cells::new(head_cells.collect::<Vec<_>>()))
    }
}

/// Names to the left, numbers to the right.
fn cell(column: usize, text: String) -> Cell<'static> {
    let line = Line::from(text);
    Cell::from(if column == 0 { line } else { line.right_aligned() })
}
