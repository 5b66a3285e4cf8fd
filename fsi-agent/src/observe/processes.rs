//! Which processes were seen and which still run: counted from the records, asked of /proc at the end.

use std::collections::HashSet;
use std::fs;

use fsi_common::record::{FileRecord, OpRecord, ProcessEvent, ProcessRecord, RecordHeader, RecordKind};
use zerocopy::FromBytes as _;

/// More processes at once than a kernel lets live; what is over it is counted, not remembered.
const MAX_LIVING: usize = 1 << 17;

/// Cgroups that are told from new ones; more are only looked up when somebody needs them.
const MAX_CGROUPS: usize = 1 << 16;

/// The processes of an observation.
#[derive(Debug, Default)]
pub(super) struct Processes {
    living: HashSet<u32>,
    seen: u64,
    /// Programs were started or processes ended since this was last asked.
    changed: bool,
    cgroups: HashSet<u64>,
    new_cgroups: Vec<u64>,
}

impl Processes {
    /// Takes note of whom a record is from. A record that cannot be read is the pipeline's to count.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        let Ok((header, _)) = RecordHeader::read_from_prefix(bytes) else { return };
        if header.kind == RecordKind::Operation as u16 {
            if let Ok((record, _)) = OpRecord::read_from_prefix(bytes) {
                self.lives(record.tgid);
            }
        } else if header.kind == RecordKind::File as u16 {
            if let Ok((record, _)) = FileRecord::read_from_prefix(bytes) {
                self.lives(record.tgid);
            }
        } else if header.kind == RecordKind::Process as u16
            && let Ok((record, _)) = ProcessRecord::read_from_prefix(bytes)
        {
            self.process(&record);
        }
    }

    fn process(&mut self, record: &ProcessRecord) {
        self.lives(record.tgid);
        self.is_in(record.cgroup);
        if record.header.detail == ProcessEvent::Exit as u16 {
            self.living.remove(&record.tgid);
            self.changed = true;
        } else if record.header.detail == ProcessEvent::Exec as u16 {
            self.changed = true;
        }
    }

    fn lives(&mut self, tgid: u32) {
        if !self.living.contains(&tgid) {
            self.seen += 1;
            if self.living.len() < MAX_LIVING {
                self.living.insert(tgid);
            }
        }
    }

    fn is_in(&mut self, cgroup: u64) {
        if self.cgroups.len() < MAX_CGROUPS && self.cgroups.insert(cgroup) {
            self.new_cgroups.push(cgroup);
        }
    }

    /// The cgroups in which processes turned up since this was last asked.
    pub(super) fn take_new_cgroups(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.new_cgroups)
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether files may have died unseen since the last time this was asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Those seen that still run; a record of an exit may have been lost, so /proc has the last word.
    pub(super) fn running(&self) -> u64 {
        self.living.iter().filter(|pid| exists(**pid)).map(|_| 1).sum()
    }
}

/// Whether the process runs (a zombie does not).
pub(super) fn exists(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The command name may hold anything, `)` included; the state follows the last one.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    fn event(tgid: u32, event: ProcessEvent) -> ProcessRecord {
        let len = u32::try_from(size_of::<ProcessRecord>()).unwrap();
        let header = RecordHeader { kind: RecordKind::Process as u16, detail: event as u16, len };
        ProcessRecord { header, tgid, ..ProcessRecord::default() }
    }

    #[test]
    fn counts_each_process_once_and_knows_the_living() {
        let mut processes = Processes::default();
        let own = std::process::id();
        processes.record(event(own, ProcessEvent::Fork).as_bytes());
        processes.record(event(own, ProcessEvent::Exec).as_bytes());
        processes.record(event(u32::MAX, ProcessEvent::Fork).as_bytes());
        assert_eq!((processes.take_new_cgroups(), processes.take_new_cgroups()), (vec![0], vec![]));
        assert!(processes.take_changed());
        assert!(!processes.take_changed());
        assert_eq!((processes.seen(), processes.running()), (2, 1));
        processes.record(event(own, ProcessEvent::Exit).as_bytes());
        assert_eq!((processes.seen(), processes.running()), (2, 0));
        processes.record(&[1, 2, 3]);
        assert_eq!(processes.seen(), 2);
    }
}
