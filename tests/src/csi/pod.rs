//! What a pod does with its volume meanwhile.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::stop::Stop;

/// Writes, syncs and reads back until it is told to stop, and takes no error for an answer; how often it did.
#[must_use]
pub fn write_until(stop: &Stop, target: &Path) -> u64 {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(target.join("log"));
    let file = file.expect("it opens");
    let mut rounds = 0_u64;
    while !stop.is_said() {
        file.write_all_at(&rounds.to_le_bytes(), rounds * 8).expect("it is written");
        file.sync_all().expect("it is synced");
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, rounds * 8).expect("it is read");
        assert_eq!(u64::from_le_bytes(bytes), rounds);
        rounds += 1;
    }
    rounds
}
