//! The work of the node: a volume shown at a place, and taken away again. Blocking; whoever calls bounds it and holds the volume.
//!
//! Every step looks at what is there before it does anything, so that it can be done again after a crash anywhere: the order is note,
//! mount, use, unmount, remove, let go, forget.

mod shown;

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

pub use self::shown::Known;

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
        let is_staged = match table.at(stage) {
            Some(mount) => mounts::shows(&table, mount, &wanted.data) || self.is_shown(&table, mount, wanted)?,
            None => false,
        };
        if !is_staged {
            return Err(CallError::NotStaged { id: id.to_string(), place: stage.to_owned() });
        }
        if how.one_pod {
            self.only_pod(id, target)?;
        }
        self.stage(wanted, stage)?;
        // The path that the stage has: that of the claim's files is another one when another holder has them.
        let data = self.records.get(stage)?.map_or_else(|| wanted.data.clone(), |record| record.data);
        let wanted = &Wanted { data, ..wanted.clone() };
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

    /// Takes a volume away from its stage. The holder that is to be let go before the note of it is removed.
    ///
    /// # Errors
    /// When it cannot; it is asked for again.
    pub fn unstage(&self, stage: &Path) -> Result<Option<Holder>, CallError> {
        let holder = self.records.get(stage)?.and_then(|record| record.holder);
        self.clear(stage)?;
        Ok(holder)
    }

    /// Takes a volume away from a pod, with all its files if it was the pod's own. The holder that is to be let go before the note of it is
    /// removed.
    ///
    /// # Errors
    /// When it cannot; it is asked for again.
    pub fn unpublish(&self, volume: &str, target: &Path) -> Result<Option<Holder>, CallError> {
        let holder = self.records.get(target)?.and_then(|record| record.holder);
        self.clear(target)?;
        remove_folder(target)?;
        self.forget(volume)?;
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

    /// Looks after the servers of everything that is interposed since before us.
    ///
    /// # Errors
    /// When what was noted cannot be read.
    pub fn adopt(&self) -> Result<(), CallError> {
        let records = self.records.all()?;
        for record in records.iter().filter(|record| record.has_server()) {
            self.servers.adopt(&Shows::of_record(record));
        }
        Ok(())
    }

    fn show(&self, wanted: &Wanted, place: &Path, purpose: Purpose) -> Result<(), CallError> {
        let table = Table::read()?;
        if let Some(mount) = table.at(place) {
            match self.health(&table, mount, wanted)? {
                // What an interposer was started for may be gone from there; its files were given away when it was.
                Some(Health::Well) if fs::symlink_metadata(&wanted.data).is_err() => return Ok(()),
                Some(Health::Well) => return self.give(wanted),
                Some(Health::Silent) => {
                    return Err(CallError::Silent { id: wanted.volume.to_string(), place: place.to_owned() });
                }
                Some(Health::Dead) | None => drop(self.clear(place)?),
            }
        }
        self.give(wanted)?;
        let record = self.note(wanted, place, purpose)?;
        let shown = make_folder(place).and_then(|()| match &wanted.rules {
            None => mounts::bind(&wanted.data, place),
            Some(rules) => {
                self.servers.start(&Shows::of_record(&record), rules)?;
                let is_there = Table::read()?.at(place).is_some_and(mounts::is_interposed);
                let not_there = || CallError::NotMounted { id: wanted.volume.to_string(), place: place.to_owned() };
                is_there.then_some(()).ok_or_else(not_there)
            }
        });
        shown.inspect_err(|_| match purpose {
            Purpose::Stage => {
                // The folder of a stage is the caller's.
                if let Err(error) = self.unstage(place).and_then(|_with_its_owner| self.records.remove(place)) {
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

    fn note(&self, wanted: &Wanted, place: &Path, purpose: Purpose) -> Result<Record, CallError> {
        let record = Record {
            volume: wanted.volume.to_string(),
            place: place.to_owned(),
            data: wanted.data.clone(),
            called: Some(wanted.called.clone()),
            namespace: wanted.namespace.clone(),
            purpose,
            interposed: wanted.rules.is_some(),
            number: Some(number()),
            pod: wanted.pod.clone(),
            // What is behind the stage is held for the stage.
            holder: wanted.holder.clone().filter(|_| purpose != Purpose::Publish),
        };
        self.records.add(&record)?;
        Ok(record)
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

/// Another one each time: no mount outlives this clock, and no two begin within a tick of it.
fn number() -> u64 {
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    part(since_boot.tv_sec) * 1_000_000_000 + part(since_boot.tv_nsec)
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
