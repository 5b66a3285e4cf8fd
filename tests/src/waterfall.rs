//! A trace as a picture: an SVG with a row for each span, its bar where it was in time, a mark for each injected fault. Nothing is in
//! it that is not in the spans.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::spans::{Event, Span, Spans};

const ROW: f64 = 22.0;
const MARGIN: f64 = 12.0;
/// Where the names end and time begins.
const NAMES: f64 = 430.0;
const TIME: f64 = 720.0;
const HEAD: f64 = 34.0;
/// What is shorter is still seen.
const THINNEST: f64 = 2.0;
const MOST_TICKS: f64 = 7.0;

/// The spans of one trace, under a line that says where they are from.
#[must_use]
pub fn svg(spans: &Spans, source: &str) -> String {
    let begin = spans.all.iter().map(|span| span.start_ns).min().unwrap_or(0);
    let end = spans.all.iter().map(|span| span.end_ns).max().unwrap_or(begin + 1);
    let scale = Scale { begin, length: (end - begin).max(1) };
    let rows = in_order(spans);
    let (width, height) = (NAMES + TIME + 2.0 * MARGIN, HEAD + ROW * (rows.len() as f64 + 1.0) + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let bottom = HEAD + ROW * rows.len() as f64;
    for tick in scale.ticks() {
        let x = scale.x(begin + tick);
        line(&mut svg, &format!("<path d=\"M{x:.1} {HEAD}V{bottom}\" stroke=\"#dddddd\"/>"));
        text(&mut svg, x, HEAD - 8.0, "middle", "#555555", &duration(tick));
    }
    for (number, (depth, span)) in rows.iter().enumerate() {
        row(&mut svg, &scale, HEAD + ROW * number as f64, *depth, span);
    }
    text(&mut svg, MARGIN, bottom + ROW - 4.0, "start", "#555555", source);
    svg.push_str("</svg>\n");
    svg
}

fn row(svg: &mut String, scale: &Scale, top: f64, depth: u32, span: &Span) {
    let base = top + ROW - 7.0;
    text(svg, MARGIN + 16.0 * f64::from(depth), base, "start", "#111111", &name(span));
    let (x, right) = (scale.x(span.start_ns), scale.x(span.end_ns));
    let width = (right - x).max(THINNEST);
    let fill = match (span.name.as_str(), span.status) {
        (_, 2) => "#d64545",
        ("process", _) => "#5b7db1",
        ("file", _) => "#7fb08a",
        _ => "#e0a84f",
    };
    let (bar, high) = (top + 4.0, ROW - 8.0);
    line(
        svg,
        &format!("<rect x=\"{x:.1}\" y=\"{bar}\" width=\"{width:.1}\" height=\"{high}\" rx=\"2\" fill=\"{fill}\"/>"),
    );
    for event in &span.events {
        let (at, low) = (scale.x(event.at_ns), bar + high);
        let (left, right) = (at - 4.0, at + 4.0);
        line(svg, &format!("<path d=\"M{at:.1} {bar}L{left:.1} {low}H{right:.1}Z\" fill=\"#111111\"/>"));
    }
    let mut words = duration(span.end_ns - span.start_ns);
    for word in span.events.iter().map(fault) {
        write!(words, "  {word}").unwrap_or_default();
    }
    let end = x + width;
    // On the bar where it fills the row, else beside it, on the side with more room.
    if width > TIME / 2.0 {
        text(svg, x + 6.0, base, "start", "#ffffff", &words);
    } else if end - NAMES < TIME * 0.6 {
        text(svg, end + 6.0, base, "start", "#333333", &words);
    } else {
        text(svg, x - 6.0, base, "end", "#333333", &words);
    }
}

fn name(span: &Span) -> String {
    match span.name.as_str() {
        "process" => {
            format!("process {} ({})", span.attribute("process.executable.name"), span.attribute("process.pid"))
        }
        "file" => format!("file {}", span.path()),
        name => match span.attribute("error.type") {
            "" => name.to_owned(),
            error => format!("{name} {error}"),
        },
    }
}

/// An event by its name and what it says first.
fn fault(event: &Event) -> String {
    let said = |key: &str| event.attributes.get(key).cloned();
    let words =
        [Some(event.name.clone()), said("fsi.fault.rule"), said("fsi.fault.errno").or_else(|| said("fsi.fault.kind"))];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Each under its parent, by the time it began, with how deep it is.
fn in_order(spans: &Spans) -> Vec<(u32, &Span)> {
    let known = spans.by_id();
    let mut below: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in &spans.all {
        let parent = if known.contains_key(span.parent.as_str()) { span.parent.as_str() } else { "" };
        below.entry(parent).or_default().push(span);
    }
    for children in below.values_mut() {
        // The next is taken from the end.
        children.sort_by_key(|span| std::cmp::Reverse((span.start_ns, span.id.clone())));
    }
    let mut rows = Vec::new();
    let mut open = vec![(0, "")];
    while let Some((depth, parent)) = open.pop() {
        let Some(span) = below.get_mut(parent).and_then(Vec::pop) else { continue };
        rows.push((depth, span));
        open.extend([(depth, parent), (depth + 1, span.id.as_str())]);
    }
    rows
}

/// Time as places on a line.
struct Scale {
    begin: u64,
    length: u64,
}

impl Scale {
    fn x(&self, at_ns: u64) -> f64 {
        MARGIN + NAMES + TIME * (at_ns.saturating_sub(self.begin) as f64 / self.length as f64)
    }

    /// 1, 2 or 5 of some unit apart, and not many.
    fn ticks(&self) -> impl Iterator<Item = u64> + use<> {
        let steps = (0..19).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10_u64.pow(zeros)));
        let length = self.length;
        let step = steps.into_iter().find(|step| length as f64 / *step as f64 <= MOST_TICKS).unwrap_or(length);
        (0..=length / step).map(move |number| number * step)
    }
}

fn duration(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, color: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    line(svg, &format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>"));
}

fn line(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}
