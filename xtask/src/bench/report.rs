//! One row for each thing measured: what, how much, what was wanted; as a table and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Line;
use super::statistics::CALM;

const COLUMNS: usize = 8;

/// What is wanted of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
    Exactly(f64),
    /// Both included.
    Within(f64, f64),
    /// It is told to be compared with, or to watch it.
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Met,
    NotMet,
    NoTarget,
    /// It was not measured, or does not say what it should; why.
    Open(String),
}

/// The loop a row is about, and the ratio of its speed alone to its speed alone again.
pub(super) type AgainstItself = Option<(&'static str, f64)>;

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) line: Line,
    pub(super) what: String,
    pub(super) value: Option<f64>,
    pub(super) unit: &'static str,
    pub(super) target: Target,
    pub(super) verdict: Verdict,
    /// Counted rounds; none for counts.
    pub(super) rounds: Option<usize>,
    pub(super) a_a: AgainstItself,
    /// What else there is to know about the number.
    pub(super) note: Option<String>,
}

impl Target {
    fn judge(self, value: f64) -> Verdict {
        let met = match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Exactly(exact) => value.total_cmp(&exact).is_eq(),
            Self::Within(least, most) => (least..=most).contains(&value),
            Self::None => return Verdict::NoTarget,
        };
        if met { Verdict::Met } else { Verdict::NotMet }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {}", number(least)),
            Self::AtMost(most) => format!("<= {}", number(most)),
            Self::Exactly(exact) => format!("= {}", number(exact)),
            Self::Within(least, most) => format!("{} to {}", number(least), number(most)),
            Self::None => "-".to_owned(),
        }
    }
}

impl Verdict {
    fn words(&self) -> String {
        match self {
            Self::Met => "met".to_owned(),
            Self::NotMet => "NOT MET".to_owned(),
            Self::NoTarget => "-".to_owned(),
            Self::Open(why) => format!("open: {why}"),
        }
    }
}

impl Row {
    /// A number that rounds gave, with the A/A ratio of the loop it is about; none, when no round had it.
    pub(super) fn of_rounds(
        line: Line,
        what: impl Into<String>,
        (measured, a_a): (Option<(f64, usize)>, AgainstItself),
        unit: &'static str,
        target: Target,
    ) -> Self {
        let what = what.into();
        match measured {
            Some((value, rounds)) => {
                let verdict = target.judge(value);
                Self { line, what, value: Some(value), unit, target, verdict, rounds: Some(rounds), a_a, note: None }
            }
            None => Self::open(line, what, target, "nothing was measured"),
        }
    }

    /// A count, or what one run says.
    pub(super) fn counted(line: Line, what: impl Into<String>, value: f64, unit: &'static str, target: Target) -> Self {
        let verdict = target.judge(value);
        Self { line, what: what.into(), value: Some(value), unit, target, verdict, rounds: None, a_a: None, note: None }
    }

    pub(super) fn open(line: Line, what: impl Into<String>, target: Target, why: &str) -> Self {
        let verdict = Verdict::Open(why.to_owned());
        Self { line, what: what.into(), value: None, unit: "", target, verdict, rounds: None, a_a: None, note: None }
    }

    pub(super) fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    fn is_restless(&self) -> bool {
        self.a_a.is_some_and(|(_, a_a)| !CALM.contains(&a_a))
    }

    fn cells(&self) -> [String; COLUMNS] {
        let dash = || "-".to_owned();
        let mark = if self.is_restless() { " !" } else { "" };
        [
            format!("{:?}", self.line),
            self.what.clone(),
            self.value.map_or_else(dash, |value| format!("{} {}", number(value), self.unit).trim().to_owned()),
            self.target.words(),
            self.verdict.words(),
            self.a_a.map_or_else(dash, |(_, a_a)| format!("{a_a:.3}{mark}")),
            self.rounds.map_or_else(dash, |rounds| rounds.to_string()),
            self.note.clone().unwrap_or_default(),
        ]
    }

    fn json(&self) -> Value {
        let (relation, target) = match self.target {
            Target::AtLeast(least) => (Some(">="), json!(least)),
            Target::AtMost(most) => (Some("<="), json!(most)),
            Target::Exactly(exact) => (Some("="), json!(exact)),
            Target::Within(least, most) => (Some("within"), json!([least, most])),
            Target::None => (None, Value::Null),
        };
        let (verdict, reason) = match &self.verdict {
            Verdict::Met => ("met", None),
            Verdict::NotMet => ("not met", None),
            Verdict::NoTarget => ("no target", None),
            Verdict::Open(why) => ("open", Some(why)),
        };
        json!({
            "id": format!("{:?}", self.line), "what": self.what, "value": self.value, "unit": self.unit,
            "relation": relation, "target": target, "verdict": verdict, "reason": reason,
            "rounds": self.rounds, "a_a": self.a_a.map(|(_, ratio)| ratio), "loop": self.a_a.map(|(name, _)| name), "restless": self.is_restless(), "note": self.note,
        })
    }
}

/// As many digits as a person compares.
fn number(value: f64) -> String {
    let size = value.abs();
    if size.fract() == 0.0 || size >= 1000.0 {
        grouped(&format!("{value:.0}"))
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.1 {
        format!("{value:.3}")
    } else {
        format!("{value:.5}")
    }
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let mut grouped = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The table, in Markdown that is aligned for the terminal too.
pub(super) fn table(rows: &[Row]) -> String {
    let mut cells =
        vec![["id", "measured", "value", "target", "verdict", "A/A", "rounds", "remark"].map(str::to_owned)];
    cells.extend(rows.iter().map(Row::cells));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut table = String::new();
    for (index, row) in cells.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            write!(table, "| {cell:<width$} ").unwrap_or_default();
        }
        table.push_str("|\n");
        if index == 0 {
            widths.iter().for_each(|width| table.push_str(&format!("|{}", "-".repeat(width + 2))));
            table.push_str("|\n");
        }
    }
    table
}

/// What must be said about the run as a whole.
pub(super) fn remarks(rows: &[Row], counted_rounds: usize) -> Vec<String> {
    let mut remarks = Vec::new();
    let restless: BTreeSet<String> = rows
        .iter()
        .filter(|row| row.is_restless())
        .filter_map(|row| row.a_a.map(|(name, a_a)| format!("{name} {a_a:.3}")))
        .collect();
    if !restless.is_empty() {
        remarks.push(format!(
            "This machine was too restless: the same load against itself is outside 0.95 to 1.05 (marked `!`), so what \
             stands beside it is not to be relied on: {}.",
            restless.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    if counted_rounds < 7 && rows.iter().any(|row| row.rounds.is_some()) {
        remarks.push(format!("Only {counted_rounds} rounds were counted; 7 or more make a result."));
    }
    let of = |verdict: &Verdict| rows.iter().filter(|row| row.verdict == *verdict).count();
    let open = rows.iter().filter(|row| matches!(row.verdict, Verdict::Open(_))).count();
    remarks.push(format!("{} met, {} not met, {open} open", of(&Verdict::Met), of(&Verdict::NotMet)));
    remarks
}

/// Everything, for programs.
pub(super) fn document(rows: &[Row], remarks: &[String], rounds: Value, machine: Value) -> Value {
    json!({
        "schema": "fsi.bench/1",
        "machine": machine,
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "remarks": remarks,
        "rounds_ns": rounds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, target: Target, a_a: f64) -> Row {
        Row::of_rounds(Line::O1, "open", (Some((value, 8)), Some(("open", a_a))), "x", target)
    }

    #[test]
    fn numbers_are_judged_by_their_target() {
        assert_eq!(row(0.7, Target::AtLeast(0.7), 1.0).verdict, Verdict::Met);
        assert_eq!(row(601.0, Target::AtMost(600.0), 1.0).verdict, Verdict::NotMet);
        assert_eq!(row(0.0, Target::Exactly(0.0), 1.0).verdict, Verdict::Met);
        assert_eq!(row(5.0, Target::None, 1.0).verdict, Verdict::NoTarget);
        let nothing = Row::of_rounds(Line::O1, "open", (None, None), "x", Target::None);
        assert!(matches!(nothing.verdict, Verdict::Open(_)));
    }

    #[test]
    fn a_restless_run_says_so_in_words() {
        let calm = remarks(&[row(1.0, Target::None, 1.04)], 8);
        assert_eq!(calm, ["0 met, 0 not met, 0 open"]);
        let restless = remarks(&[row(1.0, Target::None, 0.94)], 6);
        assert!(restless[0].contains("too restless") && restless[0].contains("open 0.940."), "{restless:?}");
        assert!(restless[1].contains("6 rounds"), "{restless:?}");
        assert!(table(&[row(1.0, Target::None, 0.94)]).contains("0.940 !"));
    }

    #[test]
    fn numbers_have_as_many_digits_as_one_compares() {
        let shown = [501_004.0, 0.0, 1234.5, 56.78, 0.7061, 0.003_57, -12_000.0].map(number);
        assert_eq!(shown, ["501,004", "0", "1,234", "56.8", "0.706", "0.00357", "-12,000"]);
    }

    #[test]
    fn the_json_has_what_the_table_has() {
        let document = document(&[row(0.7, Target::AtLeast(0.65), 1.0)], &[], Value::Null, Value::Null);
        let row = &document["rows"][0];
        assert_eq!(
            (&row["id"], &row["verdict"], &row["target"], &row["rounds"]),
            (&json!("O1"), &json!("met"), &json!(0.65), &json!(8))
        );
    }
}
