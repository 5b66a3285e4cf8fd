//! Paths are those the process sees, at the time of the operation: across mounts and roots, after renames, whatever their bytes
//! and length; and where a path cannot be told, the span says why.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::path::Path;

use fsi_tests::fidelity::python;
use fsi_tests::fsi::text;
use fsi_tests::need::{Need, has};
use fsi_tests::observe::{Observation, Observe};
use fsi_tests::served::Served;
use fsi_tests::spans::Spans;
use tempfile::{TempDir, tempdir};

/// A directory, and its path without symbolic links.
fn directory() -> (TempDir, String) {
    let directory = tempdir().expect("a directory");
    let path = directory.path().canonicalize().expect("it is there");
    let path = path.to_str().expect("a plain path").to_owned();
    (directory, path)
}

/// What a Python program does in a directory.
fn run_python(directory: &Path, script: &str) -> Spans {
    let script = format!("import os\n{script}");
    finish(Observe::with(["--process", "python*"]).within(directory).run([&python(), "-S", "-c", &script]))
}

fn run_shell(directory: &Path, script: &str) -> Spans {
    finish(Observe::with(["--op", "open,read,unlink,rename,stat,close"]).within(directory).run(["sh", "-ec", script]))
}

fn finish(observation: Observation) -> Spans {
    observation.balances();
    assert_eq!(observation.metrics.losses(), Vec::<String>::new());
    observation.spans
}

#[test]
fn relative_and_absolute_names() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "os.mkdir('d'); os.close(os.open('d//./new', os.O_CREAT | os.O_WRONLY)); d = os.open('d', os.O_RDONLY)
os.stat('new', dir_fd=d); os.chdir('d'); os.access('new', os.R_OK); os.chmod('../d/new', 0o600); os.fchdir(d); os.statvfs('/')",
    );
    spans.expect("mkdir", &format!("{path}/d"));
    spans.expect("open", &format!("{path}/d/new"));
    spans.expect("stat", &format!("{path}/d/new"));
    spans.expect("chdir", &format!("{path}/d"));
    spans.expect("access", &format!("{path}/d/new"));
    spans.expect("chmod", &format!("{path}/d/../d/new"));
    spans.expect("statfs", "/");
}

#[test]
fn both_names_of_rename_link_and_symlink() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "open('a', 'w').close(); os.link('a', 'b'); os.rename('a', 'c'); os.symlink('to/ where', 'l'); os.readlink('l')",
    );
    let target = |name: &str, path: &str| spans.expect(name, path).attribute("fsi.target.path").to_owned();
    assert_eq!(target("link", &format!("{path}/a")), format!("{path}/b"));
    assert_eq!(target("rename", &format!("{path}/a")), format!("{path}/c"));
    assert_eq!(target("symlink", &format!("{path}/l")), "to/ where");
    spans.expect("readlink", &format!("{path}/l"));
}

#[test]
fn renamed_and_removed_while_open() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "f = os.open('a', os.O_CREAT | os.O_RDWR); os.rename('a', 'b'); os.write(f, b'x'); os.unlink('b'); os.pwrite(f, b'yz', 1)",
    );
    let file = spans.named("file").find(|span| span.path() == format!("{path}/a")).expect("the path it was opened by");
    assert_eq!(file.number("fsi.file.bytes_written"), 3);
    let writes: Vec<_> = spans.named("write").filter(|span| span.parent == file.id).collect();
    assert_eq!(writes.len(), 2, "both are under the file");
    spans.expect("unlink", &format!("{path}/b"));
}

#[test]
fn a_working_directory_that_is_renamed() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "os.makedirs('x/in'); os.chdir('x/in'); open('1', 'w').close(); os.rename('../../x', '../../y'); open('2', 'w').close()
os.rename('../../y/in', '../../y/out'); os.stat('2')",
    );
    spans.expect("open", &format!("{path}/x/in/1"));
    spans.expect("open", &format!("{path}/y/in/2"));
    spans.expect("stat", &format!("{path}/y/out/2"));
}

#[test]
fn a_tree_that_is_removed_and_made_again() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "
for i in range(40):
    name = 'x/' + chr(97 + i % 26) * (1 + i % 3)
    os.makedirs(name); os.chdir(name); open(f'f{i}', 'w').close(); os.unlink(f'f{i}'); os.chdir('../..'); os.removedirs(name)",
    );
    for i in 0_u8..40 {
        let name = char::from(b'a' + i % 26).to_string().repeat(1 + usize::from(i % 3));
        spans.expect("open", &format!("{path}/x/{name}/f{i}"));
        spans.expect("unlink", &format!("{path}/x/{name}/f{i}"));
    }
}

#[test]
fn a_working_directory_that_is_gone() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')
try: open('late', 'w')
except OSError: pass",
    );
    let late = spans.named("open").find(|span| span.path().ends_with("late")).expect("it is told");
    assert_eq!(late.path(), format!("{path}/gone/late"));
    assert_eq!(late.attribute("error.type"), "ENOENT");
}

#[test]
fn names_that_are_not_utf8() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        r"f = os.open(b'\xff\xfe\\z', os.O_CREAT | os.O_RDWR); os.write(f, b'x'); os.unlink(b'\xff\xfe\\z')",
    );
    for name in ["open", "write", "unlink", "file"] {
        let span = spans.expect(name, &format!("{path}/\u{fffd}\u{fffd}\\z"));
        assert_eq!(span.attribute("fsi.path.bytes"), format!("{path}/\\xff\\xfe\\\\z"), "{name}");
    }
}

#[test]
fn long_names_and_deep_directories() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "
n = 'n' * 255
for i in range(12): os.mkdir(n); os.chdir(n)
open('deep', 'w').close()
for i in range(12): os.mkdir(n); os.chdir(n)
open('deeper', 'w').close()",
    );
    let component = format!("/{}", "n".repeat(255));
    spans.expect("open", &format!("{path}{}/deep", component.repeat(12)));
    let deeper = spans.named("open").find(|span| span.path().ends_with("/deeper")).expect("it is told");
    assert_eq!(deeper.attribute("fsi.path.state"), "too_long");
    assert!(deeper.path().len() > 3800 && format!("{path}{}/deeper", component.repeat(24)).ends_with(deeper.path()));
}

#[test]
fn a_name_of_4095_bytes() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "name = os.getcwd() + '/d' * 100; os.makedirs(name); name += '/' * (4095 - 3 - len(name)) + 'end'
assert len(name) == 4095; open(name, 'w').close()
try: os.stat(name + 'x')
except OSError: pass",
    );
    spans.expect("open", &format!("{path}{}/end", "/d".repeat(100)));
    let refused = spans.named("stat").find(|span| span.attribute("error.type") == "ENAMETOOLONG").expect("it is told");
    assert!(refused.path().starts_with(&path), "{}", refused.path());
}

#[test]
fn bind_mounts_and_file_systems_over_directories() {
    if !has(&[Need::Probes, Need::Program("unshare")]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_shell(
        directory.path(),
        "mkdir real bound tmp; echo x >real/f; echo y >tmp/hidden; echo z >file
         exec unshare -m --propagation private sh -ec '
           mount --bind real bound; mount -t tmpfs none tmp; mkdir tmp/sub; echo t >tmp/sub/t; mount --bind file real/f
           cat bound/f real/f; cat tmp/sub/t; cd bound; cat f; cd ../tmp/sub; cat t; umount ../../real/f; cat ../../real/f'",
    );
    let inodes: Vec<_> = spans
        .named("open")
        .filter(|span| span.path().ends_with("/real/f"))
        .map(|span| span.attribute("file.inode"))
        .collect();
    assert!(
        inodes.len() == 3 && inodes[0] == inodes[2] && inodes[0] != inodes[1],
        "the file, the one over it, the file: {inodes:?}"
    );
    for name in ["/bound/f", "/real/f", "/tmp/sub/t"] {
        let file = spans.expect("read", &format!("{path}{name}"));
        assert_eq!(file.attribute("process.executable.name"), "cat");
    }
}

/// A root with the machine's programs in it, made where its namespace ends.
const CONTAINER: &str = "
  mkdir -p root/usr root/proc root/tmp root/data; for d in bin sbin lib lib64; do [ -e /$d ] && ln -s usr/$d root/$d; done
  exec unshare -mpfC --propagation private sh -ec '
    mount --bind /usr root/usr; mount -t tmpfs none root/data; mount -t proc none root/proc
    exec chroot root sh -ec \"echo hello >/data/f; cd /data; cat f; mkdir sub; cat ../tmp/none || rm /data/f; cat /proc/self/stat\"'";

#[test]
fn a_container_sees_its_own_paths() {
    if !has(&[Need::Probes, Need::Program("unshare")]) {
        return;
    }
    let (directory, path) = directory();
    let observation = Observe::with(["--process", "cat", "--process", "rm", "--process", "mkdir"])
        .within(directory.path())
        .run(["sh", "-ec", CONTAINER]);
    observation.balances();
    let spans = observation.spans;
    spans.expect("open", "/data/f");
    spans.expect("read", "/data/f");
    spans.expect("file", "/data/f");
    spans.expect("mkdir", "/data/sub");
    spans.expect("open", "/data/../tmp/none");
    assert!(spans.named("unlink").any(|span| span.path() == "/data/f"), "{:#?}", spans.paths("unlink"));
    assert!(spans.named("read").any(|span| span.path().starts_with("/proc/")), "{:?}", spans.paths("read"));
    let inside = spans.all.iter().filter(|span| span.attribute("process.executable.name") == "cat");
    assert!(inside.into_iter().all(|span| !span.path().starts_with(&path)), "no path of the host shows");
}

#[test]
fn a_file_that_was_open_before() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    std::fs::write(directory.path().join("f"), "x").expect("a file");
    let mut served = Served::start(&directory.path().join("f"));
    let running = Observe::with(["--pid", &served.pid()]).start();
    served.turn();
    let spans = running.stop().spans;
    let file = spans.named("file").find(|span| span.attribute("fsi.file.open_before") == "true").expect("it is told");
    assert_eq!(file.path(), format!("{path}/f"));
    assert!(spans.named("read").filter(|read| read.parent == file.id).count() >= 2, "reads are under it");
}

#[test]
fn addresses_that_cannot_be_read() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, _) = directory();
    let spans = run_python(directory.path(), "import ctypes; ctypes.CDLL(None).syscall(2, ctypes.c_void_p(1), 0)");
    let bad = spans.named("open").find(|span| span.attribute("error.type") == "EFAULT").expect("it is told");
    assert_eq!(bad.attribute("fsi.path.state"), "fault");
}

#[test]
fn totals_of_a_copy_are_on_the_right_files() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "a = os.open('a', os.O_CREAT | os.O_RDWR); os.write(a, b'0123456789'); b = os.open('b', os.O_CREAT | os.O_RDWR)
os.copy_file_range(a, b, 6, 0); os.lseek(a, 0, 0); os.sendfile(b, a, 0, 4)",
    );
    let total = |name: &str, key: &str| spans.expect("file", &format!("{path}/{name}")).number(key);
    assert_eq!((total("a", "fsi.file.bytes_read"), total("a", "fsi.file.bytes_written")), (10, 10));
    assert_eq!((total("b", "fsi.file.bytes_read"), total("b", "fsi.file.bytes_written")), (0, 10));
}

#[test]
fn paths_equal_what_the_kernel_says_of_descriptors() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, _) = directory();
    let script = "import os\nfor i in range(200):\n  f = os.open(f'/tmp/../proc/{os.getpid()}/task' if i % 7 == 0 else '/etc/passwd', 0)
  print(os.readlink(f'/proc/self/fd/{f}')); os.read(f, 1) if i % 7 else os.fstat(f); os.close(f)";
    let observation = Observe::with(["--op", "close"]).within(directory.path()).run([&python(), "-S", "-c", script]);
    let said = text(&observation.output.stdout);
    let closes: Vec<_> = observation.spans.named("close").map(|span| span.path().to_owned()).collect();
    let is_said: Vec<_> = said.lines().collect();
    let from = closes.len().checked_sub(is_said.len()).expect("all closes are told");
    assert!(closes.windows(is_said.len()).any(|window| window == is_said), "{:?}", &closes[from..]);
}

#[test]
fn a_mapping_that_is_synced() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, path) = directory();
    let spans = run_python(
        directory.path(),
        "import mmap; f = os.open('f', os.O_CREAT | os.O_RDWR); os.ftruncate(f, 4096); m = mmap.mmap(f, 4096); m[0] = 1; m.flush()
anonymous = mmap.mmap(-1, 4096); anonymous.flush()",
    );
    assert_eq!(spans.named("msync").count(), 1, "memory that is no file's is none");
    spans.expect("msync", &format!("{path}/f"));
}
