//! Requests that come a second time, after the server they came to first was killed at some point of its work.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rustix::fs::{AtFlags, CWD, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use tempfile::TempDir;

use super::names::inode;
use super::*;
use crate::fuse::control::Controlled as _;
use crate::fuse::device::Device;
use crate::fuse::fake::Memory;
use crate::fuse::fault_log;
use crate::fuse::node::ROOT;
use crate::fuse::report::NoReports;
use crate::fuse::state::Word;
use crate::fuse::under_way::Before;
use crate::fuse::undo::Undo;

/// Marks a request that the kernel sends again.
const AGAIN: u64 = 1 << 63;
const UNIQUE: u64 = 42;

/// Holds what it is given for as long as the mount lives.
#[derive(Debug, Default)]
struct Holds(Mutex<Vec<(u64, OwnedFd)>>);

impl Keeper for Holds {
    fn hold(&self, node: u64, file: BorrowedFd<'_>) -> io::Result<()> {
        self.0.lock().unwrap().push((node, file.try_clone_to_owned()?));
        Ok(())
    }
    fn drop(&self, node: u64) -> io::Result<()> {
        self.0.lock().unwrap().retain(|(held, _)| *held != node);
        Ok(())
    }
    fn held(&self) -> Vec<(u64, OwnedFd)> {
        Vec::new()
    }
    fn upgrade(&self, _binary: &Path) -> io::Error {
        io::ErrorKind::Unsupported.into()
    }
}

/// What outlives the servers of a mount.
struct Kept {
    source: TempDir,
    state: OwnedFd,
    undo: OwnedFd,
    memory: OwnedFd,
    faults: OwnedFd,
    rules: &'static str,
}

impl Kept {
    fn with_rules(rules: &'static str) -> Self {
        let source = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let (state, undo, memory) = (State::create().unwrap(), Undo::create().unwrap(), Memory::create().unwrap());
        Self { source, state, undo, memory, faults: fault_log::create().unwrap(), rules }
    }

    fn new() -> Self {
        Self::with_rules("")
    }

    fn server(&self) -> Arc<Interposer> {
        let source = rustix::fs::open(self.source.path(), OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let fs = Interposer::build(Parts {
            source: source.unwrap(),
            state: State::open(self.state.as_fd()).unwrap(),
            device: Device::new(File::open("/dev/null").unwrap().into(), 0, false),
            keeper: Arc::new(Holds::default()),
            reports: Arc::new(NoReports),
            undo: self.undo.try_clone().unwrap(),
            memory: self.memory.try_clone().unwrap(),
            faults: self.faults.try_clone().unwrap(),
            held: Vec::new(),
            ttl: Duration::ZERO,
            about: About { source: PathBuf::new(), target: PathBuf::new(), device: String::new(), keeper_pid: 0 },
        })
        .unwrap();
        fs.arm_kept(self.rules).unwrap();
        fs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.source.path().join(name)
    }

    /// What names stand for now.
    fn stand_for(&self, name: &str, target: &str) -> (u64, u64) {
        let number = |name: &str| match name {
            "" => 0,
            name => inode(CWD, self.path(name).to_str().unwrap().as_bytes()),
        };
        (number(name), number(target))
    }

    /// A server that is killed before it looked at anything.
    fn killed_at_once(&self, unique: u64) {
        std::mem::forget(self.server().under_way.begin(unique, 1));
    }

    /// A server that is killed after it looked what the names stand for and did `work`.
    fn killed_after(&self, unique: u64, (name, target): (&str, &str), work: impl FnOnce()) -> Before {
        self.killed_after_noting(unique, self.stand_for(name, target), work)
    }

    fn killed_after_noting(&self, unique: u64, stands_for: (u64, u64), work: impl FnOnce()) -> Before {
        let guard = self.server().under_way.begin(unique, 1);
        let before = guard.before(|| stands_for);
        work();
        std::mem::forget(guard);
        before
    }
}

const fn again() -> Call {
    Call { unique: UNIQUE | AGAIN, tid: 0, uid: 0, gid: 0 }
}

const fn first(unique: u64) -> Call {
    Call { unique, tid: 0, uid: 0, gid: 0 }
}

/// What a request is answered.
fn answered<T: Send + 'static>(request: impl FnOnce(Box<dyn FnOnce(Result<T, Errno>) + Send>)) -> Result<T, Errno> {
    let (tell, told) = mpsc::channel();
    request(Box::new(move |answer| drop(tell.send(answer))));
    told.recv().unwrap()
}

fn unlinks(fs: &Arc<Interposer>, call: Call, name: &str) -> Result<(), Errno> {
    answered(|answer| fs.unlink(call, ROOT, name.as_bytes(), answer))
}

fn makes(fs: &Arc<Interposer>, name: &str) -> Result<(), Errno> {
    answered(|answer| fs.mkdir(again(), ROOT, name.as_bytes(), 0o755, 0, answer)).map(drop)
}

fn creates(fs: &Arc<Interposer>, name: &str) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::EXCL;
    answered(|answer| fs.create(again(), ROOT, name.as_bytes(), 0o644, 0, flags, answer)).map(drop)
}

fn renames(fs: &Arc<Interposer>, flags: RenameFlags) -> Result<(), Errno> {
    answered(|answer| fs.rename(again(), ROOT, b"a", ROOT, b"b", flags, answer))
}

fn number(fs: &Arc<Interposer>, name: &str) -> u64 {
    answered(|answer| fs.lookup(first(2), ROOT, name.as_bytes(), answer)).unwrap().number
}

#[test]
fn a_removal_is_answered_as_if_done_once() {
    let kept = Kept::new();
    let remove = |name: &'static str| {
        let path = kept.path(name);
        move || fs::remove_file(path).unwrap()
    };
    for name in ["once", "late", "missing"] {
        fs::write(kept.path(name), "x").unwrap();
    }
    assert!(!kept.killed_after(UNIQUE, ("once", ""), remove("once")).begun);
    assert_eq!(unlinks(&kept.server(), again(), "once"), Ok(()));
    // The first one had not begun, the second one had done it.
    kept.killed_at_once(UNIQUE);
    assert!(!kept.killed_after(UNIQUE | AGAIN, ("late", ""), remove("late")).begun);
    assert_eq!(unlinks(&kept.server(), again(), "late"), Ok(()));
    // It was gone before anyone began.
    fs::remove_file(kept.path("missing")).unwrap();
    kept.killed_after(UNIQUE, ("missing", ""), || {});
    assert_eq!(unlinks(&kept.server(), again(), "missing"), Err(Errno::NOENT));
    // Done, and somebody made another file of that name directly below.
    fs::write(kept.path("other"), "x").unwrap();
    kept.killed_after(UNIQUE, ("other", ""), || {
        fs::write(kept.path("new"), "new").unwrap();
        fs::rename(kept.path("new"), kept.path("other")).unwrap();
    });
    assert_eq!(unlinks(&kept.server(), again(), "other"), Ok(()));
    assert_eq!(fs::read(kept.path("other")).unwrap(), b"new", "it is not the one that was to be removed");
}

#[test]
fn a_rename_is_answered_as_if_done_once() {
    for flags in [RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE] {
        let kept = Kept::new();
        fs::write(kept.path("a"), "a").unwrap();
        if flags != RenameFlags::NOREPLACE {
            fs::write(kept.path("b"), "b").unwrap();
        }
        kept.killed_at_once(UNIQUE);
        kept.killed_after(UNIQUE | AGAIN, ("a", "b"), || {
            rustix::fs::renameat_with(CWD, kept.path("a"), CWD, kept.path("b"), flags).unwrap();
        });
        assert_eq!(renames(&kept.server(), flags), Ok(()), "{flags:?}");
        assert_eq!(fs::read(kept.path("b")).unwrap(), b"a");
        assert_eq!(fs::read(kept.path("a")).ok(), (flags == RenameFlags::EXCHANGE).then(|| b"b".to_vec()));
    }
    let kept = Kept::new();
    kept.killed_after(UNIQUE, ("a", "b"), || {});
    assert_eq!(renames(&kept.server(), RenameFlags::empty()), Err(Errno::NOENT), "there was nothing");
}

#[test]
fn what_was_made_is_told_from_what_was_there() {
    type Request = fn(&Arc<Interposer>, &str) -> Result<(), Errno>;
    let make: fn(PathBuf) = |path| fs::create_dir(path).unwrap();
    let create: fn(PathBuf) = |path| drop(File::create_new(path).unwrap());
    for (request, work) in [(makes as Request, make), (creates as Request, create)] {
        let kept = Kept::new();
        kept.killed_at_once(UNIQUE);
        kept.killed_after(UNIQUE | AGAIN, ("ours", ""), || work(kept.path("ours")));
        assert_eq!(request(&kept.server(), "ours"), Ok(()));
        // Somebody made it a moment before the request came: neither server did it.
        work(kept.path("theirs"));
        kept.killed_after(UNIQUE, ("theirs", ""), || {});
        assert_eq!(request(&kept.server(), "theirs"), Err(Errno::EXIST));
        kept.killed_at_once(UNIQUE);
        assert_eq!(request(&kept.server(), "theirs"), Err(Errno::EXIST));
    }
}

#[test]
fn a_link_is_told_from_one_that_was_there() {
    let kept = Kept::new();
    fs::write(kept.path("file"), "x").unwrap();
    let file = number(&kept.server(), "file");
    let links = |name: &str| {
        let fs = kept.server();
        answered(|answer| fs.link(again(), file, ROOT, name.as_bytes(), answer)).map(drop)
    };
    kept.killed_after(UNIQUE, ("ours", ""), || fs::hard_link(kept.path("file"), kept.path("ours")).unwrap());
    assert_eq!(links("ours"), Ok(()));
    fs::hard_link(kept.path("file"), kept.path("theirs")).unwrap();
    kept.killed_after(UNIQUE, ("theirs", ""), || {});
    assert_eq!(links("theirs"), Err(Errno::EXIST));
}

#[test]
fn attributes_that_were_set_or_removed_are_told_from_those_that_were() {
    let kept = Kept::new();
    fs::write(kept.path("file"), "x").unwrap();
    let file = number(&kept.server(), "file");
    let create = XattrFlags::CREATE;
    let set = || rustix::fs::setxattr(kept.path("file"), "user.a", b"1", create).unwrap();
    let remove = || rustix::fs::removexattr(kept.path("file"), "user.a").unwrap();
    let sets = || {
        let fs = kept.server();
        answered(|answer| fs.setxattr(again(), file, b"user.a", b"1", create.bits(), answer))
    };
    let removes = || {
        let fs = kept.server();
        answered(|answer| fs.removexattr(again(), file, b"user.a", answer))
    };
    kept.killed_after_noting(UNIQUE, (0, 0), set);
    assert_eq!(sets(), Ok(()));
    kept.killed_after_noting(UNIQUE, (1, 0), || {});
    assert_eq!(sets(), Err(Errno::EXIST));
    kept.killed_at_once(UNIQUE);
    assert_eq!(sets(), Err(Errno::EXIST));
    kept.killed_after_noting(UNIQUE, (1, 0), remove);
    assert_eq!(removes(), Ok(()));
    kept.killed_after_noting(UNIQUE, (0, 0), || {});
    assert_eq!(removes(), Err(Errno::NODATA));
    kept.killed_at_once(UNIQUE);
    assert_eq!(removes(), Err(Errno::NODATA));
}

/// A file that ends with the server that removed it gives its bytes back once, whether the successor counted the volume or not.
#[test]
fn bytes_of_a_file_that_ended_with_its_server_come_free_once() {
    const BYTES: usize = 65_536;
    let kept = Kept::with_rules("version: 1\ncapacity: 1GiB\n");
    for is_counted in [true, false] {
        fs::write(kept.path("stays"), [1; BYTES]).unwrap();
        fs::write(kept.path("goes"), [1; BYTES]).unwrap();
        File::open(kept.path("goes")).unwrap().sync_all().unwrap();
        let state = State::open(kept.state.as_fd()).unwrap();
        let used = || state.word(Word::Used).load(Ordering::Acquire);
        state.word(Word::UsedCounted).store(0, Ordering::Release);
        let server = kept.server();
        let all = used();
        let gone = number(&server, "goes");
        let bytes = rustix::fs::statx(CWD, kept.path("goes"), AtFlags::empty(), rustix::fs::StatxFlags::BLOCKS);
        let bytes = bytes.unwrap().stx_blocks * 512;
        let guard = server.under_way.begin(UNIQUE, 1);
        {
            let armed = server.armed();
            let decision = Default::default();
            let way = Way::new(&decision, &guard, &armed);
            way.under.before(|| (gone, 0));
            server.loses_a_name(&way, gone);
        }
        fs::remove_file(kept.path("goes")).unwrap();
        std::mem::forget(guard);
        drop(server);
        let next = kept.server();
        assert_eq!(used(), all - bytes, "the successor counted");
        if !is_counted {
            // As a successor that had no time to count.
            state.word(Word::Used).store(all, Ordering::Release);
            for (_, words) in state.requests().used(u64::MAX) {
                words[8].store(bytes + 1, Ordering::Release);
            }
        }
        assert_eq!(unlinks(&next, again(), "goes"), Ok(()));
        assert_eq!(used(), all - bytes, "counted: {is_counted}");
        // A directory was never counted.
        fs::create_dir(kept.path("directory")).unwrap();
        number(&next, "directory");
        assert_eq!(answered(|answer| next.rmdir(first(4), ROOT, b"directory", answer)), Ok(()));
        assert_eq!(used(), all - bytes, "of a directory nothing comes free");
    }
}

/// An answer that waits for its delay when its server is killed was told already.
#[test]
fn a_fault_is_logged_and_counted_once() {
    let kept = Kept::with_rules(
        "version: 1\nrules:\n  - { name: slow, match: { ops: [mkdir] }, do: { delay: 1h } }\n  - { name: slower, match: { ops: [mkdir] }, do: { delay: 1h } }\n",
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let logged = || fs::read_to_string(file.path()).unwrap().lines().count();
    let server = || {
        let fs = kept.server();
        fs.log_to(File::options().append(true).open(file.path()).unwrap());
        fs
    };
    let begins = |fs: &Arc<Interposer>, call: Call| fs.mkdir(call, ROOT, b"slow", 0o755, 0, |_answer| {});
    let first_server = server();
    begins(&first_server, first(UNIQUE));
    assert_eq!(first_server.status().faults_injected, 2);
    std::mem::forget(first_server);
    for _ in 0..2 {
        let next = server();
        begins(&next, again());
        assert_eq!((next.status().faults_injected, logged()), (2, 2));
        let page = next.faults(0, 10);
        let told: Vec<_> = page.entries.iter().map(|entry| (entry.sequence, &*entry.fault.rule)).collect();
        assert_eq!((told, page.forgotten), (vec![(1, "slow"), (2, "slower")], 0));
        std::mem::forget(next);
    }
    let last = server();
    begins(&last, first(UNIQUE + 2));
    assert_eq!((last.status().faults_injected, logged(), last.faults(2, 10).entries.len()), (4, 4, 2));
    std::mem::forget(last);
}

/// A request whose caller was let go does not come again: what was done for its answer is for nobody.
#[test]
fn what_was_opened_and_counted_for_nobody_is_taken_back() {
    let kept = Kept::with_rules(
        "version: 1\nrules: [{ name: slow, match: { ops: [open, opendir, create, mkdir] }, do: { delay: 1h } }]\n",
    );
    fs::write(kept.path("file"), "x").unwrap();
    let dead = kept.server();
    let file = number(&dead, "file");
    dead.open(first(4), file, OFlags::RDONLY, |_answer| {});
    dead.opendir(first(6), ROOT, OFlags::RDONLY, |_answer| {});
    dead.create(first(8), ROOT, b"created", 0o644, 0, OFlags::RDWR, |_answer| {});
    dead.mkdir(first(10), ROOT, b"made", 0o755, 0, |_answer| {});
    // One that comes again.
    dead.open(first(UNIQUE), file, OFlags::RDONLY, |_answer| {});
    std::mem::forget(dead);
    let next = kept.server();
    let open = |fs: &Arc<Interposer>| fs.open_files.all().len();
    assert_eq!((open(&next), next.nodes.len()), (4, 4));
    next.open(again(), file, OFlags::RDONLY, |_answer| {});
    assert_eq!(open(&next), 4, "one for another");
    next.forget_left();
    // The kernel knows the root and what it looked up.
    assert_eq!((open(&next), next.nodes.len()), (1, 2));
    assert_eq!(State::open(kept.state.as_fd()).unwrap().requests().used(u64::MAX).count(), 1);
    std::mem::forget(next);
}
