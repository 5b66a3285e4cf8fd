//! YAML text to a tree in which every node knows its line and column. Aliases, tags and more than one document are refused: a
//! text says what it says where it says it.

use std::iter;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{Position, Problem};

/// Deeper than any text of ours is, and shallow enough for the stack.
const MAX_DEPTH: usize = 16;
/// Far more than 64 rules need.
const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, or a word that means nothing.
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub at: Position,
    pub text: String,
}

impl Value {
    /// What it is, for sentences.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Scalar(text) => format!("`{text}`"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// The one document of the text; nothing when it is empty.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Problem> {
    if text.len() > MAX_BYTES {
        let sentence = format!("the text has {} bytes; write at most {MAX_BYTES}", text.len());
        return Err(Problem { at: Position::START, sentence });
    }
    let mut builder = Builder { parser: Parser::new_from_str(text), last: Position::START };
    let mut document = None;
    loop {
        let (event, at) = builder.next()?;
        match event {
            Event::StreamEnd => return Ok(document),
            Event::DocumentStart(_) if document.is_some() => {
                return Err(Problem { at, sentence: "a second document begins; write one document".to_owned() });
            }
            Event::DocumentStart(_) => {
                let first = builder.next()?;
                document = Some(builder.node(first, 0)?);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::DocumentEnd
            | Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => {}
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    last: Position,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Position), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.last = position(span);
                Ok((event, self.last))
            }
            Some(Err(error)) => {
                let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
                Err(Problem { at, sentence: format!("this is no YAML: {}", error.info()) })
            }
            None => Ok((Event::StreamEnd, self.last)),
        }
    }

    fn node(&mut self, (event, at): (Event<'a>, Position), depth: usize) -> Result<Node, Problem> {
        if depth == MAX_DEPTH {
            let sentence = format!("this is nested more than {MAX_DEPTH} deep; nothing we read is");
            return Err(Problem { at, sentence });
        }
        let refuse =
            |what: &str| Err(Problem { at, sentence: format!("{what} are not taken; write the value out here") });
        let value = match event {
            Event::Alias(_) => return refuse("aliases (`*name`)"),
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return refuse("tags (`!name`)");
            }
            Event::Scalar(text, style, _, None) => match (style, &*text) {
                (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
                _ => Value::Scalar(text.into_owned()),
            },
            Event::SequenceStart(_, None) => Value::List(self.list(depth)?),
            Event::MappingStart(_, None) => Value::Map(self.map(depth)?),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => Value::Null,
        };
        Ok(Node { at, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut nodes = Vec::new();
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::SequenceEnd | Event::StreamEnd) {
                return Ok(nodes);
            }
            nodes.push(self.node(next, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Problem> {
        let mut fields: Vec<(Key, Node)> = Vec::new();
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::MappingEnd | Event::StreamEnd) {
                return Ok(fields);
            }
            let key = self.node(next, depth + 1)?;
            let at = key.at;
            let text = match key.value {
                Value::Scalar(text) => text,
                Value::Null | Value::List(_) | Value::Map(_) => {
                    let sentence = format!("{} cannot be a key; write a word", key.value.kind());
                    return Err(Problem { at, sentence });
                }
            };
            let value = self.next()?;
            let mut value = self.node(value, depth + 1)?;
            if matches!(value.value, Value::Null) {
                // What is not there has no place of its own.
                value.at = at;
            }
            fields.push((Key { at, text }, value));
        }
    }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

/// The word of `allowed` that was probably meant.
pub(crate) fn nearest<'a>(wrong: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let distances = allowed.iter().map(|word| (distance(&wrong, &word.to_lowercase()), *word));
    let (distance, word) = distances.min_by_key(|(distance, _)| *distance)?;
    let most = if word.len() < 4 { 1 } else { 2 };
    (distance <= most).then_some(word)
}

/// How many characters must be changed, added or left out.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, c) in from.chars().enumerate() {
        let mut next = vec![line + 1];
        for (column, wanted) in to.iter().enumerate() {
            let replaced = row[column] + usize::from(c != *wanted);
            next.push(replaced.min(row[column + 1] + 1).min(next[column] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// `a, b or c`, for sentences.
pub(crate) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("`{word}`")).collect();
            iter::once(first.join(", ")).chain([format!("`{last}`")]).collect::<Vec<_>>().join(" or ")
        }
    }
}
