//! A mount with less than it would like: few descriptors, a file system below that has no handles, many names.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use fsi_tests::eventually::eventually;
use fsi_tests::fsi::succeed;
use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has};

/// Reads and writes of `concerned*` come to the server, those of other files do not.
const RULES: &str = "version: 1
rules:
  - { name: seen, match: { ops: [read, write], path: 'concerned*' }, when: { after: 24h }, do: { errno: EIO } }
";

/// Far fewer descriptors than there are files, and no privilege to have more.
const FEW: [&str; 5] =
    ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "prlimit", "--nofile=300:300"];
const FILES: usize = 1_500;

fn few_descriptors() -> Option<Mounted> {
    has(&[Need::Mounts, Need::Program("setpriv"), Need::Program("prlimit")])
        .then(|| Mount::with_rules(RULES).under(&FEW).mount())
}

fn name(number: usize) -> String {
    if number.is_multiple_of(2) { format!("concerned-{number}") } else { format!("other-{number}") }
}

fn numbers(directory: &Path) -> Vec<(String, u64)> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("it can be listed");
        let metadata = entry.metadata().expect("it is there");
        (entry.file_name().to_string_lossy().into_owned(), metadata.ino())
    };
    let mut numbers: Vec<_> = fs::read_dir(directory).expect("it is there").map(entry).collect();
    numbers.sort();
    numbers
}

#[test]
fn a_server_with_few_descriptors_knows_many_files() {
    let Some(mounted) = few_descriptors() else { return };
    let target = mounted.target();
    for number in 0..FILES {
        fs::write(target.join(name(number)), number.to_string()).expect("a file");
    }
    let before = numbers(&target);
    assert_eq!(before.len(), FILES);
    assert_eq!(before, numbers(&mounted.source()), "each is what it is below");
    let open =
        |number: usize| OpenOptions::new().read(true).write(true).open(target.join(name(number))).expect("it is there");
    let held: Vec<_> = (0..60).map(open).collect();
    let unlinked: Vec<_> = (FILES - 20..FILES)
        .map(|number| {
            let file = open(number);
            fs::remove_file(target.join(name(number))).expect("it can be removed");
            (number, file)
        })
        .collect();
    let removed = target.join("removed");
    fs::create_dir(&removed).expect("a directory");
    for round in 0..2 {
        for number in 0..FILES - 20 {
            let read = fs::read_to_string(target.join(name(number))).expect("it can be read");
            assert_eq!(read, number.to_string(), "round {round}");
        }
        let check = |number: usize, file: &File| {
            let mut bytes = [0; 8];
            let length = file.read_at(&mut bytes, 0).expect("it is open");
            assert_eq!(bytes[..length], *number.to_string().as_bytes(), "round {round}");
            assert_eq!(file.metadata().expect("it is open").len(), length as u64);
            file.sync_all().expect("it is open");
        };
        held.iter().enumerate().for_each(|(number, file)| check(number, file));
        unlinked.iter().for_each(|(number, file)| check(*number, file));
        assert_eq!(numbers(&target).len(), FILES - 20 + 1);
        mounted.kill_server();
    }
    for number in 0..FILES - 20 {
        fs::rename(target.join(name(number)), removed.join(name(number))).expect("it can be renamed");
    }
    fs::remove_dir_all(&removed).expect("all of it goes");
}

/// A name that comes to mean another file with the number of the first, changed below while no server looked, is the other file.
#[test]
fn a_number_that_is_used_again_is_another_file() {
    let Some(mounted) = few_descriptors() else { return };
    let target = mounted.target();
    for number in 0..400 {
        fs::write(target.join(name(number)), "first").expect("a file");
    }
    let before = numbers(&target);
    mounted.kill_server();
    for number in 0..400 {
        fs::remove_file(mounted.source().join(name(number))).expect("it is there");
    }
    for number in 0..400 {
        fs::write(mounted.source().join(name(number)), "second!").expect("a file");
    }
    // What the kernel was told it may believe is over.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let again = numbers(&target).iter().filter(|number| before.contains(number)).count();
    assert_eq!(numbers(&target), numbers(&mounted.source()));
    for number in 0..400 {
        let read = fs::read_to_string(target.join(name(number))).expect("it can be read");
        assert_eq!(read, "second!", "{again} of 400 have the numbers of those before");
    }
}

/// KiB that the state takes.
fn state_kib(mounted: &Mounted) -> u64 {
    let keeper = mounted.keeper().expect("there is one").as_raw_nonzero();
    let mut files =
        fs::read_dir(format!("/proc/{keeper}/fd")).expect("it lives").map(|entry| entry.expect("one").path());
    let is_state = |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("fsi-state"));
    let state = files.find(is_state).expect("the keeper holds it");
    fs::metadata(state).expect("it is open").blocks() / 2
}

#[test]
fn names_that_come_and_go_leave_nothing() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mounted = Mount::with_rules(RULES).mount();
    let target = mounted.target();
    let come_and_go = |names: std::ops::Range<u32>| {
        for number in names {
            let path = target.join(format!("passing-{number}"));
            fs::write(&path, "").expect("a file");
            fs::remove_file(&path).expect("it can be removed");
        }
    };
    let open = |name: &str| {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(target.join(name));
        let file = file.expect("a file");
        file.write_all_at(name.as_bytes(), 0).expect("it is open");
        (name.to_owned(), file)
    };
    let early = ["concerned-early", "other-early"].map(open);
    come_and_go(0..1_000);
    let before = state_kib(&mounted);
    come_and_go(1_000..70_000);
    let late = ["concerned-late", "other-late"].map(open);
    let after = state_kib(&mounted);
    assert!(after < before + 1_024, "{before} KiB before 69,000 names, {after} KiB after");
    mounted.kill_server();
    for (name, file) in early.iter().chain(&late) {
        let metadata = rustix::fs::fstat(file).expect("it is open");
        assert_eq!(metadata.st_size.unsigned_abs(), name.len() as u64);
        file.sync_all().expect("it is open");
        let mut bytes = vec![0; name.len()];
        file.read_exact_at(&mut bytes, 0).expect("it is open");
        assert_eq!(bytes, name.as_bytes());
    }
}

/// What the keeper holds of the files and directories below.
fn held(mounted: &Mounted) -> usize {
    let keeper = mounted.keeper().expect("there is one").as_raw_nonzero();
    let files = fs::read_dir(format!("/proc/{keeper}/fd")).expect("it lives");
    let target = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.expect("one").path()).unwrap_or_default();
    files.map(target).filter(|to| to.to_string_lossy().contains("held-")).count()
}

/// Directories that were removed, files that lost one of two names, files that were replaced.
#[test]
fn what_has_no_name_is_held_until_it_is_closed() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mounted = Mount::with_rules(RULES).mount();
    let at = |name: &str| mounted.target().join(name);
    fs::create_dir(at("held-directory")).expect("a directory");
    let directory = File::open(at("held-directory")).expect("it is there");
    fs::remove_dir(at("held-directory")).expect("it is empty");
    fs::write(at("held-replaced"), "replaced").expect("a file");
    fs::write(at("replacing"), "replacing").expect("a file");
    let replaced = File::open(at("held-replaced")).expect("it is there");
    fs::rename(at("replacing"), at("held-replaced")).expect("it can be");
    fs::write(at("held-named"), "named").expect("a file");
    fs::hard_link(at("held-named"), at("other-name")).expect("it can have two");
    let named = File::open(at("held-named")).expect("it is there");
    fs::remove_file(at("held-named")).expect("it has another name");
    // Known by a descriptor that opens nothing, then opened by it.
    fs::write(at("held-late"), "late").expect("a file");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let late = rustix::fs::open(at("held-late"), flags, rustix::fs::Mode::empty()).expect("it is there");
    fs::remove_file(at("held-late")).expect("nobody has it open");
    eventually("the two that are open and have no name are held", || held(&mounted) == 2);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&late));
    let late = File::open(path).expect("it can be opened without a name");
    eventually("the third is held", || held(&mounted) == 3);
    for _ in 0..2 {
        mounted.kill_server();
        assert_eq!(directory.metadata().expect("it is open").nlink(), 0);
        for (file, content) in [(&replaced, "replaced"), (&named, "named"), (&late, "late")] {
            let mut bytes = vec![0; content.len()];
            file.read_exact_at(&mut bytes, 0).expect("it is open");
            assert_eq!(bytes, content.as_bytes());
            file.sync_all().expect("it is open");
        }
    }
    assert_eq!(held(&mounted), 3);
    drop((directory, replaced, named, late));
    eventually("nothing is held", || held(&mounted) == 0);
}

fn run(program: &str, arguments: &[&str]) {
    succeed(Command::new(program).args(arguments));
}

/// overlayfs: objects are found again by name, and no two requests wait for each other over that.
#[test]
fn without_file_handles_all_is_found_by_name() {
    if !has(&[Need::Mounts]) || !fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("overlay")) {
        return;
    }
    let layers = fsi_tests::mount::scratch();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
        let layer = layers.path().join(name);
        fs::create_dir(&layer).expect("a directory");
        layer.to_str().expect("a plain path").to_owned()
    });
    fs::create_dir_all(Path::new(&lower).join("a/b")).expect("directories");
    fs::write(Path::new(&lower).join("a/b/lower"), "lower").expect("a file");
    let mount = Mount::with_rules(RULES);
    let source = mount.source().to_str().expect("a plain path").to_owned();
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    run("mount", &["-t", "overlay", "overlay", "-o", &options, &source]);
    let mounted = mount.mount();
    // The mount has its own.
    run("umount", &[&source]);
    let at = |name: &str| mounted.target().join("a/b").join(name);
    let numbers = 0..300;
    for number in numbers.clone() {
        fs::write(at(&name(number)), number.to_string()).expect("a file");
    }
    let held: Vec<_> = numbers
        .clone()
        .step_by(7)
        .map(|number| (number, File::open(at(&name(number))).expect("it is there")))
        .collect();
    fs::write(at("unlinked"), "unlinked").expect("a file");
    let unlinked = File::open(at("unlinked")).expect("it is there");
    fs::remove_file(at("unlinked")).expect("it can be");
    for _ in 0..3 {
        mounted.kill_server();
        // Names are asked for again.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        std::thread::scope(|scope| {
            for part in 0..4 {
                let (at, numbers) = (&at, numbers.clone());
                scope.spawn(move || {
                    for number in numbers.skip(part).step_by(4) {
                        let read = fs::read_to_string(at(&name(number))).expect("it can be read");
                        assert_eq!(read, number.to_string());
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(at("lower")).expect("it can be read"), "lower");
        let held = held.iter().map(|(number, file)| (number.to_string(), file));
        for (content, file) in held.chain([("unlinked".to_owned(), &unlinked)]) {
            let mut bytes = vec![0; content.len()];
            file.read_exact_at(&mut bytes, 0).expect("it is open");
            assert_eq!(bytes, content.as_bytes());
            assert_eq!(file.metadata().expect("it is open").len(), content.len() as u64);
        }
    }
}
