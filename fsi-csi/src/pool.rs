//! The pool: a folder of the node, in which every volume is a folder with a small file beside it.
//!
//! ```text
//! POOL/volumes/ID        the files of the volume
//! POOL/volumes/ID.json   what it is: the volume exists if, and as far as, this file says so
//! POOL/new/ID            a volume in the making
//! POOL/new/.links-ID     while it is copied: files that have several names
//! POOL/gone/ID           a volume on its way out
//! ```
//! The file says what is about to be done before it is done, so that whoever finds it after a crash knows how to go on. A folder without
//! a file is none of ours, and is never touched.

mod copy;
mod group;
mod volume;
mod walk;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::durable;
use crate::error::CallError;
use crate::volume_id::VolumeId;

pub use self::group::{Refusal, give_to};
pub use self::volume::{Lifetime, Range, State, Volume, Wish};

/// Only root sees what is in the pool; pods see their volume alone.
const POOL_MODE: u32 = 0o700;
/// As an emptyDir: a pod that is not root may write.
const VOLUME_MODE: u32 = 0o777;

/// A file that is older and still not whole was left so by who was killed.
const HALF_WRITTEN_FOR: Duration = Duration::from_secs(60);

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    root: PathBuf,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub available: u64,
    pub total: u64,
}

impl Pool {
    /// The pool in that folder, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, CallError> {
        fs::create_dir_all(root).map_err(CallError::io("make the pool", root))?;
        let root = fs::canonicalize(root).map_err(CallError::io("find the pool", root))?;
        for name in ["volumes", "new", "gone"] {
            let folder = root.join(name);
            DirBuilder::new()
                .recursive(true)
                .mode(POOL_MODE)
                .create(&folder)
                .map_err(CallError::io("make", &folder))?;
        }
        let volumes = root.join("volumes");
        // Drivers of other nodes may share the pool.
        durable::sweep(&volumes, HALF_WRITTEN_FOR).map_err(CallError::io("clean up", &volumes))?;
        Ok(Self { root })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the files of a volume are.
    #[must_use]
    pub fn data(&self, id: &VolumeId) -> PathBuf {
        self.volumes().join(id.as_str())
    }

    /// How full it is.
    ///
    /// # Errors
    /// When its file system does not say.
    pub fn room(&self) -> Result<Room, CallError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(CallError::io("ask how full it is:", &self.root))?;
        Ok(Room { available: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
    }

    /// A volume that is whole.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, id: &VolumeId) -> Result<Volume, CallError> {
        self.read(id)?.filter(|volume| volume.state == State::Ready).ok_or_else(|| CallError::NoVolume(id.to_string()))
    }

    /// Whatever is known of a volume.
    ///
    /// # Errors
    /// When its file cannot be read, or is damaged.
    pub fn read(&self, id: &VolumeId) -> Result<Option<Volume>, CallError> {
        let path = self.file(id);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(CallError::io("read", &path))?,
        };
        let damaged = |error: serde_json::Error| CallError::Damaged { path, sentence: error.to_string() };
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// The ids of all volumes, of whatever state, in order.
    ///
    /// # Errors
    /// When the pool cannot be read.
    pub fn ids(&self) -> Result<Vec<VolumeId>, CallError> {
        let folder = self.volumes();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&folder).map_err(CallError::io("read", &folder))? {
            let name = entry.map_err(CallError::io("read", &folder))?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(id.and_then(|id| VolumeId::parse(id).ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// The volume that is wished for; the same when it is there already.
    ///
    /// # Errors
    /// When there is another of that id, or it cannot be made.
    pub fn create(&self, wish: &Wish) -> Result<Volume, CallError> {
        let (id, data) = (&wish.id, self.data(&wish.id));
        match self.read(id)? {
            Some(volume) if volume.state == State::Ready => return wish.matched(volume),
            // Begun before, and begun again; or to be deleted, and not deleted to its end.
            Some(_unfinished) => self.finish_delete(id)?,
            None if fs::symlink_metadata(&data).is_ok() => return Err(CallError::InTheWay(data)),
            None => {}
        }
        let bytes = wish.range.bytes()?;
        let room = self.room()?;
        if let Some(required) = bytes.filter(|required| wish.backing.is_none() && *required > room.available) {
            return Err(CallError::PoolFull { required, available: room.available });
        }
        let from = wish.clone_of.as_ref().map(|of| self.clone_source(of, bytes)).transpose()?;
        let volume = wish.volume(bytes.or_else(|| from.as_ref().and_then(|(_, bytes)| *bytes)));
        self.make(id, volume, from.map(|(source, _)| source).as_deref()).inspect_err(|_| {
            // Nobody may ever ask for it again.
            if let Err(error) = self.finish_delete(id) {
                tracing::warn!(%error, volume = %id, "what was begun is left, and is swept later");
            }
        })
    }

    fn make(&self, id: &VolumeId, mut volume: Volume, from: Option<&Path>) -> Result<Volume, CallError> {
        self.write(id, &volume)?;
        let (new, data) = (self.new_data(id), self.data(id));
        match from {
            Some(source) => {
                let links = self.links(id);
                copy::tree(source, &new, &links)?;
                walk::remove(&links)?;
            }
            None => {
                fs::create_dir(&new).map_err(CallError::io("make", &new))?;
                // Whatever the umask is.
                fs::set_permissions(&new, Permissions::from_mode(VOLUME_MODE)).map_err(CallError::io("open", &new))?;
            }
        }
        fs::rename(&new, &data).map_err(CallError::io("put in place", &new))?;
        volume.state = State::Ready;
        self.write(id, &volume)?;
        Ok(volume)
    }

    /// The ids of volumes that were begun and are not whole: somebody is at it, or was killed.
    ///
    /// # Errors
    /// When the pool cannot be read.
    pub fn unfinished(&self) -> Result<Vec<VolumeId>, CallError> {
        let mut ids = self.ids()?;
        ids.retain(|id| self.is_unfinished(id));
        Ok(ids)
    }

    /// Takes away what is there of a volume that was begun, if it is still not whole. For who knows that nobody is at it.
    ///
    /// # Errors
    /// When it cannot be taken away.
    pub fn abandon(&self, id: &VolumeId) -> Result<(), CallError> {
        if self.is_unfinished(id) { self.finish_delete(id) } else { Ok(()) }
    }

    fn is_unfinished(&self, id: &VolumeId) -> bool {
        // One that is damaged may be anything.
        self.read(id).is_ok_and(|volume| volume.is_some_and(|volume| volume.state == State::Creating))
    }

    /// Whether there is room for a volume to grow: as for a new one, for what it is to have more.
    ///
    /// # Errors
    /// When there is not.
    pub fn can_grow(&self, id: &VolumeId, volume: &Volume, required: u64) -> Result<(), CallError> {
        let before = volume.bytes.unwrap_or(0);
        if volume.backing.is_some() || required <= before {
            return Ok(());
        }
        let Room { available, total } = self.room()?;
        if required > total || required - before > available {
            return Err(CallError::PoolTooSmall { id: id.to_string(), before, required, available, total });
        }
        Ok(())
    }

    /// Sets the size of a volume; a smaller one than it has changes nothing. The size that it has then.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn grow(&self, id: &VolumeId, bytes: u64) -> Result<u64, CallError> {
        let mut volume = self.get(id)?;
        if volume.bytes.is_none_or(|before| before < bytes) {
            volume.bytes = Some(bytes);
            self.write(id, &volume)?;
        }
        Ok(volume.bytes.unwrap_or(bytes))
    }

    /// Deletes a volume and its files; one that is not there is deleted.
    ///
    /// # Errors
    /// When it cannot be deleted; it is not there any more for anybody else.
    pub fn delete(&self, id: &VolumeId) -> Result<(), CallError> {
        let Some(mut volume) = self.read(id)? else { return Ok(()) };
        volume.state = State::Deleting;
        self.write(id, &volume)?;
        self.finish_delete(id)
    }

    fn finish_delete(&self, id: &VolumeId) -> Result<(), CallError> {
        let (data, gone) = (self.data(id), self.root.join("gone").join(id.as_str()));
        walk::remove(&gone)?;
        match fs::rename(&data, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(CallError::io("move away", &data))?,
        }
        for folder in [gone, self.new_data(id), self.links(id)] {
            walk::remove(&folder)?;
        }
        let file = self.file(id);
        durable::remove(&file).map_err(CallError::io("remove", &file))
    }

    fn new_data(&self, id: &VolumeId) -> PathBuf {
        self.root.join("new").join(id.as_str())
    }

    fn links(&self, id: &VolumeId) -> PathBuf {
        // No id begins with a dot.
        self.root.join("new").join(format!(".links-{id}"))
    }

    fn clone_source(&self, of: &VolumeId, bytes: Option<u64>) -> Result<(PathBuf, Option<u64>), CallError> {
        let source = self.get(of).map_err(|error| match error {
            CallError::NoVolume(id) => CallError::NoCloneSource(id),
            other => other,
        })?;
        if let (Some(required), Some(capacity)) = (bytes, source.bytes)
            && required < capacity
        {
            return Err(CallError::CloneTooSmall { of: of.to_string(), required, capacity });
        }
        Ok((self.data(of), source.bytes))
    }

    fn write(&self, id: &VolumeId, volume: &Volume) -> Result<(), CallError> {
        let path = self.file(id);
        let bytes = serde_json::to_vec_pretty(volume).map_err(CallError::io("write", &path))?;
        durable::write(&path, &bytes).map_err(CallError::io("write", &path))
    }

    fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    fn file(&self, id: &VolumeId) -> PathBuf {
        // Not `with_extension`: an id may have dots.
        self.volumes().join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
