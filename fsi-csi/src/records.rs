//! What we have mounted, or were about to: one small file for each place, written before the mount and removed after its end.
//!
//! They are in the run directory, which a restart of the node empties as it empties the mount table.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::CallError;
use crate::holder::Holder;
use crate::volume_id;

/// What a mount is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Once on the node, for all pods.
    Stage,
    /// For one pod, from the stage.
    Publish,
    /// For one pod, on its own.
    Inline,
}

/// The pod that a mount is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub volume: String,
    pub place: PathBuf,
    /// What is shown there.
    pub data: PathBuf,
    /// What spans and metrics call the volume; none where an earlier version made the note.
    #[serde(default)]
    pub called: Option<String>,
    /// The namespace of the claim or the pod, where it is known.
    #[serde(default)]
    pub namespace: Option<String>,
    pub purpose: Purpose,
    /// Whether a server is behind it.
    pub interposed: bool,
    /// Tells its server's mount from others that were at the place before; none where an earlier version made the note.
    #[serde(default)]
    pub number: Option<u64>,
    pub pod: Option<Pod>,
    /// What holds the claim that is shown.
    pub holder: Option<Holder>,
}

impl Record {
    /// Whether there is a server of its own.
    #[must_use]
    pub fn has_server(&self) -> bool {
        self.interposed && self.purpose != Purpose::Publish
    }
}

/// What was noted.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    pub records: Vec<Record>,
    /// How many more there are, of mounts that nothing is known of.
    pub unreadable: usize,
}

/// All of this node.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
    /// Those that cannot be read and of which that was said.
    unreadable: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Records {
    /// Those in a run directory, which no other driver uses.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self { folder: run_dir.join("csi/mounts"), unreadable: Arc::default() }
    }

    /// Takes away what a driver before us left half written.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn sweep(&self) -> Result<(), CallError> {
        durable::sweep(&self.folder, Duration::ZERO).map_err(CallError::io("clean up", &self.folder))
    }

    /// Notes a mount that is about to be made.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, record: &Record) -> Result<(), CallError> {
        let path = self.path(&record.place);
        let bytes = serde_json::to_vec(record).map_err(CallError::io("write", &path))?;
        durable::write(&path, &bytes).map_err(CallError::io("write", &path))
    }

    /// Forgets a mount that is gone.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, place: &Path) -> Result<(), CallError> {
        let path = self.path(place);
        durable::remove(&path).map_err(CallError::io("remove", &path))
    }

    /// Whether anything was noted of a place, also where it cannot be read.
    #[must_use]
    pub fn has(&self, place: &Path) -> bool {
        // Of what cannot be looked at nobody may say that it is not there.
        self.path(place).try_exists().unwrap_or(true)
    }

    /// What was noted of a place; nothing when it is of a version that wrote something else.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, place: &Path) -> Result<Option<Record>, CallError> {
        let path = self.path(place);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(serde_json::from_slice(&read.map_err(CallError::io("read", &path))?).ok()),
        }
    }

    /// All that can be read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(&self) -> Result<Vec<Record>, CallError> {
        Ok(self.read()?.records)
    }

    /// All of them. One that cannot be read is damaged, or of a version that wrote something else, and is left alone.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn read(&self) -> Result<Noted, CallError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Noted::default()),
            read => read.map_err(CallError::io("read", &self.folder))?,
        };
        // What is half written is none.
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let mut noted = Noted::default();
        let mut unreadable = HashSet::new();
        for path in paths {
            let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
            match read {
                Ok(record) => noted.records.push(record),
                // It was forgotten meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.complain(&path, &error);
                    unreadable.insert(path);
                }
            }
        }
        noted.unreadable = unreadable.len();
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = unreadable;
        Ok(noted)
    }

    /// Once for each.
    fn complain(&self, path: &Path, error: &io::Error) {
        if !self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).contains(path) {
            tracing::error!(path = %path.display(), %error, "a note of a mount cannot be read: the mount is left alone");
        }
    }

    fn path(&self, place: &Path) -> PathBuf {
        self.folder.join(volume_id::hex(place.as_os_str().as_encoded_bytes())).with_extension("json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_kept_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        assert_eq!(records.all().unwrap(), []);
        let pod = Some(Pod { namespace: "n".to_owned(), name: "p".to_owned(), uid: "u".to_owned() });
        let place = PathBuf::from("/var/lib/kubelet/x/mount");
        let record = Record {
            volume: "v".to_owned(),
            place: place.clone(),
            data: PathBuf::from("/pool/v"),
            called: Some("data".to_owned()),
            namespace: Some("shop".to_owned()),
            purpose: Purpose::Publish,
            interposed: true,
            number: Some(7),
            pod,
            holder: None,
        };
        records.add(&record).unwrap();
        records.add(&record).unwrap();
        assert_eq!(records.get(&place).unwrap().as_ref(), Some(&record));
        fs::copy(records.path(&place), folder.path().join("csi/mounts/.new-abc")).unwrap();
        assert_eq!(records.all().unwrap(), [record], "what is half written is no record");
        assert_eq!(records.read().unwrap().unreadable, 0);
        records.remove(&place).unwrap();
        records.remove(&place).unwrap();
        assert_eq!(records.all().unwrap(), []);
    }
    #[test]
    fn what_cannot_be_read_is_there_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let place = Path::new("/var/lib/kubelet/x/mount");
        assert!(!records.has(place));
        durable::write(&records.path(place), b"{}").unwrap();
        assert!(records.has(place));
        assert_eq!(records.get(place).unwrap(), None);
        let noted = records.read().unwrap();
        assert_eq!((noted.records.len(), noted.unreadable), (0, 1));
        records.remove(place).unwrap();
        assert!(!records.has(place));
        assert_eq!(records.read().unwrap().unreadable, 0);
    }
}
