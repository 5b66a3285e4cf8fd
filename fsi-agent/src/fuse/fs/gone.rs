//! Regular files that end: without a name and without anyone who has them open.

use rustix::fs::{FileType, Statx};

use super::{Interposer, Node};

impl Interposer {
    /// An object may have lost its last name, or the last who had it open.
    pub(super) fn has_ended(&self, node: &Node) {
        let armed = self.armed();
        let volume = &armed.volume;
        if volume.capacity.is_none() && volume.fake.is_none() && volume.durability.is_none() {
            return;
        }
        let is_open = node.io().is_open();
        let is_file = |mode: u16| FileType::from_raw_mode(mode.into()) == FileType::RegularFile;
        let has_ended = |stat: &Statx| stat.stx_nlink == 0 && is_file(stat.stx_mode) && !is_open;
        let Some(stat) = self.stat(node).ok().filter(has_ended) else { return };
        if let Some(capacity) = &volume.capacity {
            capacity.removed(self.used(), stat.stx_blocks * 512);
        }
        if let Some(mut memory) = volume.fake.as_ref().and_then(|fake| fake.memory())
            && let Err(error) = memory.clear(node.number, 0, u64::MAX)
        {
            tracing::warn!(%error, "memory of a file that is gone stays taken");
        }
        if let Some(durability) = &volume.durability {
            // Its number will mean another file.
            durability.is_durable(node.number);
        }
    }
}
