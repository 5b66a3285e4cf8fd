//! One line for each node of the tree, with the lines that connect them.

use fsi_common::record::CloseKind;

use super::{Content, Node, Operations, Tree};
use crate::span::{FileSpan, OpSpan, Path, ProcessSpan, Span, SpanBody};
use crate::summary::format::{bytes, command, count, escaped, nanoseconds};
use crate::summary::{Look, errno};

/// Lines of a drawing.
const MAX_DRAWN: usize = 2_000;

impl Tree {
    /// Several lines without a last line end.
    #[must_use]
    pub fn render(&self, look: &Look) -> String {
        let mut drawing = Drawing { lines: Vec::new(), left_out: self.left_out, width: look.width };
        for node in &self.roots {
            drawing.node(node, "", "");
        }
        if drawing.left_out > 0 {
            drawing.lines.push(format!("{} more spans are not drawn", count(drawing.left_out)));
        }
        if drawing.lines.is_empty() {
            drawing.lines.push("no spans".to_owned());
        }
        drawing.lines.join("\n")
    }
}

struct Drawing {
    lines: Vec<String>,
    left_out: u64,
    width: Option<usize>,
}

impl Drawing {
    /// `lead` stands before the node's own line, `below` before those of its children.
    fn node(&mut self, node: &Node, lead: &str, below: &str) {
        if self.lines.len() >= MAX_DRAWN {
            self.left_out += node.operations();
            return;
        }
        let line = format!("{lead}{}", content(&node.content));
        self.lines.push(self.fitted(line));
        let last = node.children.len() - usize::from(!node.children.is_empty() && node.left_out == 0);
        for (at, child) in node.children.iter().enumerate() {
            let (branch, stem) = if at == last { ("`- ", "   ") } else { ("|- ", "|  ") };
            self.node(child, &format!("{below}{branch}"), &format!("{below}{stem}"));
        }
        if node.left_out > 0 {
            self.lines.push(format!("{below}`- ... {} more", count(node.left_out)));
        }
    }

    fn fitted(&self, line: String) -> String {
        match self.width {
            Some(width) if line.chars().count() > width => {
                line.chars().take(width.saturating_sub(3)).chain("...".chars()).collect()
            }
            Some(_) | None => line,
        }
    }
}

fn content(content: &Content) -> String {
    match content {
        Content::Operations(operations) => folded(operations),
        Content::Span(span) => match &span.body {
            SpanBody::Process(process) => self::process(span, process),
            SpanBody::File(file) => self::file(span, file),
            SpanBody::Operation(operation) => single(operation),
        },
    }
}

fn lasted(span: &Span) -> String {
    nanoseconds(span.end_unix_ns.saturating_sub(span.start_unix_ns))
}

fn process(span: &Span, process: &ProcessSpan) -> String {
    let end = match process.exit_code {
        Some(status) if status & 0x7f != 0 => format!(", killed by signal {}", status & 0x7f),
        Some(status) if status >> 8 != 0 => format!(", exit code {}", status >> 8),
        Some(_) => String::new(),
        None => ", still running".to_owned(),
    };
    format!("process {} {}  {}{end}", command(&span.actor.comm), span.actor.tgid, lasted(span))
}

fn file(span: &Span, file: &FileSpan) -> String {
    let totals = &file.totals;
    let mut text =
        format!("file {}  {}, {} operations", name(file.path.as_ref()), lasted(span), count(totals.operations));
    if totals.bytes_read > 0 {
        text.push_str(&format!(", read {}", bytes(totals.bytes_read)));
    }
    if totals.bytes_written > 0 {
        text.push_str(&format!(", wrote {}", bytes(totals.bytes_written)));
    }
    if totals.errors > 0 {
        text.push_str(&format!(", {} failed", count(totals.errors)));
    }
    if file.open_before {
        text.push_str(", open before");
    }
    text.push_str(match file.close {
        // Unseen: most often a mapping that was left to the end of its process.
        Some(CloseKind::Closed | CloseKind::Exit | CloseKind::Unseen) => "",
        None => ", still open",
    });
    text
}

fn name(path: Option<&Path>) -> String {
    match path {
        Some(path) if !path.bytes.is_empty() => escaped(&path.bytes),
        Some(_) | None => "(path not known)".to_owned(),
    }
}

fn folded(operations: &Operations) -> String {
    let SpanBody::Operation(first) = &operations.first.body else { return String::new() };
    if operations.count == 1 {
        return single(first);
    }
    let moved = if operations.bytes > 0 { format!("  {}", bytes(operations.bytes)) } else { String::new() };
    format!(
        "{} x{}{}{moved}  {}, slowest {}{}",
        first.op.name(),
        count(operations.count),
        path(first),
        nanoseconds(operations.duration_ns),
        nanoseconds(operations.max_ns),
        failed(first),
    )
}

fn single(operation: &OpSpan) -> String {
    let moved = match (operation.bytes, operation.offset) {
        (Some(moved), Some(offset)) => format!("  {} at {offset}", bytes(moved)),
        (Some(moved), None) => format!("  {}", bytes(moved)),
        (None, Some(offset)) => format!("  at {offset}"),
        (None, None) => String::new(),
    };
    let took = nanoseconds(operation.duration_ns);
    format!("{}{}{moved}  {took}{}", operation.op.name(), path(operation), failed(operation))
}

/// Only where the line above does not say it: operations on an open file stand under it.
fn path(operation: &OpSpan) -> String {
    let own = match &operation.path {
        Some(path) if operation.dev == 0 => format!(" {}", escaped(&path.bytes)),
        Some(_) | None => String::new(),
    };
    match &operation.target {
        Some(target) => format!("{own} -> {}", escaped(&target.bytes)),
        None => own,
    }
}

fn failed(operation: &OpSpan) -> String {
    if operation.errno == 0 { String::new() } else { format!("  {}", errno::name(operation.errno)) }
}
