//! The text of a glob to tokens, and its `{a,b}` to all alternatives. Knows nothing of positions.

use super::GlobStyle;

/// What is wrong with a glob, and what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobProblem {
    #[error("it is empty; write `**` for everything")]
    Empty,
    #[error("`[` has no closing `]`; write `\\[` for a plain bracket")]
    OpenSet,
    #[error("the range ends before it begins; write the smaller character first, as in `[a-z]`")]
    BackwardRange,
    #[error("only ASCII characters can stand between `[` and `]`; write `{{ä,ö}}` for others")]
    WideSet,
    #[error("`/` cannot stand between `[` and `]` of a path; write it outside")]
    SlashInSet,
    #[error("`{{` has no closing `}}`; write `\\{{` for a plain brace")]
    OpenChoice,
    #[error("`}}` closes nothing; write `\\}}` for a plain brace")]
    StrayClose,
    #[error("`\\` is the last character, with nothing to make plain; write `\\\\` for a backslash")]
    LastBackslash,
    #[error(
        "a path never ends with `/`; write `**` behind it for everything below, or leave the `/` out for the directory itself"
    )]
    TrailingSlash,
    #[error("`{{` is nested more than 16 deep; write the alternatives side by side")]
    TooDeep,
}

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(super) fn one(byte: u8) -> Self {
        let mut set = Self::default();
        set.add(byte);
        set
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] &= !(1 << (byte % 64));
    }

    fn inverted(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |byte| self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1)
    }
}

/// One thing a glob says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Byte(u8),
    Set(ByteSet),
    /// `*`
    Star,
    /// `**`
    Stars,
}

/// A token, or a choice between sequences.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Token(Token),
    Choice(Vec<Vec<Self>>),
}

/// Braces in braces; more is a mistake, and it bounds the recursion.
const MAX_DEPTH: usize = 16;

/// Column (from 1) and problem.
type Fault = (usize, GlobProblem);

pub(super) fn parse(glob: &str, style: GlobStyle) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser { chars: glob.chars().collect(), at: 0, style };
    if parser.chars.is_empty() {
        return Err((1, GlobProblem::Empty));
    }
    let trailing_slash = glob.len() > 1 && glob.ends_with('/');
    if style == GlobStyle::Path && trailing_slash {
        return Err((parser.chars.len(), GlobProblem::TrailingSlash));
    }
    let nodes = parser.sequence(0)?;
    match parser.peek() {
        None => Ok(nodes),
        // A sequence ends early only at the `}` or `,` of a choice it is not in; a `,` out there is plain.
        Some(_) => Err((parser.at + 1, GlobProblem::StrayClose)),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    style: GlobStyle,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut nodes = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                '}' => break,
                ',' if depth > 0 => break,
                '{' => nodes.push(self.choice(depth)?),
                '[' => nodes.push(Node::Token(Token::Set(self.set()?))),
                '*' => nodes.push(Node::Token(self.stars())),
                '?' => {
                    self.at += 1;
                    nodes.push(Node::Token(Token::Set(self.restricted(ByteSet::default().inverted()))));
                }
                '\\' => {
                    self.at += 1;
                    let plain = self.peek().ok_or((self.at, GlobProblem::LastBackslash))?;
                    self.plain(plain, &mut nodes);
                }
                plain => self.plain(plain, &mut nodes),
            }
        }
        Ok(nodes)
    }

    fn plain(&mut self, c: char, nodes: &mut Vec<Node>) {
        self.at += 1;
        let mut buffer = [0; 4];
        nodes.extend(c.encode_utf8(&mut buffer).bytes().map(|byte| Node::Token(Token::Byte(byte))));
    }

    fn stars(&mut self) -> Token {
        let start = self.at;
        while self.take('*') {}
        if self.at - start == 1 { Token::Star } else { Token::Stars }
    }

    fn choice(&mut self, depth: usize) -> Result<Node, Fault> {
        let open = self.at + 1;
        if depth == MAX_DEPTH {
            return Err((open, GlobProblem::TooDeep));
        }
        self.at += 1;
        let mut branches = vec![self.sequence(depth + 1)?];
        while self.take(',') {
            branches.push(self.sequence(depth + 1)?);
        }
        if !self.take('}') {
            return Err((open, GlobProblem::OpenChoice));
        }
        Ok(Node::Choice(branches))
    }

    /// `[...]`; a `]` right after the opening is a member.
    fn set(&mut self) -> Result<ByteSet, Fault> {
        let open = self.at + 1;
        self.at += 1;
        let negated = self.take('!') || self.take('^');
        let mut set = ByteSet::default();
        let mut first = true;
        loop {
            if !first && self.take(']') {
                break;
            }
            first = false;
            let (low, column) = self.member(open)?;
            let is_range = self.peek() == Some('-') && !matches!(self.chars.get(self.at + 1), Some(']') | None);
            let high = if is_range {
                self.at += 1;
                self.member(open)?.0
            } else {
                low
            };
            if high < low {
                return Err((column, GlobProblem::BackwardRange));
            }
            for byte in low..=high {
                set.add(byte);
            }
        }
        Ok(self.restricted(if negated { set.inverted() } else { set }))
    }

    /// One character of a set, and its column.
    fn member(&mut self, open: usize) -> Result<(u8, usize), Fault> {
        if self.take('\\') && self.peek().is_none() {
            return Err((self.at, GlobProblem::LastBackslash));
        }
        let c = self.peek().ok_or((open, GlobProblem::OpenSet))?;
        self.at += 1;
        if c == '/' && self.style == GlobStyle::Path {
            return Err((self.at, GlobProblem::SlashInSet));
        }
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => Ok((byte, self.at)),
            Ok(_) | Err(_) => Err((self.at, GlobProblem::WideSet)),
        }
    }

    /// A set never takes the `/` of a path.
    fn restricted(&self, mut set: ByteSet) -> ByteSet {
        if self.style == GlobStyle::Path {
            set.remove(b'/');
        }
        set
    }
}

/// All sequences without choices, or nothing when there are more than `most`.
pub(super) fn expand(nodes: &[Node], most: usize) -> Option<Vec<Vec<Token>>> {
    let mut all = vec![Vec::new()];
    for node in nodes {
        match node {
            Node::Token(token) => all.iter_mut().for_each(|sequence| sequence.push(*token)),
            Node::Choice(branches) => {
                let mut tails = Vec::new();
                for branch in branches {
                    tails.extend(expand(branch, most)?);
                }
                if all.len() * tails.len() > most {
                    return None;
                }
                all = all.iter().flat_map(|head| tails.iter().map(|tail| [&head[..], tail].concat())).collect();
            }
        }
    }
    Some(all)
}
