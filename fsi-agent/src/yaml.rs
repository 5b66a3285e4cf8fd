//! YAML with a place for every mistake: a text to a tree, the tree to values, each problem with line, column and what would be right.
//!
//! Nothing unknown is passed over, and a text with a problem gives nothing at all.

mod fields;
mod tree;

use std::fmt;

pub(crate) use fields::{Fields, Reader, meant};
pub(crate) use tree::{Key, Node, Value, listed};

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {sentence}", at.line, at.column)]
pub struct Problem {
    pub at: Position,
    pub sentence: String,
}

/// Everything that is wrong, in the order of the text; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads a text of one document with `whole`, which reports to the reader what is wrong.
///
/// # Errors
/// Something is wrong; nothing is taken of a text in which anything is.
pub(crate) fn read<T>(text: &str, whole: impl FnOnce(&mut Reader, &Node) -> Option<T>) -> Result<T, Problems> {
    let root = tree::parse(text).map_err(|problem| Problems(vec![problem]))?;
    let mut reader = Reader::default();
    let value = if let Some(node) = &root {
        whole(&mut reader, node)
    } else {
        reader.wrong(Position::START, "the text is empty; write at least `version: 1`".to_owned());
        None
    };
    let mut problems = reader.problems;
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        Some(_) | None => {
            problems.sort_by_key(|problem| problem.at);
            Err(Problems(problems))
        }
    }
}
