//! The id of a volume: a name of one folder, whatever the caller sends.

use std::fmt;

use ring::digest;

use crate::error::CallError;

/// The longest that CSI allows.
const MOST_BYTES: usize = 128;
/// What ids begin with that stand for a name which is no id itself.
const HASHED: &str = "v-";

/// Never empty, never hidden, and without `/`: joined to a folder it stays in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(String);

impl VolumeId {
    /// An id as a caller sends it.
    ///
    /// # Errors
    /// When no volume can have it.
    pub fn parse(text: &str) -> Result<Self, CallError> {
        if is_id(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(CallError::BadId(text.chars().take(MOST_BYTES).collect()))
        }
    }

    /// The id of the volume of that name: the name where it can be one, else a hash of it.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        // A name that looks like a hash is hashed too, so that no two names share an id.
        if is_id(name) && !name.starts_with(HASHED) {
            return Self(name.to_owned());
        }
        Self(format!("{HASHED}{}", hex(name.as_bytes())))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= MOST_BYTES
        && text.bytes().all(is_plain)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_leaves_its_folder() {
        for trick in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", ".hidden", "-x", "a b", "ä", &"x".repeat(129)] {
            assert!(VolumeId::parse(trick).is_err(), "{trick:?}");
        }
        for good in ["pvc-0a1b", "csi-00ff", "a..b", "A_1.x", &"x".repeat(128)] {
            assert_eq!(VolumeId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn every_name_has_an_id_of_its_own() {
        assert_eq!(VolumeId::of_name("pvc-1").as_str(), "pvc-1");
        let tricky = VolumeId::of_name("../../etc");
        assert!(VolumeId::parse(tricky.as_str()).is_ok());
        assert_ne!(VolumeId::of_name(tricky.as_str()), tricky, "a name that looks like another's hash");
        assert_ne!(VolumeId::of_name("a/b"), VolumeId::of_name("a/c"));
    }
}
