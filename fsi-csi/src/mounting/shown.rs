//! What is mounted at a place: whether it is ours, which volume it shows, how well, and who holds the files for it.

use std::path::{Path, PathBuf};

use fsi_agent::sys::mount::Mount;

use super::{Mounting, Wanted};
use crate::error::CallError;
use crate::holder::{Held, Holder};
use crate::mounts::{self, Health, Table};
use crate::records::{Purpose, Record};
use crate::volume_id::VolumeId;

/// The holder of what was shown at a place.
#[derive(Clone, Debug)]
pub struct Known {
    pub holder: Holder,
    /// What is shown there; nothing when it has to be shown anew.
    pub shows: Option<PathBuf>,
}

impl Mounting {
    /// The holder that was noted of a place.
    ///
    /// # Errors
    /// When what was noted cannot be read.
    pub fn held(&self, place: &Path) -> Result<Option<Known>, CallError> {
        let Some(record) = self.records.get(place)? else { return Ok(None) };
        let table = Table::read()?;
        let is_shown = table.at(place).is_some_and(|mount| match record.interposed {
            true => mounts::shows_served(mount, &record.data) && mounts::health(&self.probes, place) != Health::Dead,
            false => mounts::shows_bound(&table, mount, &record.data),
        });
        Ok(record.holder.map(|holder| Known { holder, shows: is_shown.then_some(record.data) }))
    }

    /// Notes another holder of what is shown at a place. An interposer shows what it was started for; a bind mount is known by its source.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub fn hand_over(&self, place: &Path, held: &Held) -> Result<(), CallError> {
        let Some(stage) = self.records.get(place)? else { return Ok(()) };
        let all = self.records.all()?.into_iter();
        for mut record in all.filter(|record| record.volume == stage.volume && record.data == stage.data) {
            if !record.interposed {
                record.data = held.directory.clone();
            }
            if record.holder == stage.holder {
                record.holder = Some(held.holder.clone());
            }
            self.records.add(&record)?;
        }
        Ok(())
    }

    /// The mount at a place, which shows the files of a volume. They are or were at that path: the holder that had a claim there may be gone.
    ///
    /// # Errors
    /// When something else is there, or what was noted cannot be read.
    pub fn shown_at<'a>(
        &self,
        table: &'a Table,
        place: &Path,
        id: &VolumeId,
        data: &Path,
    ) -> Result<&'a Mount, CallError> {
        let not_there = || CallError::NotThere { id: id.to_string(), place: place.to_owned() };
        let mount = table.at(place).ok_or_else(not_there)?;
        let is_elsewhere = !data.starts_with(self.pool.root());
        let is_noted = |record: Record| record.volume == id.as_str() && !record.interposed && is_elsewhere;
        let shows = mounts::shows(table, mount, data) || self.records.get(&mount.point)?.is_some_and(is_noted);
        shows.then_some(mount).ok_or_else(not_there)
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
        let is_noted = || self.records.has(&mount.point);
        let is_of_pool = || table.shown(self.pool.root()).is_some_and(|pool| pool.has(mount));
        // The pool may be a mount of its own.
        !self.pool.root().starts_with(&mount.point) && (mounts::is_interposed(mount) || is_of_pool() || is_noted())
    }

    /// How well a mount shows the volume; nothing where it shows something else.
    pub(super) fn health(&self, table: &Table, mount: &Mount, wanted: &Wanted) -> Result<Option<Health>, CallError> {
        if !self.is_shown(table, mount, wanted)? {
            return Ok(None);
        }
        let asked = || mounts::health(&self.probes, &mount.point);
        // A bind mount is as well as what it shows, and only one of something that is gone is to be made anew.
        let is_well = || mounts::shows_bound(table, mount, &wanted.data) || asked() != Health::Dead;
        Ok(Some(if wanted.rules.is_none() && is_well() { Health::Well } else { asked() }))
    }

    /// Whether a mount shows the volume, under the path that its files have or under the one that they had when it was made: another holder
    /// of a claim has the same files elsewhere.
    pub(super) fn is_shown(&self, table: &Table, mount: &Mount, wanted: &Wanted) -> Result<bool, CallError> {
        let is_interposed = wanted.rules.is_some();
        let noted = self.records.get(&mount.point)?.filter(|record| {
            record.volume == wanted.volume.as_str()
                && record.purpose != Purpose::Publish
                && record.interposed == is_interposed
        });
        Ok(match is_interposed {
            true => {
                let had = noted.is_some_and(|record| mounts::shows_served(mount, &record.data));
                had || mounts::shows_served(mount, &wanted.data)
            }
            // What a holder that is gone had mounted cannot be looked up any more.
            false => mounts::shows_bound(table, mount, &wanted.data) || noted.is_some() && wanted.holder.is_some(),
        })
    }
}
