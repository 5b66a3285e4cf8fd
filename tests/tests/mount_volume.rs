//! What holds for a whole mount: its capacity, fakes in the place of data, throttles and devices.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::process::Command;
use std::time::Instant;

use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde_json::Value;

const MIB: u64 = 1 << 20;

fn mounted(volume: &str) -> Option<Mounted> {
    has(&[Need::Mounts]).then(|| Mount::with_rules(&format!("version: 1\n{volume}\n")).logged().mount())
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// `(total, free)` as `df` has it, in bytes.
fn space(mounted: &Mounted) -> (u64, u64) {
    let stat = rustix::fs::statvfs(mounted.target()).expect("it answers");
    (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize)
}

/// Writes until it cannot; how much that was, and why.
fn fill(mut file: &File) -> (u64, Option<Errno>) {
    let mut written = 0;
    loop {
        match file.write(&[7; 64 << 10]) {
            Ok(done) => written += done as u64,
            Err(error) => return (written, errno(&error)),
        }
    }
}

#[test]
fn capacity_is_what_statfs_says() {
    let Some(mounted) = mounted("capacity: 1MiB") else { return };
    let path = mounted.target().join("file");
    let file = File::create(&path).expect("a file");
    assert_eq!(fill(&file), (MIB, Some(Errno::NOSPC)));
    assert_eq!(space(&mounted), (MIB, 0));
    file.write_all_at(&[8; 4096], 100_000).expect("what is there can be written over");
    let small = File::create(mounted.target().join("small")).expect("a name costs nothing");
    assert_eq!(errno(&small.write_at(b"x", 0).expect_err("a byte does")), Some(Errno::NOSPC));
    file.set_len(MIB / 2).expect("it can be cut");
    assert_eq!(space(&mounted).1, MIB / 2, "what was cut off is free");
    fs::remove_file(&path).expect("it can be removed");
    assert_eq!(space(&mounted).1, MIB / 2, "but not while it is open");
    drop(file);
    fsi_tests::eventually::eventually("it is free once nobody has it open", || space(&mounted).1 == MIB);
    assert_eq!(fill(&small), (MIB, Some(Errno::NOSPC)));
    let log = mounted.fault_log();
    let last: Value = serde_json::from_str(log.lines().last().expect("it is logged")).expect("JSON");
    assert_eq!((&last["kind"], &last["errno"], &last["path"]), (&"capacity".into(), &"ENOSPC".into(), &"small".into()));
}

#[test]
fn every_way_to_grow_meets_the_capacity() {
    let Some(mounted) = mounted("capacity: { bytes: 1MiB, errno: EDQUOT }") else { return };
    let open = |name: &str| {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        options.open(mounted.target().join(name)).expect("a file")
    };
    let file = open("allocated");
    let allocate = |mode, at, len| fallocate(&file, mode, at, len);
    assert_eq!(allocate(FallocateFlags::empty(), 0, 2 * MIB), Err(Errno::DQUOT));
    assert_eq!(space(&mounted).1, MIB, "nothing of it was done");
    assert_eq!(allocate(FallocateFlags::empty(), 0, MIB / 2), Ok(()));
    assert_eq!(space(&mounted).1, MIB / 2);
    assert_eq!(allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, MIB / 4), Ok(()));
    assert_eq!(space(&mounted).1, MIB / 4 * 3);
    assert_eq!(fill(&open("filler")), (MIB / 4 * 3, Some(Errno::DQUOT)));
    let sparse = open("sparse");
    sparse.set_len(100 * MIB).expect("a hole takes nothing");
    // A page that is written through a mapping has to be put somewhere too.
    let script = "import mmap, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\nm = mmap.mmap(fd, 1 << 20)\nm[5] = 1\n\
                  try: m.flush()\nexcept OSError as e: print(e.errno)\nelse: print('flushed')";
    if has(&[Need::Program("python3")]) {
        let mut python = Command::new("python3");
        let output = python.args(["-c", script]).arg(mounted.target().join("sparse")).output().expect("python3 starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), Errno::DQUOT.raw_os_error().to_string());
    }
    assert_eq!(sparse.metadata().expect("it is open").blocks(), 0);
    // Renaming over a file gives its space back.
    fs::rename(mounted.target().join("sparse"), mounted.target().join("filler")).expect("it can be renamed");
    assert_eq!(space(&mounted).1, MIB / 4 * 3);
}

/// What was there before counts, whoever counts it.
#[test]
fn capacity_counts_what_is_there_and_outlives_its_server() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mount = Mount::with_rules("version: 1\ncapacity: 1MiB\n");
    fs::create_dir_all(mount.source().join("a/b")).expect("directories");
    fs::write(mount.source().join("a/b/c"), vec![1; 300 << 10]).expect("a file");
    fs::hard_link(mount.source().join("a/b/c"), mount.source().join("again")).expect("a link");
    let mounted = mount.mount();
    let free = MIB - (300 << 10);
    assert_eq!(space(&mounted).1, free);
    let file = File::create(mounted.target().join("file")).expect("a file");
    file.write_all_at(&[1; 100 << 10], 0).expect("it fits");
    mounted.kill_server();
    assert_eq!(space(&mounted).1, free - (100 << 10));
    fs::remove_file(mounted.target().join("again")).expect("it can be removed");
    assert_eq!(space(&mounted).1, free - (100 << 10), "the file has another name");
    fs::remove_file(mounted.target().join("a/b/c")).expect("it can be removed");
    assert_eq!(space(&mounted).1, MIB - (100 << 10));
}

#[test]
fn null_keeps_sizes_and_nothing_else() {
    let Some(mounted) = mounted("fake: 'null'") else { return };
    let path = mounted.target().join("file");
    fs::write(&path, vec![7; 100_000]).expect("it can be written");
    assert!(fs::read(&path).expect("it can be read") == vec![0; 100_000]);
    assert_eq!(fs::metadata(mounted.source().join("file")).expect("it is there").blocks(), 0);
    let mut file = OpenOptions::new().append(true).open(&path).expect("it can be opened");
    file.write_all(b"more").expect("it can be appended to");
    assert_eq!(fs::metadata(&path).expect("it is there").len(), 100_004);
}

#[test]
fn memory_keeps_bytes_up_to_its_bound() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mount = Mount::with_rules("version: 1\nfake: memory\ncapacity: 1MiB\n");
    fs::write(mount.source().join("old"), vec![5; 10_000]).expect("a file");
    let mounted = mount.mount();
    let file = OpenOptions::new().read(true).write(true).open(mounted.target().join("old")).expect("it is there");
    file.write_all_at(&[6; 100], 5_000).expect("it can be written");
    let mut expected = vec![5; 10_000];
    expected[5_000..5_100].fill(6);
    mounted.kill_server();
    assert!(fs::read(mounted.target().join("old")).expect("it can be read") == expected, "over what lies below");
    assert!(fs::read(mounted.source().join("old")).expect("it is there") == vec![5; 10_000], "which stays as it was");
    let new = File::create(mounted.target().join("new")).expect("a file");
    let (written, error) = fill(&new);
    assert_eq!((written, error), (MIB - 4096, Some(Errno::NOSPC)), "all but the page of the other file");
    assert_eq!(space(&mounted), (MIB, 0));
    drop(new);
    fs::remove_file(mounted.target().join("new")).expect("it can be removed");
    fsi_tests::eventually::eventually("it is free", || space(&mounted).1 == MIB - 4096);
    assert!(mounted.fault_log().is_empty(), "no log was asked for");
}

#[test]
fn a_pattern_reads_the_same_everywhere_and_for_ever() {
    let Some(mounted) = mounted("fake: pattern") else { return };
    let path = mounted.target().join("file");
    File::create(&path).and_then(|file| file.set_len(1 << 20)).expect("a file");
    let whole = fs::read(&path).expect("it can be read");
    let file = File::open(&path).expect("it can be opened");
    for (at, len) in [(0, 1), (7, 9), (65_535, 4_097), ((1 << 20) - 3, 3)] {
        let mut part = vec![0; len];
        file.read_exact_at(&mut part, at as u64).expect("it can be read");
        assert!(part == whole[at..at + len], "{len} bytes at {at}");
    }
    file.write_at(b"x", 0).expect_err("it was opened to be read");
    drop(file);
    fs::write(mounted.target().join("other"), vec![0; 1 << 20]).expect("a write is forgotten");
    assert!(fs::read(mounted.target().join("other")).expect("it can be read") != whole, "each file has its own");
    mounted.remount();
    assert!(fs::read(&path).expect("it can be read") == whole);
}

/// The tokens of a burst are spent, and one that does not wait says so.
#[test]
fn eagain_is_for_those_who_asked() {
    let Some(mounted) = mounted("throttle: [{ scope: volume, write_iops: 1, burst: 5s, when_empty: eagain }]") else {
        return;
    };
    let path = mounted.target().join("file");
    let options = OpenOptions::new().create(true).write(true).truncate(false).clone();
    let file = options.clone().custom_flags(libc_nonblock()).open(&path).expect("a file");
    let begun = Instant::now();
    let results: Vec<_> = (0..10).map(|at| file.write_at(b"x", at).map_err(|error| errno(&error))).collect();
    let others: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let passed = results.len() - others.len();
    // One more comes with each second.
    let most = 6.0 + begun.elapsed().as_secs_f64();
    assert!(passed >= 5 && (passed as f64) <= most && !others.is_empty(), "{results:?} in {:?}", begun.elapsed());
    assert!(others.iter().all(|error| **error == Some(Errno::AGAIN)), "{results:?}");
    // Another descriptor of the same file waits, and is not told.
    let waiting = options.open(&path).expect("it is there");
    assert_eq!(waiting.write_at(b"x", 0).expect("it waits"), 1);
}

fn libc_nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a small number")
}

/// Those who wait hold nobody else up, can be killed, and are let go when the limit is taken away.
#[test]
fn who_waits_for_tokens_waits_alone() {
    let Some(mounted) = mounted("throttle: [{ scope: file, write: 1KiB/s, burst: 1s }]") else { return };
    let slow = |name: &str| {
        let target = format!("of={}", mounted.target().join(name).display());
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/zero", "bs=64k", "count=100", "status=none", &target]).current_dir("/");
        dd.spawn().expect("dd")
    };
    let (mut killed, mut freed) = (slow("killed"), slow("freed"));
    fsi_tests::eventually::eventually("both wait", || mounted.ctl(["show"]).contains(", 2 waiting"));
    fs::write(mounted.target().join("other"), "x").expect("another file has tokens of its own");
    killed.kill().expect("it lives");
    killed.wait().expect("it ends");
    assert!(freed.try_wait().expect("it is ours").is_none(), "the other one waits on");
    mounted.ctl(["clear"]);
    assert!(freed.wait().expect("it ends").success());
    assert_eq!(fs::metadata(mounted.target().join("freed")).expect("it is there").len(), (100 * 64) << 10);
}

/// Spans say how long each operation was made to wait.
#[test]
fn a_profile_delays_data_as_its_device_does() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let spans = tempfile::NamedTempFile::new().expect("a file");
    let mount = Mount::with_rules("version: 1\nprofile: nfs-wan\n");
    fs::write(mount.source().join("file"), vec![1; 100]).expect("a file");
    let mounted = mount.option("--spans").option(spans.path().to_str().expect("a plain path")).mount();
    for _ in 0..5 {
        fs::read(mounted.target().join("file")).expect("it can be read");
    }
    drop(mounted);
    let spans = fs::read_to_string(spans.path()).expect("they are there");
    let document: Vec<Value> = spans.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut delays = Vec::new();
    collect(&Value::Array(document), &mut delays);
    assert!(delays.len() >= 5, "{delays:?}");
    assert!(delays.iter().all(|ns| (9_000_000..=90_000_000).contains(ns)), "10 to 90 ms: {delays:?}");
}

/// `fsi.injected_ns` of every read.
fn collect(value: &Value, delays: &mut Vec<u64>) {
    match value {
        Value::Object(map) => {
            if map.get("name").is_some_and(|name| name == "read") {
                let attributes = map["attributes"].as_array().expect("a span has some");
                let of = attributes.iter().find(|attribute| attribute["key"] == "fsi.injected_ns");
                delays.extend(of.and_then(|of| of["value"]["intValue"].as_str()?.parse::<u64>().ok()));
            }
            map.values().for_each(|value| collect(value, delays));
        }
        Value::Array(all) => all.iter().for_each(|value| collect(value, delays)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Rules that change reach files that are open, as far as the kernel lets them.
#[test]
fn rules_change_under_open_files() {
    let Some(mounted) =
        mounted("rules: [{ name: seen, match: { path: seen }, when: { after: 1h }, do: { delay: 1s } }]")
    else {
        return;
    };
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let [seen, unseen] = ["seen", "unseen"].map(|name| options.open(mounted.target().join(name)).expect("a file"));
    let rules = tempfile::NamedTempFile::new().expect("a file");
    let rule = "version: 1\nrules: [{ name: all, match: { ops: [write, fsync] }, do: { errno: EIO } }]\n";
    fs::write(rules.path(), rule).expect("it can be written");
    let said = mounted.ctl([std::ffi::OsStr::new("set"), rules.path().as_os_str()]);
    assert!(said.contains("1 file that a rule concerns stay") || said.contains("1 file that"), "{said}");
    assert_eq!(errno(&seen.write_at(b"x", 0).expect_err("it comes to the server")), Some(Errno::IO));
    unseen.write_at(b"x", 0).expect("the kernel writes it");
    assert_eq!(errno(&unseen.sync_all().expect_err("its fsync is seen")), Some(Errno::IO));
    let again = options.open(mounted.target().join("unseen")).expect("it is there");
    assert_eq!(errno(&again.write_at(b"x", 0).expect_err("opened again, it is seen")), Some(Errno::IO));
    mounted.ctl(["pause"]);
    again.write_at(b"x", 0).expect("no rule fires");
    mounted.ctl(["resume"]);
    again.write_at(b"x", 0).expect_err("they do again");
    fs::write(rules.path(), "version: 1\nrules: [{ do: { errno: EIOO } }]\n").expect("it can be written");
    let output =
        fsi_tests::fsi::output(fsi_tests::fsi::fsi(["ctl"]).arg(mounted.target()).arg("set").arg(rules.path()));
    let said = fsi_tests::fsi::text(&output.stderr);
    assert!(!output.status.success() && said.contains("what was in force stays") && said.contains("line 2"), "{said}");
    again.write_at(b"x", 0).expect_err("the rules before stay");
    mounted.ctl(["clear"]);
    again.write_at(b"x", 0).expect("nothing is in force");
}
