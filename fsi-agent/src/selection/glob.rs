//! Globs compiled to the automaton that the kernel runs (`fsi_common::glob`).
//!
//! `*` takes anything but `/`, `**` anything, `**/` as a whole component zero or more directories, `?` one byte, `[a-z]` and
//! `[!a-z]` one byte of a set, `{a,b}` either, `\` makes the next character plain. A path glob that does not begin with `/`
//! matches at any depth. In a name `/` is nothing special and `*` takes everything.

mod parse;

use fsi_common::glob::{Automaton, POSITIONS, Positions, WORDS};

use crate::probe::options::GlobList;

pub use parse::GlobProblem;
use parse::{ByteSet, Token};

/// The kernel keeps no more of a command name.
const NAME_BYTES: usize = 15;

/// What a glob is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobStyle {
    /// A path: `*` and `?` stop at `/`.
    Path,
    /// A command name.
    Name,
}

/// Why a list of globs cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// The glob is not one.
    #[error("glob `{glob}`, column {column}: {problem}")]
    Syntax { glob: String, column: usize, problem: GlobProblem },
    /// The kernel's automaton has a fixed size.
    #[error(
        "glob `{glob}`: all globs together may use {POSITIONS} positions (about one per character, and each of `{{a,b}}` \
         counted on its own) and this one goes over; use fewer or shorter globs"
    )]
    TooBig { glob: String },
    /// It could never match.
    #[error(
        "glob `{glob}`: command names end after {NAME_BYTES} bytes in the kernel, so this matches none; write `{prefix}*`"
    )]
    NameTooLong { glob: String, prefix: String },
}

/// One position of the automaton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// One byte of a set.
    Take(ByteSet),
    /// Any bytes of one component.
    Star,
    /// Any bytes.
    Any,
    /// Nothing, or bytes that end with `/`.
    Directories,
}

/// Compiles both lists into one automaton.
///
/// # Errors
/// A glob is malformed, can never match, or all together are too big.
pub fn compile(list: &GlobList, style: GlobStyle) -> Result<Box<Automaton>, GlobError> {
    let mut builder = Builder { automaton: Box::new(Automaton::EMPTY), used: 0 };
    for glob in &list.include {
        builder.glob(glob, style, End::Include)?;
    }
    for glob in &list.exclude {
        builder.glob(glob, style, End::Exclude)?;
    }
    Ok(builder.automaton)
}

/// Runs an automaton over a whole path or name, as the kernel does.
#[must_use]
pub fn matches(automaton: &Automaton, bytes: &[u8]) -> bool {
    let mut state = [0; WORDS];
    automaton.begin(&mut state);
    for byte in bytes {
        automaton.advance(&mut state, *byte);
    }
    automaton.selected(&state)
}

#[derive(Clone, Copy)]
enum End {
    Include,
    Exclude,
}

struct Builder {
    automaton: Box<Automaton>,
    used: usize,
}

impl Builder {
    fn glob(&mut self, glob: &str, style: GlobStyle, end: End) -> Result<(), GlobError> {
        let too_big = || GlobError::TooBig { glob: glob.to_owned() };
        let parsed = parse::parse(glob, style).map_err(|(column, problem)| GlobError::Syntax {
            glob: glob.to_owned(),
            column,
            problem,
        })?;
        // Every alternative needs a position at least, so more than that many cannot fit.
        let alternatives = parse::expand(&parsed, POSITIONS).ok_or_else(too_big)?;
        for tokens in alternatives {
            let elements = elements(&tokens, style);
            if style == GlobStyle::Name {
                name_can_match(glob, &tokens)?;
            }
            if self.used + elements.len() + 1 > POSITIONS {
                return Err(too_big());
            }
            self.append(&elements, end);
        }
        Ok(())
    }

    fn append(&mut self, elements: &[Element], end: End) {
        let automaton = &mut *self.automaton;
        set(&mut automaton.start, self.used);
        for element in elements {
            let position = self.used;
            match element {
                Element::Take(bytes) => {
                    for byte in bytes.iter() {
                        set(&mut automaton.step[usize::from(byte)], position);
                    }
                }
                Element::Star => {
                    set(&mut automaton.stay, position);
                    set(&mut automaton.skip_on_entry, position);
                    set(&mut automaton.skip_on_stay, position);
                }
                Element::Any => {
                    set(&mut automaton.stay, position);
                    set(&mut automaton.stay_slash, position);
                    set(&mut automaton.skip_on_entry, position);
                    set(&mut automaton.skip_on_stay, position);
                }
                // It may be nothing, so it is skipped on entry; once it holds bytes only a `/` ends it.
                Element::Directories => {
                    set(&mut automaton.step[usize::from(b'/')], position);
                    set(&mut automaton.stay, position);
                    set(&mut automaton.stay_slash, position);
                    set(&mut automaton.skip_on_entry, position);
                }
            }
            self.used += 1;
        }
        match end {
            End::Include => set(&mut automaton.include, self.used),
            End::Exclude => set(&mut automaton.exclude, self.used),
        }
        self.used += 1;
    }
}

fn set(positions: &mut Positions, position: usize) {
    debug_assert!(position < WORDS * 64);
    positions[position / 64] |= 1 << (position % 64);
}

/// The positions of one alternative. What can be passed without a byte is merged, so that at most two such positions stand
/// side by side (`**/` and a star), which is what the automaton closes over; `**/` follows only a `/` or the start.
fn elements(tokens: &[Token], style: GlobStyle) -> Vec<Element> {
    let mut elements = Vec::with_capacity(tokens.len() + 1);
    let rooted = tokens.first() == Some(&Token::Byte(b'/'));
    if style == GlobStyle::Path && !rooted {
        elements.push(Element::Directories);
    }
    let mut at_component_start = true;
    let mut rest = tokens.iter().peekable();
    while let Some(token) = rest.next() {
        let mut next_starts_component = false;
        match token {
            Token::Byte(byte) => {
                elements.push(Element::Take(ByteSet::one(*byte)));
                next_starts_component = *byte == b'/';
            }
            Token::Set(bytes) => elements.push(Element::Take(*bytes)),
            Token::Star if style == GlobStyle::Name => push_star(&mut elements, Element::Any),
            Token::Star => push_star(&mut elements, Element::Star),
            Token::Stars => {
                let whole = style == GlobStyle::Path && at_component_start;
                if whole && rest.next_if(|next| **next == Token::Byte(b'/')).is_some() {
                    if elements.last() != Some(&Element::Directories) {
                        elements.push(Element::Directories);
                    }
                    next_starts_component = true;
                } else {
                    push_star(&mut elements, Element::Any);
                }
            }
        }
        at_component_start = next_starts_component;
    }
    elements
}

/// A star beside a star is the wider of both.
fn push_star(elements: &mut Vec<Element>, star: Element) {
    match elements.last_mut() {
        Some(last @ Element::Star) => *last = star,
        Some(Element::Any) => {}
        Some(Element::Take(_) | Element::Directories) | None => elements.push(star),
    }
}

fn name_can_match(glob: &str, tokens: &[Token]) -> Result<(), GlobError> {
    let least = tokens.iter().filter(|token| matches!(token, Token::Byte(_) | Token::Set(_))).count();
    if least <= NAME_BYTES {
        return Ok(());
    }
    let prefix = glob.chars().take_while(|c| c.is_ascii() && !"*?[{\\".contains(*c)).take(NAME_BYTES - 1).collect();
    Err(GlobError::NameTooLong { glob: glob.to_owned(), prefix })
}

#[cfg(test)]
mod tests;
