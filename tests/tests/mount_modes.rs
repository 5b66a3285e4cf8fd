//! Who reads and writes a file, the kernel or the server, for each way in which it can be open twice (`docs/SEMANTICS.md`); and that
//! all see the same bytes, by whichever descriptor and however they read and write.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use fsi_tests::mapped;
use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has};
use serde_json::Value;

/// Sees reads and writes, and does nothing for as long as any test runs.
const WATCH: &str = "version: 1
rules:
  - name: watch
    match: { ops: [read, write], path: watched }
    when: { after: 1h }
    do: { errno: EIO }
";

/// Whether a rule wants to see a file's reads and writes when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    No,
    Yes,
}

/// Who reads and writes by a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Kernel,
    Server,
}

const PAGES: usize = 16;
const BLOCK: usize = 4096;
const TIMES: usize = 50;

/// A mount with a file of zeros; rules come and go while it is open.
struct Case {
    mounted: Mounted,
    rules: tempfile::NamedTempFile,
}

impl Case {
    fn new(mount: Mount) -> Option<Self> {
        if !has(&[Need::Mounts, Need::Program("python3")]) {
            return None;
        }
        fs::write(mount.source().join("watched"), vec![0; PAGES * BLOCK]).expect("a file");
        let rules = tempfile::NamedTempFile::new().expect("a file");
        fs::write(rules.path(), WATCH).expect("it can be written");
        Some(Self { mounted: mount.mount(), rules })
    }

    fn open(&self, wanted: Wanted) -> File {
        match wanted {
            Wanted::Yes => self.mounted.ctl(["set", self.rules.path().to_str().expect("a plain path")]),
            Wanted::No => self.mounted.ctl(["clear"]),
        };
        OpenOptions::new().read(true).write(true).open(self.mounted.target().join("watched")).expect("it is there")
    }

    fn shown(&self, field: &str) -> u64 {
        let shown: Value = serde_json::from_str(&self.mounted.ctl(["--json", "show"])).expect("a document");
        shown[field].as_u64().expect("a number")
    }

    /// By the requests that the server counts.
    fn who(&self, mut operation: impl FnMut(u64)) -> By {
        let before = self.shown("requests");
        (0..TIMES).for_each(|time| operation((time % PAGES * BLOCK) as u64));
        let requests = self.shown("requests") - before;
        // Before its first write to a file the kernel asks once whether it has capabilities.
        assert!(requests <= 1 || requests >= TIMES as u64, "{requests} requests for {TIMES} operations");
        if requests <= 1 { By::Kernel } else { By::Server }
    }

    fn reads_and_writes(&self, file: &File) -> [By; 2] {
        let mut block = [0; BLOCK];
        let reads = self.who(|at| file.read_exact_at(&mut block, at).expect("it can be read"));
        let writes = self.who(|at| file.write_all_at(&[7; BLOCK], at).expect("it can be written"));
        [reads, writes]
    }
}

/// Each writes in each way, and then each reads it in each way; so does who reads the file below.
fn all_see_the_same(case: &Case, files: &[&File]) {
    let below = File::open(case.mounted.source().join("watched")).expect("it is there");
    let mut turn = 0;
    for writer in files {
        for is_mapped in [false, true] {
            turn += 1;
            let text = format!("turn {turn:04}");
            // Across the border of two pages.
            let at = (BLOCK * (turn % (PAGES - 1) + 1) - 4) as u64;
            if is_mapped {
                mapped::write(writer, at, &text);
            } else {
                writer.write_all_at(text.as_bytes(), at).expect("it can be written");
            }
            for (number, reader) in files.iter().enumerate() {
                let mut bytes = vec![0; text.len()];
                reader.read_exact_at(&mut bytes, at).expect("it can be read");
                assert_eq!(String::from_utf8_lossy(&bytes), text, "read by descriptor {number}");
                let bytes = mapped::read(reader, at, text.len());
                assert_eq!(String::from_utf8_lossy(&bytes), text, "mapped by descriptor {number}");
            }
            let mut bytes = vec![0; text.len()];
            below.read_exact_at(&mut bytes, at).expect("it can be read");
            assert_eq!(String::from_utf8_lossy(&bytes), text, "read below");
        }
    }
}

/// Two descriptors, one after the other; `passthrough`: how many of them the mount then says are.
fn pair(first: (Wanted, By), second: (Wanted, By), passthrough: u64) {
    let Some(case) = Case::new(Mount::plain()) else { return };
    let one = case.open(first.0);
    assert_eq!(case.reads_and_writes(&one), [first.1; 2], "the first");
    let two = case.open(second.0);
    assert_eq!(case.reads_and_writes(&two), [second.1; 2], "the second");
    assert_eq!(case.reads_and_writes(&one), [first.1; 2], "the first, after the second was opened");
    assert_eq!((case.shown("open_files"), case.shown("open_passthrough")), (2, passthrough));
    all_see_the_same(&case, &[&one, &two]);
    // Whoever remains goes on, and who comes when all are gone is judged anew.
    drop(one);
    assert_eq!(case.reads_and_writes(&two), [second.1; 2], "the second alone");
    all_see_the_same(&case, &[&two]);
    drop(two);
    fsi_tests::eventually::eventually("both are closed", || case.shown("open_files") == 0);
    assert_eq!(case.reads_and_writes(&case.open(Wanted::No)), [By::Kernel; 2]);
    fsi_tests::eventually::eventually("it is closed", || case.shown("open_files") == 0);
    assert_eq!(case.reads_and_writes(&case.open(Wanted::Yes)), [By::Server; 2]);
}

#[test]
fn unwatched_after_unwatched() {
    pair((Wanted::No, By::Kernel), (Wanted::No, By::Kernel), 2);
}

#[test]
fn watched_after_unwatched() {
    pair((Wanted::No, By::Kernel), (Wanted::Yes, By::Server), 1);
}

#[test]
fn unwatched_after_watched() {
    pair((Wanted::Yes, By::Server), (Wanted::No, By::Server), 0);
}

#[test]
fn watched_after_watched() {
    pair((Wanted::Yes, By::Server), (Wanted::Yes, By::Server), 0);
}

/// All three kinds at once, and the oldest goes first.
#[test]
fn a_third_agrees_with_the_first_two() {
    let Some(case) = Case::new(Mount::plain()) else { return };
    let (one, two, three) = (case.open(Wanted::No), case.open(Wanted::Yes), case.open(Wanted::No));
    all_see_the_same(&case, &[&one, &two, &three]);
    drop(one);
    all_see_the_same(&case, &[&two, &three]);
    drop(three);
    assert_eq!(case.reads_and_writes(&two), [By::Server; 2]);
    assert_eq!(case.reads_and_writes(&case.open(Wanted::No)), [By::Kernel; 2], "the inode is still in passthrough");
}

#[test]
fn without_passthrough_all_come_to_the_server() {
    let Some(case) = Case::new(Mount::plain().option("--no-passthrough")) else { return };
    let (one, two) = (case.open(Wanted::No), case.open(Wanted::Yes));
    for file in [&one, &two] {
        assert_eq!(case.reads_and_writes(file), [By::Server; 2]);
    }
    assert_eq!(case.shown("open_passthrough"), 0);
    all_see_the_same(&case, &[&one, &two]);
}
