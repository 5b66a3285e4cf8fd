//! What was synced stays, what was not is lost: a power cut, an fsync that fails, an fsync that lies.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{Error, Write as _};
use std::os::unix::fs::FileExt as _;

use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has};
use rustix::io::Errno;

fn mounted(rule: &str) -> Option<Mounted> {
    if !has(&[Need::Mounts]) {
        return None;
    }
    let rules = format!("version: 1\nrules:\n  - {{ name: the-rule, {rule} }}\n");
    Some(Mount::with_rules(&rules).mount())
}

fn errno(error: &Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn opened(mounted: &Mounted, name: &str) -> File {
    let path = mounted.target().join(name);
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("it can be opened")
}

fn content(mounted: &Mounted, name: &str) -> Vec<u8> {
    let below = fs::read(mounted.source().join(name)).expect("it is there");
    let here = fs::read(mounted.target().join(name)).expect("it is there");
    assert!(below == here, "{name}: what the mount shows is what lies below");
    here
}

/// One file with everything that can be lost, one that the rule is not for.
fn some_synced_some_not(mounted: &Mounted) -> [File; 2] {
    let files = ["bad", "good"].map(|name| opened(mounted, name));
    for file in &files {
        file.write_all_at(&[1; 20_000], 0).expect("it can be written");
        file.sync_all().expect("it can be synced");
        file.write_all_at(&[2; 5_000], 1_000).expect("it can be written");
        file.write_all_at(&[3; 5_000], 30_000).expect("it can be written");
        rustix::fs::ftruncate(file, 32_000).expect("it can be cut");
    }
    files
}

fn all_of_it() -> Vec<u8> {
    let mut bytes = vec![1; 20_000];
    bytes.resize(32_000, 0);
    bytes[1_000..6_000].fill(2);
    bytes[30_000..].fill(3);
    bytes
}

#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let Some(mounted) = mounted("match: { path: bad }, do: { lose_until_fsync: true }") else { return };
    let [bad, good] = some_synced_some_not(&mounted);
    assert!(mounted.ctl(["show"]).contains("unsynced     16.6 KiB"), "{}", mounted.ctl(["show"]));
    let said = mounted.ctl(["power-cut"]);
    assert!(said.contains("of 1 file lost; 1 open file answers EIO"), "{said}");
    assert!(content(&mounted, "bad") == vec![1; 20_000], "as at its last sync");
    assert!(content(&mounted, "good") == all_of_it(), "the neighbour has everything");
    let error = bad.write_at(b"x", 0).expect_err("it was open when the power went");
    assert_eq!(errno(&error), Some(Errno::IO));
    good.write_all_at(b"x", 0).expect("the neighbour was not concerned");
    let bad = opened(&mounted, "bad");
    bad.write_all_at(&[9; 10], 0).expect("opened again, it can be written");
    bad.sync_all().expect("and synced");
    mounted.ctl(["power-cut"]);
    assert!(content(&mounted, "bad")[..10] == [9; 10], "what was synced since stays");
}

/// The next server knows what its predecessor would have taken back.
#[test]
fn a_power_cut_after_a_change_of_servers() {
    let Some(mounted) = mounted("match: { path: bad }, do: { lose_until_fsync: true }") else { return };
    let files = some_synced_some_not(&mounted);
    mounted.kill_server();
    files[0].write_all_at(&[4; 100], 0).expect("it is open");
    mounted.ctl(["power-cut"]);
    assert!(content(&mounted, "bad") == vec![1; 20_000]);
}

/// As on Linux: it fails once, and what it was to make durable is gone.
#[test]
fn an_fsync_that_fails_loses_the_data() {
    let rule = "match: { ops: fsync, path: bad }, when: { skip: 1, limit: 1 }, do: { fail_fsync: EIO }";
    let Some(mounted) = mounted(rule) else { return };
    let [bad, good] = some_synced_some_not(&mounted);
    assert_eq!(errno(&bad.sync_all().expect_err("the second one fails")), Some(Errno::IO));
    good.sync_all().expect("the neighbour's does not");
    assert!(content(&mounted, "bad") == vec![1; 20_000]);
    assert!(content(&mounted, "good") == all_of_it());
    bad.sync_all().expect("once");
    bad.write_all_at(b"more", 0).expect("it goes on");
    bad.sync_data().expect("and syncs");
}

#[test]
fn an_fsync_that_lies_keeps_nothing() {
    let Some(mounted) = mounted("match: { ops: fsync, path: bad }, do: { lie_fsync: true }") else { return };
    let files = ["bad", "good"].map(|name| opened(&mounted, name));
    for mut file in &files {
        file.write_all(b"never on any disk").expect("it can be written");
        file.sync_all().expect("it says that all is well");
    }
    assert!(content(&mounted, "bad") == b"never on any disk", "until the power goes");
    mounted.ctl(["power-cut"]);
    assert!(content(&mounted, "bad").is_empty());
    assert!(content(&mounted, "good") == b"never on any disk");
}

/// `O_SYNC` needs no fsync.
#[test]
fn a_write_that_syncs_itself_is_durable() {
    let Some(mounted) = mounted("match: { path: bad }, do: { lose_until_fsync: true }") else { return };
    let path = mounted.target().join("bad");
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::DSYNC;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::RUSR).expect("it can be opened"));
    file.write_all_at(b"durable", 0).expect("it can be written");
    mounted.ctl(["power-cut"]);
    assert!(content(&mounted, "bad") == b"durable");
}

/// A file that is gone takes nothing of its own into the next one with its number.
#[test]
fn a_removed_file_is_not_brought_back() {
    let Some(mounted) = mounted("do: { lose_until_fsync: true }") else { return };
    for round in 0..50_u8 {
        let file = opened(&mounted, "bad");
        file.write_all_at(&[round; 100], 0).expect("it can be written");
        drop(file);
        fs::remove_file(mounted.target().join("bad")).expect("it can be removed");
    }
    let file = opened(&mounted, "new");
    file.write_all_at(b"synced", 0).expect("it can be written");
    file.sync_all().expect("it can be synced");
    mounted.ctl(["power-cut"]);
    assert!(content(&mounted, "new") == b"synced");
}

#[test]
fn without_such_a_rule_there_is_nothing_to_cut() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mounted = Mount::plain().mount();
    let output = fsi_tests::fsi::output(fsi_tests::fsi::fsi(["ctl"]).arg(mounted.target()).arg("power-cut"));
    assert_eq!(output.status.code(), Some(1));
    assert!(fsi_tests::fsi::text(&output.stderr).contains("so nothing would be lost"));
}
