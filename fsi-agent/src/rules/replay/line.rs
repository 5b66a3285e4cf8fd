//! The fault log as lines: one JSON object each. A path that is UTF-8 is `path`; one that is not is `path_hex`, so that no byte of
//! it is lost.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rules::decision::{Corrupt, Corruption, Effect, Fault, FaultEntry, FaultKind};
use crate::rules::errno;
use crate::rules::op::Op;

/// Why a line is no entry of a fault log.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("line {line} of the fault log is no entry: {source}")]
    Json { line: usize, source: serde_json::Error },
    #[error("line {line} of the fault log names the {what} `{name}`, which this version does not know")]
    Unknown { line: usize, what: &'static str, name: String },
    #[error(
        "line {line} of the fault log has no path: one of `path` and `path_hex` (two hexadecimal digits for each byte) is needed"
    )]
    Path { line: usize },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sequence: u64,
    unix_ns: u64,
    rule: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    delay_ns: u64,
    op: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    ordinal: u64,
    ino: u64,
    pid: u32,
    uid: u32,
    offset: u64,
    asked: u64,
    done: u64,
    effect: EffectWords,
}

/// An [`Effect`] in words.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum EffectWords {
    Done,
    Fail(String),
    Abort,
    Short(u64),
    Torn(u64),
    BitFlip { bits: u32, seed: u64 },
    Zero { bytes: u64, seed: u64 },
    Random { bytes: u64, seed: u64 },
    Pattern { bytes: u64, hex: String, seed: u64 },
    FailFsync(String),
    LieFsync,
}

/// The entry as one line, without its end.
#[must_use]
pub fn write(entry: &FaultEntry) -> String {
    let FaultEntry { sequence, unix_ns, fault, op, path, ordinal, ino, pid, uid, offset, asked, done, effect } = entry;
    let text = std::str::from_utf8(path).ok().map(str::to_owned);
    let line = Line {
        sequence: *sequence,
        unix_ns: *unix_ns,
        rule: fault.rule.to_string(),
        kind: fault.kind.name().to_owned(),
        errno: fault.errno.map(errno::name),
        delay_ns: u64::try_from(fault.delay.as_nanos()).unwrap_or(u64::MAX),
        op: op.name().to_owned(),
        path_hex: text.is_none().then(|| to_hex(path)),
        path: text,
        ordinal: *ordinal,
        ino: *ino,
        pid: *pid,
        uid: *uid,
        offset: *offset,
        asked: *asked,
        done: *done,
        effect: words(effect),
    };
    serde_json::to_string(&line).expect("texts and numbers can always be written")
}

/// Every entry of a log; empty lines are passed over.
///
/// # Errors
/// A line is no entry.
pub fn read_all(text: &str) -> Result<Vec<FaultEntry>, LineError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| read(index + 1, line)).collect()
}

/// One entry; the number of the line is for the sentence.
///
/// # Errors
/// The line is no entry.
pub fn read(line: usize, text: &str) -> Result<FaultEntry, LineError> {
    let words: Line = serde_json::from_str(text).map_err(|source| LineError::Json { line, source })?;
    let unknown = |what, name: &str| LineError::Unknown { line, what, name: name.to_owned() };
    let errno = |name: &str| number(name).ok_or_else(|| unknown("errno", name));
    let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == words.kind);
    let path = match (words.path, words.path_hex) {
        (Some(path), None) => Some(path.into_bytes()),
        (None, Some(hex)) => from_hex(&hex),
        (Some(_), Some(_)) | (None, None) => None,
    };
    let effect = match words.effect {
        EffectWords::Done => Effect::Done,
        EffectWords::Fail(name) => Effect::Fail(errno(&name)?),
        EffectWords::Abort => Effect::Abort,
        EffectWords::Short(bytes) => Effect::Short(bytes),
        EffectWords::Torn(bytes) => Effect::Torn(bytes),
        EffectWords::BitFlip { bits, seed } => corrupt(Corrupt::BitFlip { bits }, seed),
        EffectWords::Zero { bytes, seed } => corrupt(Corrupt::Zero { bytes }, seed),
        EffectWords::Random { bytes, seed } => corrupt(Corrupt::Random { bytes }, seed),
        EffectWords::Pattern { bytes, hex, seed } => {
            let pattern = from_hex(&hex).ok_or_else(|| unknown("pattern", &hex))?;
            corrupt(Corrupt::Pattern { bytes, pattern }, seed)
        }
        EffectWords::FailFsync(name) => Effect::FailFsync(errno(&name)?),
        EffectWords::LieFsync => Effect::LieFsync,
    };
    Ok(FaultEntry {
        sequence: words.sequence,
        unix_ns: words.unix_ns,
        fault: Fault {
            rule: Arc::from(words.rule),
            kind: kind.ok_or_else(|| unknown("kind of fault", &words.kind))?,
            errno: words.errno.as_deref().map(errno).transpose()?,
            delay: Duration::from_nanos(words.delay_ns),
        },
        op: Op::from_name(&words.op).ok_or_else(|| unknown("operation", &words.op))?,
        path: Arc::from(path.ok_or(LineError::Path { line })?),
        ordinal: words.ordinal,
        ino: words.ino,
        pid: words.pid,
        uid: words.uid,
        offset: words.offset,
        asked: words.asked,
        done: words.done,
        effect,
    })
}

fn words(effect: &Effect) -> EffectWords {
    match effect {
        Effect::Done => EffectWords::Done,
        Effect::Fail(number) => EffectWords::Fail(errno::name(*number)),
        Effect::Abort => EffectWords::Abort,
        Effect::Short(bytes) => EffectWords::Short(*bytes),
        Effect::Torn(bytes) => EffectWords::Torn(*bytes),
        Effect::Corrupt(Corruption { how, seed }) => corruption_words(how, *seed),
        Effect::FailFsync(number) => EffectWords::FailFsync(errno::name(*number)),
        Effect::LieFsync => EffectWords::LieFsync,
    }
}

fn corruption_words(how: &Corrupt, seed: u64) -> EffectWords {
    match how {
        Corrupt::BitFlip { bits } => EffectWords::BitFlip { bits: *bits, seed },
        Corrupt::Zero { bytes } => EffectWords::Zero { bytes: *bytes, seed },
        Corrupt::Random { bytes } => EffectWords::Random { bytes: *bytes, seed },
        Corrupt::Pattern { bytes, pattern } => EffectWords::Pattern { bytes: *bytes, hex: to_hex(pattern), seed },
    }
}

fn corrupt(how: Corrupt, seed: u64) -> Effect {
    Effect::Corrupt(Corruption { how, seed })
}

/// The errno of a name, or of digits where it has none.
fn number(name: &str) -> Option<i32> {
    errno::number(name).or_else(|| name.parse().ok())
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

/// Two digits for each byte.
pub(in crate::rules) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    if digits.len() % 2 != 0 {
        return None;
    }
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}
