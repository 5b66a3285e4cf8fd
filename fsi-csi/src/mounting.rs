//! The work of the node: a volume shown at a place, and taken away again. Blocking; whoever calls bounds it and holds the volume.
//!
//! Every step looks at what is there before it does anything, so that it can be done again after a crash anywhere: the order is note,
//! mount, use, unmount, remove, forget.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fsi_agent::sys::mount::Mount;

use crate::access::Flags;
use crate::bounded::Probes;
use crate::error::CallError;
use crate::holder::Holder;
use crate::mounts::{self, Health, Shown, Table};
use crate::pool::{self, Lifetime, Pool, Refusal, Wish};
use crate::records::{Pod, Purpose, Record, Records};
use crate::server::{Servers, Shows};
use crate::volume_id::VolumeId;

/// What the node works with.
#[derive(Clone, Debug)]
pub struct Mounting {
    pub pool: Pool,
    pub servers: Servers,
    pub records: Records,
    pub probes: Probes,
}

/// How a volume is to be shown.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub volume: VolumeId,
    /// Where its files are.
    pub data: PathBuf,
    /// What spans and metrics call it.
    pub called: String,
    /// Whose it is, for them.
    pub namespace: Option<String>,
    /// None: as it is, by a bind mount.
    pub rules: Option<String>,
    pub group: Option<u32>,
    pub pod: Option<Pod>,
    /// What holds the claim that its files are in.
    pub holder: Option<Holder>,
}

/// How a staged volume is to be shown to a pod.
#[derive(Clone, Debug)]
pub struct Published {
    pub flags: Flags,
    pub one_pod: bool,
}

impl Mounting {
    /// Shows a volume at its stage.
    ///
    /// # Errors
    /// When it cannot; then nothing is left of it.
    pub fn stage(&self, wanted: &Wanted, stage: &Path) -> Result<(), CallError> {
        self.show(wanted, stage, Purpose::Stage)
    }

    /// Shows a pod what is at the stage; a stage of which the server is dead is made anew.
    ///
    /// # Errors
    /// When it cannot; then nothing is left at the target.
    pub fn publish(&self, wanted: &Wanted, stage: &Path, target: &Path, how: &Published) -> Result<(), CallError> {
        let id = &wanted.volume;
        let table = Table::read()?;
        let is_staged = table.at(stage).is_some_and(|mount| mounts::shows(&table, mount, &wanted.data));
        if !is_staged {
            return Err(CallError::NotStaged { id: id.to_string(), place: stage.to_owned() });
        }
        if how.one_pod {
            self.only_pod(id, target)?;
        }
        self.stage(wanted, stage)?;
        let table = Table::read()?;
        let Some(staged) = table.at(stage) else {
            return Err(CallError::NotStaged { id: id.to_string(), place: stage.to_owned() });
        };
        match table.at(target) {
            Some(mount) if Shown::by(mount) == Shown::by(staged) => {
                let is_writable = |mount: &Mount| Flags::default().hold_for(mount);
                if is_writable(staged) && !is_writable(mount) && !how.flags.is_read_only() {
                    return Err(CallError::Other { id: id.to_string(), what: "setting of readOnly at the target" });
                }
                return mounts::set_flags(target, how.flags);
            }
            // Of a stage that is gone.
            Some(_stale) => drop(self.clear(target)?),
            None => {}
        }
        self.note(wanted, target, Purpose::Publish)?;
        let shown = make_folder(target)
            .and_then(|()| mounts::bind(stage, target))
            .and_then(|()| mounts::set_flags(target, how.flags));
        shown.inspect_err(|_| self.undo(target))
    }

    /// Shows a pod a volume that is written in it; with a wish it is made, and lives as long as the pod.
    ///
    /// # Errors
    /// When it cannot; then nothing is left of it.
    pub fn publish_inline(
        &self,
        wanted: &Wanted,
        wish: Option<&Wish>,
        target: &Path,
        flags: Flags,
    ) -> Result<(), CallError> {
        let is_new = self.records.get(target)?.is_none();
        if let Some(wish) = wish {
            self.pool.create(wish)?;
        }
        let shown = self.show(wanted, target, Purpose::Inline).and_then(|()| mounts::set_flags(target, flags));
        if shown.is_err() && is_new {
            self.undo(target);
            if let Err(error) = self.forget(wanted.volume.as_str()) {
                tracing::warn!(%error, volume = %wanted.volume, "what was made for a pod is left");
            }
        }
        shown
    }

    /// Takes a volume away from its stage. The holder that is not needed any more.
    ///
    /// # Errors
    /// When it cannot; it is asked for again.
    pub fn unstage(&self, stage: &Path) -> Result<Option<Holder>, CallError> {
        let holder = self.records.get(stage)?.and_then(|record| record.holder);
        self.clear(stage)?;
        self.records.remove(stage)?;
        Ok(holder)
    }

    /// Takes a volume away from a pod, with all its files if it was the pod's own. The holder that is not needed any more.
    ///
    /// # Errors
    /// When it cannot; it is asked for again.
    pub fn unpublish(&self, volume: &str, target: &Path) -> Result<Option<Holder>, CallError> {
        let holder = self.records.get(target)?.and_then(|record| record.holder);
        self.clear(target)?;
        remove_folder(target)?;
        self.forget(volume)?;
        self.records.remove(target)?;
        Ok(holder)
    }

    /// Deletes a volume that was a pod's own, now that the pod has it no more.
    fn forget(&self, volume: &str) -> Result<(), CallError> {
        if let Ok(id) = VolumeId::parse(volume)
            && self.pool.read(&id)?.is_some_and(|volume| volume.lifetime == Lifetime::Pod)
        {
            self.pool.delete(&id)?;
        }
        Ok(())
    }

    /// The files of a volume, which somebody says is at that place.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn data(&self, id: &VolumeId, place: &Path) -> Result<PathBuf, CallError> {
        match self.records.get(place)?.filter(|record| record.volume == id.as_str()) {
            Some(record) => Ok(record.data),
            None => self.pool.get(id).map(|_| self.pool.data(id)),
        }
    }

    /// Where a volume is in use, if it is.
    ///
    /// # Errors
    /// When what was noted cannot be read.
    pub fn in_use(&self, table: &Table, id: &VolumeId) -> Result<Option<PathBuf>, CallError> {
        let of_pool = mounts::places(table, &self.pool.data(id)).first().map(|mount| mount.point.clone());
        let is_mounted = |record: &Record| record.volume == id.as_str() && table.at(&record.place).is_some();
        let noted = self.records.all()?.into_iter().find(is_mounted).map(|record| record.place);
        Ok(of_pool.or(noted))
    }

    /// The volume that an interposer shows.
    #[must_use]
    pub fn volume_of(&self, mount: &Mount) -> Option<VolumeId> {
        let name = Path::new(&mount.source).file_name()?.to_str()?;
        VolumeId::parse(name).ok().filter(|id| Path::new(&mount.source) == self.pool.data(id))
    }

    /// Whether a mount is one that we may take away.
    #[must_use]
    pub fn is_ours(&self, table: &Table, mount: &Mount) -> bool {
        // A claim's files are anywhere; only what we noted before we mounted it is ours.
        let is_noted = || self.records.get(&mount.point).is_ok_and(|record| record.is_some());
        let is_of_pool = || table.shown(self.pool.root()).is_some_and(|pool| pool.has(mount));
        // The pool may be a mount of its own.
        !self.pool.root().starts_with(&mount.point) && (mounts::is_interposed(mount) || is_of_pool() || is_noted())
    }

    /// Looks after the servers of everything that is interposed since before us.
    ///
    /// # Errors
    /// When what was noted cannot be read.
    pub fn adopt(&self) -> Result<(), CallError> {
        let records = self.records.all()?;
        for record in records.iter().filter(|record| record.interposed && record.purpose != Purpose::Publish) {
            self.servers.adopt(&Shows::of_record(record));
        }
        Ok(())
    }

    fn show(&self, wanted: &Wanted, place: &Path, purpose: Purpose) -> Result<(), CallError> {
        let table = Table::read()?;
        if let Some(mount) = table.at(place) {
            let health = match wanted.rules.is_some() {
                true => mounts::shows_served(mount, &wanted.data).then(|| mounts::health(&self.probes, place)),
                // A bind mount is as well as what it shows.
                false => mounts::shows_bound(&table, mount, &wanted.data).then_some(Health::Well),
            };
            match health {
                Some(Health::Well) => return self.give(wanted),
                Some(Health::Silent) => {
                    return Err(CallError::Silent { id: wanted.volume.to_string(), place: place.to_owned() });
                }
                Some(Health::Dead) | None => drop(self.clear(place)?),
            }
        }
        self.give(wanted)?;
        self.note(wanted, place, purpose)?;
        let shown = make_folder(place).and_then(|()| match &wanted.rules {
            None => mounts::bind(&wanted.data, place),
            Some(rules) => {
                let namespace = wanted.namespace.as_deref();
                let shows = Shows { source: &wanted.data, place, called: Some(&wanted.called), namespace };
                Ok(self.servers.start(&shows, rules)?)
            }
        });
        shown.inspect_err(|_| match purpose {
            Purpose::Stage => {
                // The folder of a stage is the caller's.
                if let Err(error) = self.unstage(place) {
                    tracing::warn!(%error, "what was begun is left");
                }
            }
            Purpose::Publish | Purpose::Inline => self.undo(place),
        })
    }

    fn give(&self, wanted: &Wanted) -> Result<(), CallError> {
        let Some(group) = wanted.group else { return Ok(()) };
        let refusal = if wanted.holder.is_some() { Refusal::Logged } else { Refusal::Fails };
        pool::give_to(&wanted.data, group, refusal)
    }

    fn note(&self, wanted: &Wanted, place: &Path, purpose: Purpose) -> Result<(), CallError> {
        self.records.add(&Record {
            volume: wanted.volume.to_string(),
            place: place.to_owned(),
            data: wanted.data.clone(),
            called: Some(wanted.called.clone()),
            namespace: wanted.namespace.clone(),
            purpose,
            interposed: wanted.rules.is_some(),
            pod: wanted.pod.clone(),
            // What is behind the stage is held for the stage.
            holder: wanted.holder.clone().filter(|_| purpose != Purpose::Publish),
        })
    }

    fn only_pod(&self, id: &VolumeId, target: &Path) -> Result<(), CallError> {
        let table = Table::read()?;
        let others = self.records.all()?.into_iter().filter(|record| {
            record.volume == id.as_str() && record.purpose == Purpose::Publish && record.place != target
        });
        match others.map(|record| record.place).find(|place| table.at(place).is_some()) {
            Some(place) => Err(CallError::OnePod { id: id.to_string(), place }),
            None => Ok(()),
        }
    }

    fn clear(&self, place: &Path) -> Result<(), CallError> {
        let table = Table::read()?;
        let gone = mounts::clear(place, |mount| self.is_ours(&table, mount))?;
        let table = Table::read()?;
        let is_last = |mount: &&Mount| !table.iter().any(|other| other.device == mount.device);
        for mount in gone.iter().filter(|mount| mounts::is_interposed(mount)).filter(is_last) {
            self.servers.ended(mount);
        }
        Ok(())
    }

    /// After a failure, of which the user is told: what is left of it is only for the log.
    fn undo(&self, target: &Path) {
        let undone = self.clear(target).and_then(|()| remove_folder(target)).and_then(|()| self.records.remove(target));
        if let Err(error) = undone {
            tracing::warn!(%error, "what was begun is left");
        }
    }
}

fn make_folder(place: &Path) -> Result<(), CallError> {
    match fs::create_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(CallError::io("make", place)),
    }
}

/// Only an empty one: what has something in it is no mount point any more.
fn remove_folder(place: &Path) -> Result<(), CallError> {
    match fs::remove_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(CallError::io("remove", place)),
    }
}
