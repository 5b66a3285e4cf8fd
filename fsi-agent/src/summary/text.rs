//! The summary in words and tables, for stderr.

use std::fmt::Display;

use super::files::FileRow;
use super::format::{bytes, count, nanoseconds, shortened};
use super::listed::{ListedRow, ListedRows};
use super::table::Table;
use super::{Look, Summary, errno};

/// Rows of a table; the rest is in the JSON document.
const MAX_FILES: usize = 15;
const MAX_FAILURES: usize = 15;
/// A path is not made shorter than this, however narrow the terminal.
const LEAST_PATH: usize = 24;

/// Several lines without a last line end.
#[must_use]
pub fn render(summary: &Summary, look: &Look) -> String {
    let mut page = Page { lines: Vec::new(), look };
    page.headline(summary);
    page.operations(summary);
    page.files(summary);
    page.failures(summary);
    if let Some(listed) = &summary.listed {
        page.listed(listed);
    }
    page.ending(summary);
    page.lines.join("\n")
}

struct Page<'a> {
    lines: Vec<String>,
    look: &'a Look,
}

impl Page<'_> {
    fn bold(&self, text: impl Display) -> String {
        if self.look.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
    }

    fn warning(&self, text: impl Display) -> String {
        if self.look.color { format!("\x1b[33m{text}\x1b[0m") } else { text.to_string() }
    }

    /// An empty line and a table under a bold head.
    fn table<const N: usize>(&mut self, mut table: Table<N>, path_column: Option<usize>) {
        if let (Some(column), Some(width)) = (path_column, self.look.width) {
            let room = width.saturating_sub(table.width_without(column)).max(LEAST_PATH);
            table.map_column(column, |path| shortened(path, room));
        }
        self.lines.push(String::new());
        for (at, line) in table.lines().into_iter().enumerate() {
            let line = if at == 0 { self.bold(line) } else { line };
            self.lines.push(line);
        }
    }

    fn headline(&mut self, summary: &Summary) {
        let totals = &summary.totals;
        let subject = shortened(&summary.subject, 60);
        let line = format!(
            "{subject}: {}, {}, {} in {}; read {}, wrote {}; {} failed",
            plural(totals.operations, "operation", "operations"),
            plural(totals.files, "file", "files"),
            plural(totals.processes, "process", "processes"),
            nanoseconds(summary.duration_ns),
            bytes(totals.read_bytes),
            bytes(totals.written_bytes),
            count(totals.failed),
        );
        self.lines.push(self.bold(line));
    }

    fn operations(&mut self, summary: &Summary) {
        if summary.operations.is_empty() {
            return;
        }
        let mut table = Table::new(["operation", ">count", ">failed", ">bytes", ">p50", ">p99", ">max", ">total"]);
        for row in &summary.operations {
            table.row([
                row.op.to_owned(),
                count(row.count),
                unless_zero(row.failed, count),
                unless_zero(row.bytes, bytes),
                nanoseconds(row.p50_ns),
                nanoseconds(row.p99_ns),
                nanoseconds(row.max_ns),
                nanoseconds(row.time_ns),
            ]);
        }
        self.table(table, None);
    }

    fn files(&mut self, summary: &Summary) {
        if summary.files.is_empty() {
            return;
        }
        let mut table =
            Table::new(["file (most time first)", ">opens", ">ops", ">read", ">written", ">failed", ">time"]);
        for row in summary.files.iter().take(MAX_FILES) {
            table.row(file_cells(row));
        }
        self.table(table, Some(0));
        let hidden = summary.files.iter().skip(MAX_FILES);
        let (mut files, mut operations, mut time_ns) =
            (summary.other_files.files, summary.other_files.operations, summary.other_files.time_ns);
        for row in hidden {
            files += 1;
            operations += row.operations;
            time_ns += row.time_ns;
        }
        if files > 0 {
            let files = plural(files, "other file", "other files");
            let operations = plural(operations, "operation", "operations");
            self.lines.push(format!("and {files}: {operations}, {}", nanoseconds(time_ns)));
        }
    }

    fn failures(&mut self, summary: &Summary) {
        if summary.failures.is_empty() {
            return;
        }
        let mut table = Table::new(["failed", ">count", "errno", "meaning", "example"]);
        for row in summary.failures.iter().take(MAX_FAILURES) {
            let example = row.example_path.clone().unwrap_or_default();
            table.row([row.op.to_owned(), count(row.count), row.errno_name.clone(), row.message.clone(), example]);
        }
        self.table(table, Some(4));
        let hidden = summary.failures.len().saturating_sub(MAX_FAILURES);
        if hidden > 0 {
            self.lines.push(format!("and {hidden} other kinds of failure"));
        }
        if summary.failures.iter().all(|row| row.example_path.is_none()) {
            self.lines.push("--failed lists them with their paths".to_owned());
        }
    }

    fn listed(&mut self, listed: &ListedRows) {
        let mut table = Table::new([">took", "operation", "result", ">bytes", "process", "path"]);
        for row in &listed.slowest {
            table.row(listed_cells(row));
        }
        self.table(table, Some(5));
        let shown = u64::try_from(listed.slowest.len()).unwrap_or(u64::MAX);
        if listed.count > shown {
            self.lines.push(format!("and {} more like these", count(listed.count - shown)));
        }
    }

    fn ending(&mut self, summary: &Summary) {
        self.lines.push(String::new());
        if let Some(code) = summary.exit_code.filter(|code| *code != 0) {
            self.lines.push(format!("the command ended with exit code {code}"));
        }
        let running = summary.totals.processes_running;
        if running > 0 {
            let verb = if running == 1 { "still runs" } else { "still run" };
            self.lines.push(format!("{} {verb}", plural(running, "observed process", "observed processes")));
        }
        for export in &summary.exports {
            let trouble = export.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
            let spans = plural(export.spans, "span", "spans");
            self.lines.push(format!("{}: {spans}{trouble}", export.to.replace('_', " ")));
        }
        for note in &summary.notes {
            self.lines.push(self.warning(format!("note: {note}")));
        }
        if summary.lost.is_empty() {
            self.lines.push("lost: nothing".to_owned());
        }
        for loss in &summary.lost {
            self.lines.push(self.warning(format!("lost: {}", loss.words())));
        }
    }
}

fn plural(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}

fn unless_zero(value: u64, show: impl Fn(u64) -> String) -> String {
    if value == 0 { "-".to_owned() } else { show(value) }
}

fn file_cells(row: &FileRow) -> [String; 7] {
    [
        row.path.clone(),
        count(row.opens),
        count(row.operations),
        unless_zero(row.read_bytes, bytes),
        unless_zero(row.written_bytes, bytes),
        unless_zero(row.failed, count),
        nanoseconds(row.time_ns),
    ]
}

fn listed_cells(row: &ListedRow) -> [String; 6] {
    [
        nanoseconds(row.duration_ns),
        row.op.to_owned(),
        if row.errno == 0 { "ok".to_owned() } else { errno::name(row.errno).into_owned() },
        row.bytes.map(bytes).unwrap_or_default(),
        format!("{} {}", row.process, row.pid),
        row.path.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests;
