//! What `fsi mount` and `fsi umount` refuse, each in one sentence and with nothing left mounted; and what a mount does when the
//! disk below it is full or gone.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fsi_tests::fsi::{fsi, output, text};
use fsi_tests::mount::{Mount, Mounted, is_mounted, scratch};
use fsi_tests::need::{Need, has};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

const WRONG_USAGE: i32 = 2;
const FAILED: i32 = 1;

/// A directory with `source`, `source/below`, `target`, `target/below`, `full/file`, `empty` and a `file`.
fn places() -> Option<TempDir> {
    if !has(&[Need::Mounts]) {
        return None;
    }
    let places = scratch();
    for directory in ["source/below", "target/below", "full", "empty"] {
        fs::create_dir_all(places.path().join(directory)).expect("directories");
    }
    for file in ["file", "full/file"] {
        fs::write(places.path().join(file), "x").expect("a file");
    }
    Some(places)
}

/// Runs `fsi` there, which must fail so: one line on stderr that says all of `words`, nothing on stdout.
#[track_caller]
fn refused<I: AsRef<OsStr>>(at: &Path, arguments: impl IntoIterator<Item = I>, code: i32, words: &[&str]) {
    let output = output(fsi(arguments).current_dir(at));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(text(&output.stdout), "");
    assert!(said.starts_with("fsi: ") && said.trim_end().lines().count() == 1, "one sentence: {said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("every process has one");
    assert!(!mounts.contains(at.to_str().expect("a plain path")), "nothing is mounted: {mounts}");
}

#[test]
fn places_that_cannot_be() {
    let Some(places) = places() else { return };
    let cases: &[(&[&str], &[&str])] = &[
        (&["missing", "empty"], &["SOURCE missing", "No such file"]),
        (&["file", "empty"], &["SOURCE file is no directory"]),
        (&["source", "missing"], &["TARGET missing", "No such file"]),
        (&["source", "file"], &["TARGET file is no directory"]),
        (&["source", "full"], &["TARGET", "full is not empty", "--nonempty"]),
        (&["source", "source/below"], &["TARGET", "source/below is below SOURCE"]),
        (&["target/below", "target"], &["SOURCE", "target/below is below TARGET"]),
        (&["--nonempty", "target/below", "target"], &["SOURCE", "target/below is below TARGET"]),
        (&["source", "empty/../source/below"], &["source/below is below SOURCE"]),
        (&["source"], &["<TARGET>"]),
        (&["source", "empty", "more"], &["'more'"]),
        (&["--thread", "2", "source", "empty"], &["'--thread'", "'--threads'"]),
    ];
    for (arguments, words) in cases {
        refused(places.path(), ["mount"].iter().chain(*arguments), WRONG_USAGE, words);
    }
}

#[test]
fn without_root() {
    let Some(places) = places() else { return };
    if !has(&[Need::Program("setpriv")]) {
        return;
    }
    // Others may not reach the place where it was built.
    let copy = places.path().join("fsi");
    fs::copy(fsi_tests::fsi::binary(), &copy).expect("a copy");
    fs::set_permissions(places.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let refused = |lacking: &[&str], sentence: &str| {
        let mut command = Command::new("setpriv");
        command.args(lacking).arg(&copy).args(["mount", "source", "empty"]).current_dir(places.path());
        let output = output(&mut command);
        assert_eq!((output.status.code(), text(&output.stderr).trim()), (Some(2), sentence));
    };
    refused(&["--reuid=65534", "--regid=65534", "--clear-groups"], "fsi: mounting needs root");
    refused(
        &["--bounding-set=-sys_admin"],
        "fsi: mounting needs CAP_SYS_ADMIN, and this process does not have it, although it is root's",
    );
}

/// Rules that are wrong by one letter, where, and what might have been meant.
#[test]
fn rules_wrong_by_one_letter() {
    let Some(places) = places() else { return };
    let good = "version: 1\nseed: 7\nrules:\n  - name: a\n    match: { ops: [read], path: 'a/**' }\n    when: { every: 3 }\n    do: { errno: EIO }\n";
    let cases = [
        ("version", "versio", "line 1, column 1", "`version`"),
        ("seed", "sed", "line 2, column 1", "`seed`"),
        ("seed: 7", "seed: z", "line 2, column 7", "seed"),
        ("rules", "rule", "line 3, column 1", "`rules`"),
        ("name", "nam", "line 4, column 5", "`name`"),
        ("match", "mtch", "line 5, column 5", "`match`"),
        ("ops", "opss", "line 5, column 14", "`ops`"),
        ("read", "reed", "line 5, column 20", "`read`"),
        ("a/**'", "a/[*'", "line 5, column 33", "`[`"),
        ("every", "evry", "line 6, column 13", "`every`"),
        ("errno", "erno", "line 7, column 11", "`errno`"),
        ("EIO", "EI0", "line 7, column 18", "EIO"),
    ];
    let file = places.path().join("rules.yaml");
    for (right, wrong, place, allowed) in cases {
        assert_eq!(good.matches(right).count(), 1, "{right} is one word of it");
        fs::write(&file, good.replace(right, wrong)).expect("a file");
        let arguments = ["mount", "--rules", "rules.yaml", "source", "empty"];
        refused(places.path(), arguments, WRONG_USAGE, &["--rules rules.yaml", place, allowed]);
    }
    refused(
        places.path(),
        ["mount", "--rules", "missing", "source", "empty"],
        WRONG_USAGE,
        &["--rules missing", "No such file"],
    );
    fs::write(&file, "{\"rule\": \"a\"}\n").expect("a file");
    let replayed = ["mount", "--replay", "rules.yaml", "source", "empty"];
    refused(places.path(), replayed, WRONG_USAGE, &["--replay rules.yaml", "line 1"]);
}

/// What the server finds out when it starts ends the mount too.
#[test]
fn outputs_that_cannot_be() {
    let Some(places) = places() else { return };
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--fault-log", "missing/log"], FAILED, &["fault log", "missing/log", "No such file"]),
        (&["--spans", "missing/spans"], FAILED, &["--spans", "missing/spans", "No such file"]),
        (&["--otlp", "somewhere"], FAILED, &["--otlp", "somewhere", "grpc://HOST:4317"]),
        (&["--log", "missing/log"], WRONG_USAGE, &["--log missing/log", "No such file"]),
        (&["--threads", "0"], WRONG_USAGE, &["--threads", "1..=256"]),
        (&["--attr-timeout", "1"], WRONG_USAGE, &["--attr-timeout"]),
    ];
    for (options, code, words) in cases {
        let arguments = ["mount"].iter().chain(*options).chain(&["source", "empty"]);
        refused(places.path(), arguments, *code, words);
    }
}

fn mounted(mount: Mount) -> Option<Mounted> {
    has(&[Need::Mounts]).then(|| mount.mount())
}

#[track_caller]
fn says(output: &std::process::Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one sentence: {said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_target_that_is_mounted_already() {
    let Some(mounted) = mounted(Mount::plain()) else { return };
    let (source, target) = (mounted.source(), mounted.target());
    fs::write(source.join("file"), "there").expect("a file");
    for source in [source.clone(), target.clone()] {
        says(&output(fsi(["mount"]).args([&source, &target])), WRONG_USAGE, &["is an fsi mount already", "fsi umount"]);
    }
    says(&output(fsi(["mount", "--nonempty"]).args([&source, &target])), WRONG_USAGE, &["is an fsi mount already"]);
    assert_eq!(fs::read_to_string(target.join("file")).expect("it is served"), "there");
}

#[test]
fn a_target_that_is_not_empty_is_covered_by_choice() {
    let Some(places) = places() else { return };
    let target = places.path().join("full");
    let done = |command: &mut Command| {
        let output = output(command);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    fs::write(places.path().join("source/of source"), "x").expect("a file");
    done(fsi(["mount", "--nonempty", "source", "full"]).current_dir(places.path()));
    let shown = (target.join("of source").exists(), target.join("file").exists());
    done(fsi(["umount", "full"]).current_dir(places.path()));
    assert_eq!(shown, (true, false));
    assert!(target.join("file").exists(), "what was covered is there");
    // Over itself: what is done to SOURCE from now on goes through the mount.
    done(fsi(["mount", "--nonempty", "source", "source"]).current_dir(places.path()));
    let shown = (places.path().join("source/of source").exists(), is_mounted(&places.path().join("source")));
    done(fsi(["umount", "source"]).current_dir(places.path()));
    assert_eq!(shown, (true, true));
}

#[test]
fn unmounting_what_is_no_mount() {
    let Some(places) = places() else { return };
    for target in ["empty", "missing", "file"] {
        refused(places.path(), ["umount", target], WRONG_USAGE, &[&format!("TARGET {target} is no fsi mount")]);
    }
    refused(places.path(), ["umount", "missing/directory"], WRONG_USAGE, &["TARGET missing/directory", "No such file"]);
    refused(places.path(), ["umount"], WRONG_USAGE, &["<TARGET>"]);
    let tmpfs = places.path().join("empty");
    rustix::mount::mount("tmpfs", &tmpfs, "tmpfs", MountFlags::empty(), None).expect("a mount");
    let output = output(fsi(["umount"]).arg(&tmpfs));
    rustix::mount::unmount(&tmpfs, UnmountFlags::empty()).expect("it is mounted still");
    says(&output, WRONG_USAGE, &["is no fsi mount"]);
}

/// Whoever stands in the way is named, and served meanwhile.
#[test]
fn unmounting_what_is_in_use() {
    let Some(mounted) = mounted(Mount::plain()) else { return };
    let target = mounted.target();
    let mut shell = Command::new("sh");
    shell.args(["-c", "read line; echo $line > file; cat file"]).current_dir(&target);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh starts");
    let name = format!("sh (pid {}): working directory", shell.id());
    // A child may not have come there yet.
    fsi_tests::eventually::eventually("it stands in the mount", || !fsi_tests::mount::busy(&target).is_empty());
    says(&mounted.try_unmount(), FAILED, &["is in use", &name, "--lazy"]);
    let open = fs::File::create(target.join("open")).expect("a file");
    let own = format!("(pid {})", std::process::id());
    says(&mounted.try_unmount(), FAILED, &["is in use", &name, &own]);
    drop(open);
    assert!(is_mounted(&target));
    shell.stdin.take().expect("it is piped").write_all(b"served\n").expect("it reads");
    let output = shell.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stdout), "served\n");
}

#[test]
fn a_read_only_mount_refuses_to_write() {
    let Some(mounted) = mounted(Mount::plain().option("--read-only")) else { return };
    let (source, target) = (mounted.source(), mounted.target());
    fs::write(source.join("file"), "there").expect("a file");
    assert_eq!(fs::read_to_string(target.join("file")).expect("it can be read"), "there");
    let errno = |result: std::io::Result<()>| result.map_err(|error| Errno::from_io_error(&error));
    let read_only = Err(Some(Errno::ROFS));
    assert_eq!(errno(fs::write(target.join("file"), "x")), read_only);
    assert_eq!(errno(fs::write(target.join("new"), "x")), read_only);
    assert_eq!(errno(fs::create_dir(target.join("new"))), read_only);
    assert_eq!(errno(fs::remove_file(target.join("file"))), read_only);
    assert_eq!(errno(fs::rename(target.join("file"), target.join("other"))), read_only);
    assert_eq!(fs::read_to_string(source.join("file")).expect("it is there"), "there");
}

/// A small file system at SOURCE, for as long as the value lives.
struct Small(PathBuf);

impl Small {
    fn at(place: PathBuf) -> Self {
        rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::empty(), Some(c"size=1m,mode=755"))
            .expect("a mount");
        Self(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A test may have taken it away already.
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap_or_default();
    }
}

/// Sees every operation and does nothing.
const EVERYTHING: &str = "version: 1\nrules:\n  - { name: everything, when: { after: 1h }, do: { errno: EIO } }\n";

#[test]
fn a_full_disk_below_is_full_here() {
    for mount in [Mount::plain, || Mount::with_rules(EVERYTHING)] {
        if !has(&[Need::Mounts]) {
            return;
        }
        let mount = mount();
        let small = Small::at(mount.source());
        let mounted = mount.mount();
        // The mount keeps what it was given, and the directory can be removed at the end.
        drop(small);
        let path = mounted.target().join("file");
        let mut file = fs::File::create(&path).expect("a file");
        let block = [1; 10_000];
        let (mut written, error) = (
            0_usize,
            loop {
                if let Err(error) = file.write_all(&block) {
                    break error;
                }
            },
        );
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC));
        written += usize::try_from(file.metadata().expect("it is open").len()).expect("it is small");
        assert_eq!(written, 1 << 20, "to the last page");
        let free = rustix::fs::statvfs(mounted.target()).expect("it answers");
        assert_eq!((free.f_blocks * free.f_frsize, free.f_bfree), (1 << 20, 0));
        let error = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 << 20);
        assert_eq!(error, Err(Errno::NOSPC));
        // Room comes back, here as there.
        file.set_len(1000).expect("it can be cut");
        assert_eq!(fs::read(&path).expect("it can be read"), [1; 1000]);
        fs::write(mounted.target().join("other"), block).expect("there is room again");
    }
}

#[test]
fn a_source_that_is_unmounted_is_served_on() {
    for mount in [Mount::plain, || Mount::with_rules(EVERYTHING)] {
        if !has(&[Need::Mounts]) {
            return;
        }
        let mount = mount();
        let small = Small::at(mount.source());
        let mounted = mount.mount();
        fs::write(mounted.target().join("before"), "before").expect("a file");
        drop(small);
        assert!(!mounted.source().join("before").exists(), "it is gone from SOURCE");
        assert_eq!(fs::read_to_string(mounted.target().join("before")).expect("it is served"), "before");
        fs::write(mounted.target().join("after"), "after").expect("a file");
        assert_eq!(fs::read_to_string(mounted.target().join("after")).expect("it is served"), "after");
        // What takes its place in SOURCE is another file system.
        fs::write(mounted.source().join("bare"), "x").expect("a file");
        assert!(!mounted.target().join("bare").exists());
    }
}

/// A disk that fails, which is a mount of our own: its errno is what the application gets, and its other files are as good as ever.
#[test]
fn errors_of_the_disk_below_come_through() {
    if !has(&[Need::Mounts, Need::Program("mount")]) {
        return;
    }
    let rules = "version: 1\nrules: [{ name: broken, match: { ops: [read, write, fsync, unlink], path: bad }, do: { errno: EIO } }]\n";
    let below = Mount::with_rules(rules).mount();
    for name in ["bad", "good"] {
        fs::write(below.source().join(name), name).expect("a file");
    }
    let above = Mount::plain();
    let source = above.source();
    fsi_tests::fsi::succeed(Command::new("mount").arg("--bind").arg(below.target()).arg(&source));
    let above = above.mount();
    // The mount keeps what it was given.
    rustix::mount::unmount(&source, UnmountFlags::DETACH).expect("it is mounted");
    let path = above.target().join("bad");
    let writer = || fs::OpenOptions::new().write(true).open(&path).expect("it can be opened");
    for (what, result) in [
        ("read", fs::read(&path).map(drop)),
        ("write", writer().write_all(b"x")),
        ("fsync", writer().sync_all()),
        ("unlink", fs::remove_file(&path)),
    ] {
        let error = result.expect_err(what);
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{what}");
    }
    let good = above.target().join("good");
    fs::write(&good, "better").expect("the neighbour can be written");
    assert_eq!(fs::read(&good).expect("and read"), b"better");
}
