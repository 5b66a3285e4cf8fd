//! Regular files that end: without a name and without anyone who has them open.

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::{Interposer, Node, Way};

impl Interposer {
    /// Whether anything is kept that ends with a file.
    fn minds_ends(&self) -> bool {
        let armed = self.armed();
        let volume = &armed.volume;
        volume.capacity.is_some() || volume.fake.is_some() || volume.durability.is_some()
    }

    /// An object may have lost its last name, or the last who had it open.
    pub(super) fn has_ended(&self, node: &Node) {
        if self.minds_ends()
            && let Ok(stat) = self.stat(node)
            && stat.stx_nlink == 0
            && !node.io().is_open()
        {
            self.ended(node.number, counted(&stat));
        }
    }

    /// An object is about to lose a name. What comes free with its last one is written down: when this server is killed, the object
    /// ends with it, and a successor can no longer look.
    pub(super) fn loses_a_name(&self, way: &Way<'_>, number: u64) {
        if self.minds_ends()
            && let Ok(node) = self.nodes.get(number)
            && let Ok(stat) = self.stat(&node)
            && stat.stx_nlink == 1
            && !node.io().is_open()
        {
            way.under.frees(counted(&stat));
        }
    }

    /// It lost the name, by this server or by one that was killed.
    pub(super) fn lost_a_name(&self, way: &Way<'_>, number: u64) {
        let Ok(node) = self.nodes.get(number) else { return };
        let freed = way.under.freed();
        if way.past().is_some() && matches!(self.stat(&node), Err(Errno::STALE | Errno::NOENT)) {
            self.ended(number, freed);
        } else {
            self.has_ended(&node);
        }
    }

    fn ended(&self, number: u64, bytes: u64) {
        let armed = self.armed();
        let volume = &armed.volume;
        if let Some(capacity) = &volume.capacity {
            capacity.removed(self.used(), bytes);
        }
        if let Some(mut memory) = volume.fake.as_ref().and_then(|fake| fake.memory())
            && let Err(error) = memory.clear(number, 0, u64::MAX)
        {
            tracing::warn!(%error, "memory of a file that is gone stays taken");
        }
        if let Some(durability) = &volume.durability {
            // Its number will mean another file.
            durability.is_durable(number);
        }
    }
}

/// Bytes of the capacity that an object takes; only regular files count.
fn counted(stat: &Statx) -> u64 {
    let is_file = FileType::from_raw_mode(u32::from(stat.stx_mode)).is_file();
    if is_file { stat.stx_blocks * 512 } else { 0 }
}
