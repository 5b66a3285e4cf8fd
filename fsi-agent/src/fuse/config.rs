//! What a mount was asked to be: made once by `fsi mount`, handed by the keeper to every server.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys::mount::{Device, Forbids};

/// A mount's configuration. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    pub source: FilePath,
    pub target: FilePath,
    /// What the volume is called, where it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Whose the volume is, where there are namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The numbers of the mounted file system; the keeper knows them once it has mounted.
    pub device_major: u32,
    pub device_minor: u32,
    pub keeper_pid: u32,
    /// Where the rules were read from. Their text is in the state: it changes while the mount lives.
    pub rules: Option<FilePath>,
    /// The rules to start with; only between `fsi mount` and the keeper, which moves them to the state.
    pub rules_text: String,
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub threads: usize,
    pub attr_timeout: Duration,
    /// Whether unconcerned files are read and written in the kernel, where it can.
    pub passthrough: bool,
    pub replay: Option<FilePath>,
    pub fault_log: Option<FilePath>,
    pub otlp: Option<String>,
    pub spans: Option<FilePath>,
    pub metrics: Option<FilePath>,
    /// Whether the node's agent is told, when there is one.
    #[serde(default = "told")]
    pub agent: bool,
    /// Longest time without a server that answers.
    pub deadline: Duration,
    /// Longest time that users of the mount get when it is asked to end.
    pub drain: Duration,
}

/// What a keeper that does not know the question wants.
const fn told() -> bool {
    true
}

impl MountConfig {
    #[must_use]
    pub fn device(&self) -> Device {
        Device { major: self.device_major, minor: self.device_minor }
    }

    #[must_use]
    pub fn forbids(&self) -> Forbids {
        Forbids { write: self.read_only, setuid: self.nosuid, devices: self.nodev }
    }
}

/// A path in a document: as text, or as bytes when it is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl std::ops::Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for FilePath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => text.serialize(serializer),
            None => self.0.as_os_str().as_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into(),
            Written::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> MountConfig {
        MountConfig {
            source: PathBuf::from("/data").into(),
            target: PathBuf::from(OsString::from_vec(b"/mnt/\xff".to_vec())).into(),
            volume: Some("data".to_owned()),
            namespace: Some("shop".to_owned()),
            device_major: 0,
            device_minor: 51,
            keeper_pid: 7,
            rules: Some(PathBuf::from("/etc/rules.yaml").into()),
            rules_text: "rules: []".to_owned(),
            read_only: true,
            nosuid: false,
            nodev: true,
            threads: 4,
            attr_timeout: Duration::from_millis(1500),
            passthrough: true,
            replay: None,
            fault_log: Some(PathBuf::from("/tmp/log").into()),
            otlp: Some("grpc://127.0.0.1:4317".to_owned()),
            spans: None,
            metrics: None,
            agent: false,
            deadline: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        }
    }

    #[test]
    fn survives_being_written() {
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<MountConfig>(&text).unwrap(), example());
        // A server of a version that knows no names takes what has none.
        let unnamed = serde_json::to_string(&MountConfig { volume: None, namespace: None, ..example() }).unwrap();
        assert!(!unnamed.contains("volume") && !unnamed.contains("namespace"), "{unnamed}");
        assert_eq!(serde_json::from_str::<MountConfig>(&unnamed).unwrap().volume, None);
        let more = text.replacen('{', "{\"more\":1,", 1);
        assert!(serde_json::from_str::<MountConfig>(&more).is_err());
    }
}
