//! What of paths leaves the node: all, a keyed hash of each component, or the first few components.

use std::sync::Arc;

use ring::hmac::{self, HMAC_SHA256, Key};
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;

use crate::config::{PathPrivacy, Privacy, SecretError};
use crate::span::{Path, Span, SpanBody};

/// Bytes of the hash of a component: among a million names two have the same one in three of a hundred million cases.
const HASH_BYTES: usize = 8;
/// What stands for components that are cut off.
const CUT: &[u8] = b"...";

/// Rewrites paths; once, before anything that exports.
#[derive(Clone, Debug)]
pub struct PathFilter {
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    Full,
    Hash(Key),
    Cut(usize),
}

/// Why there is no filter.
#[derive(Debug, Error)]
pub enum PrivacyError {
    #[error("the key of `privacy`: {0}")]
    Key(#[from] SecretError),
    #[error(
        "the key of `privacy` is shorter than 16 bytes: whoever guesses it can guess the paths; write a longer one"
    )]
    Short,
    #[error("the system gave no random numbers for the key of `privacy`")]
    Random,
}

impl PathFilter {
    /// As configured; without a key a new one is made, and the hashes of two agents have nothing in common.
    ///
    /// # Errors
    /// The key is not to be had.
    pub fn new(privacy: &Privacy) -> Result<Self, PrivacyError> {
        let how = match privacy.paths {
            PathPrivacy::Full => How::Full,
            PathPrivacy::Cut { components } => How::Cut(components),
            PathPrivacy::Hash => How::Hash(match &privacy.key {
                None => {
                    let mut bytes = [0; 32];
                    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| PrivacyError::Random)?;
                    Key::new(HMAC_SHA256, &bytes)
                }
                Some(secret) => {
                    let text = secret.get()?;
                    if text.len() < 16 {
                        return Err(PrivacyError::Short);
                    }
                    Key::new(HMAC_SHA256, text.as_bytes())
                }
            }),
        };
        Ok(Self { how })
    }

    /// Paths leave as they are.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self.how, How::Full)
    }

    /// The span with its paths as they may leave.
    #[must_use]
    pub fn apply(&self, mut span: Span) -> Span {
        let paths = match &mut span.body {
            SpanBody::Process(_) => [None, None],
            SpanBody::File(file) => [file.path.as_mut(), None],
            SpanBody::Operation(operation) => [operation.path.as_mut(), operation.target.as_mut()],
        };
        for path in paths.into_iter().flatten() {
            self.path(path);
        }
        // Faults carry the path for the fault log; in a span nothing reads it.
        if let SpanBody::Operation(operation) = &mut span.body
            && !self.is_full()
            && let Some(interposed) = &mut operation.interposed
        {
            for fault in &mut interposed.faults {
                fault.path = self.bytes(&fault.path);
            }
        }
        span
    }

    fn path(&self, path: &mut Path) {
        if !self.is_full() {
            path.bytes = self.bytes(&path.bytes);
        }
    }

    fn bytes(&self, path: &Arc<[u8]>) -> Arc<[u8]> {
        match &self.how {
            How::Full => Arc::clone(path),
            How::Hash(key) => hashed(key, path),
            How::Cut(components) => cut(path, *components),
        }
    }
}

/// Each component for itself: what is in one directory stays together, and `.` and `..` say nothing.
fn hashed(key: &Key, path: &[u8]) -> Arc<[u8]> {
    let mut text = Vec::with_capacity(path.len() * 2);
    for (index, component) in path.split(|byte| *byte == b'/').enumerate() {
        if index > 0 {
            text.push(b'/');
        }
        if matches!(component, b"" | b"." | b"..") {
            text.extend_from_slice(component);
            continue;
        }
        let hash = hmac::sign(key, component);
        for byte in &hash.as_ref()[..HASH_BYTES] {
            text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    Arc::from(text)
}

fn cut(path: &Arc<[u8]>, components: usize) -> Arc<[u8]> {
    let mut left = components;
    let mut at = 0;
    for component in path.split(|byte| *byte == b'/') {
        if !component.is_empty() {
            let Some(fewer) = left.checked_sub(1) else {
                return [&path[..at], CUT].concat().into();
            };
            left = fewer;
        }
        at += component.len() + 1;
    }
    Arc::clone(path)
}

#[cfg(test)]
mod tests {
    use fsi_common::op::OpKind;
    use fsi_common::record::PathState;

    use super::*;
    use crate::config::Secret;
    use crate::telemetry::samples;

    fn filter(paths: PathPrivacy, key: Option<&str>) -> PathFilter {
        let key = key.map(|key| Secret::Text(key.to_owned()));
        PathFilter::new(&Privacy { paths, key }).unwrap()
    }

    fn leaves(filter: &PathFilter, path: &str) -> String {
        let mut span = samples::op(OpKind::Rename, 0, samples::path(path.as_bytes(), PathState::Resolved));
        let SpanBody::Operation(operation) = &mut span.body else { unreachable!() };
        operation.target = Some(samples::path(path.as_bytes(), PathState::Resolved));
        let SpanBody::Operation(operation) = filter.apply(span).body else { unreachable!() };
        assert_eq!(operation.path, operation.target, "both paths are rewritten");
        String::from_utf8(operation.path.unwrap().bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_full_path_stays() {
        assert_eq!(leaves(&filter(PathPrivacy::Full, None), "/home/ann/x"), "/home/ann/x");
    }

    #[test]
    fn a_hash_keeps_the_shape_and_hides_the_names() {
        let one = filter(PathPrivacy::Hash, Some("0123456789abcdef"));
        let path = leaves(&one, "/home/ann/home/../x.txt");
        let parts: Vec<&str> = path.split('/').collect();
        assert_eq!((parts[0], parts[4], parts.len()), ("", "..", 6));
        assert_eq!((parts[1], parts[1].len()), (parts[3], 16), "the same name has the same hash");
        assert!(parts[1] != parts[2] && !path.contains("ann"), "{path}");
        // HMAC-SHA256 of `home` under that key, as openssl has it.
        assert_eq!(parts[1], "dc22a4a4cab30a1c");
        assert_eq!(leaves(&filter(PathPrivacy::Hash, Some("0123456789abcdef")), "/home"), format!("/{}", parts[1]));
        assert_ne!(leaves(&filter(PathPrivacy::Hash, Some("another key, as long")), "/home"), format!("/{}", parts[1]));
        assert_ne!(leaves(&filter(PathPrivacy::Hash, None), "/a"), leaves(&filter(PathPrivacy::Hash, None), "/a"));
    }

    #[test]
    fn a_cut_leaves_the_first_components() {
        let two = filter(PathPrivacy::Cut { components: 2 }, None);
        for (path, left) in [
            ("/var/lib/db/base/1", "/var/lib/..."),
            ("/var/lib", "/var/lib"),
            ("/var/lib/", "/var/lib/"),
            ("/var/", "/var/"),
            ("//var//lib//x", "//var//lib//..."),
            ("a/b/c", "a/b/..."),
            ("", ""),
        ] {
            assert_eq!(leaves(&two, path), left, "{path}");
        }
        assert_eq!(leaves(&filter(PathPrivacy::Cut { components: 0 }, None), "/var/x"), "/...");
    }

    #[test]
    fn a_key_that_can_be_guessed_is_refused() {
        let short = Privacy { paths: PathPrivacy::Hash, key: Some(Secret::Text("short".to_owned())) };
        assert!(PathFilter::new(&short).unwrap_err().to_string().contains("shorter than 16 bytes"));
        let missing = Privacy { paths: PathPrivacy::Hash, key: Some(Secret::Env("FSI_NO_SUCH_VARIABLE".to_owned())) };
        assert!(PathFilter::new(&missing).unwrap_err().to_string().contains("`FSI_NO_SUCH_VARIABLE` is not set"));
    }
}
