//! Cgroups at their creation: every directory of the hierarchy is watched for new ones, so that a cgroup is known before it does
//! anything, and stays known when it is gone a moment later.
//!
//! One thread reads the news (inotify), and walks the hierarchy for ids that somebody asked for and nobody knows. A directory that
//! cannot be watched (the bound, the kernel's limit) is counted; what is created in it is found by walks alone.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::cgroups::{Cgroup, Cgroups, MAX_DEPTH, Recalled};
use super::counters::{Counter, Counters};

/// Directories that are watched; the kernel keeps about a kilobyte for each.
const MAX_WATCHES: usize = 16_384;
/// All of a user share the kernel's limit, so we take no more than such a part of it.
const SHARE_OF_LIMIT: usize = 2;
/// Unknown ids that are looked for at a time.
const MAX_SOUGHT: usize = 1024;
/// While ids are looked for, a walk is tried so often; how often one is made, [`Cgroups`] decides.
const SEEK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const NEWS_BYTES: usize = 64 << 10;

/// What the thread and those who ask share.
#[derive(Debug)]
pub(super) struct Sought {
    cgroups: Arc<Cgroups>,
    ids: Mutex<HashSet<u64>>,
    wake: OwnedFd,
    over: AtomicBool,
    counters: Arc<Counters>,
}

impl Sought {
    /// The cgroup with that id, from memory; an unknown one is looked for, and found when somebody asks later.
    pub(super) fn cgroup(&self, id: u64) -> Option<Cgroup> {
        match self.cgroups.recall(id) {
            Recalled::Known(cgroup) => return Some(cgroup),
            Recalled::Gone => return None,
            Recalled::Unknown => {}
        }
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MAX_SOUGHT {
            self.counters.add(Counter::CgroupsNotSought, usize::from(!ids.contains(&id)));
        } else if ids.insert(id) {
            self.wake();
        }
        None
    }

    /// Those that are remembered.
    pub(super) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    pub(super) fn of_pod(&self, uid: &str) -> Vec<u64> {
        self.cgroups.of_pod(uid)
    }

    fn wake(&self) {
        // A full counter of wake-ups has not been read, so the thread is going to wake anyway.
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }

    /// Looks for what was asked for; what could not be decided yet stays.
    fn seek(&self) {
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
        let undecided = |id: &u64| self.cgroups.get(*id).is_none() && self.cgroups.recall(*id) == Recalled::Unknown;
        let undecided: Vec<_> = ids.into_iter().filter(undecided).collect();
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend(undecided);
    }

    fn is_seeking(&self) -> bool {
        !self.ids.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct CgroupWatch {
    sought: Arc<Sought>,
    thread: Option<thread::JoinHandle<()>>,
}

impl CgroupWatch {
    /// Knows every cgroup that exists when it returns. Without inotify there are only walks.
    ///
    /// # Errors
    /// No thread or no descriptor is to be had.
    pub(super) fn start(cgroups: Arc<Cgroups>, counters: Arc<Counters>) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let tree = Tree::watch(&cgroups, &counters);
        let over = AtomicBool::new(false);
        let sought = Arc::new(Sought { cgroups, ids: Mutex::default(), wake, over, counters });
        let shared = Arc::clone(&sought);
        let thread = thread::Builder::new().name("fsi-cgroups".to_owned()).spawn(move || run(tree, &shared))?;
        Ok(Self { sought, thread: Some(thread) })
    }

    pub(super) fn sought(&self) -> &Sought {
        &self.sought
    }
}

impl Drop for CgroupWatch {
    fn drop(&mut self) {
        self.sought.over.store(true, Ordering::Release);
        self.sought.wake();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

fn run(mut tree: Option<Tree>, sought: &Sought) {
    let mut news = vec![MaybeUninit::uninit(); NEWS_BYTES];
    while !sought.over.load(Ordering::Acquire) {
        let mut polled = vec![PollFd::new(&sought.wake, PollFlags::IN)];
        if let Some(tree) = &tree {
            polled.push(PollFd::new(&tree.inotify, PollFlags::IN));
        }
        let timeout = sought.is_seeking().then_some(&SEEK_PAUSE);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            // Out of memory, nothing else: the descriptors are ours.
            Err(_) => thread::yield_now(),
        }
        rustix::io::read(&sought.wake, &mut [0; 8]).ok();
        if let Some(tree) = &mut tree {
            tree.read(&mut news);
        }
        sought.seek();
    }
}

/// The watched directories.
#[derive(Debug)]
struct Tree {
    inotify: OwnedFd,
    root: PathBuf,
    most: usize,
    watched: HashMap<i32, Cgroup>,
    cgroups: Arc<Cgroups>,
    counters: Arc<Counters>,
}

/// What one piece of news says.
enum News {
    Created(i32, String),
    Ended(i32),
    Lost,
}

impl Tree {
    /// Watches the whole hierarchy and learns what is in it.
    fn watch(cgroups: &Arc<Cgroups>, counters: &Arc<Counters>) -> Option<Self> {
        let root = cgroups.hierarchy()?.to_owned();
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let most = MAX_WATCHES.min(limit() / SHARE_OF_LIMIT);
        let (cgroups, counters) = (Arc::clone(cgroups), Arc::clone(counters));
        let mut tree = Self { inotify, root, most, watched: HashMap::new(), cgroups, counters };
        tree.add_all();
        Some(tree)
    }

    fn add_all(&mut self) {
        let root = self.root.clone();
        self.add(&root, Cgroup::root(), 0);
    }

    /// A new directory and what is in it already. It is watched before it is read, so that nothing falls in between.
    fn add(&mut self, path: &Path, cgroup: Cgroup, depth: usize) {
        let Ok(metadata) = fs::metadata(path) else { return };
        self.cgroups.learn([(metadata.ino(), cgroup.clone())]);
        match self.add_watch(path) {
            Ok(watch) => drop(self.watched.insert(watch, cgroup.clone())),
            // It is gone again, and with it what was in it.
            Err(Errno::NOENT) => return,
            Err(_) => self.counters.add(Counter::CgroupsUnwatched, 1),
        }
        if depth >= MAX_DEPTH {
            return;
        }
        let Ok(entries) = fs::read_dir(path) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let child = cgroup.child(&entry.file_name().to_string_lossy());
            self.add(&entry.path(), child, depth + 1);
        }
    }

    fn add_watch(&self, path: &Path) -> Result<i32, Errno> {
        if self.watched.len() >= self.most {
            return Err(Errno::NOSPC);
        }
        inotify::add_watch(&self.inotify, path, WatchFlags::CREATE | WatchFlags::ONLYDIR)
    }

    /// Takes in all news there are.
    fn read(&mut self, buffer: &mut [MaybeUninit<u8>]) {
        loop {
            let news = self.next(buffer);
            if news.is_empty() {
                return;
            }
            for news in news {
                self.take(news);
            }
        }
    }

    fn next(&self, buffer: &mut [MaybeUninit<u8>]) -> Vec<News> {
        let mut reader = inotify::Reader::new(&self.inotify, buffer);
        let mut news = Vec::new();
        while let Ok(event) = reader.next() {
            let (kind, name) = (event.events(), event.file_name());
            if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
                news.push(News::Lost);
            } else if kind.contains(ReadFlags::IGNORED) {
                news.push(News::Ended(event.wd()));
            } else if let (true, Some(name)) = (kind.contains(ReadFlags::ISDIR), name) {
                news.push(News::Created(event.wd(), name.to_string_lossy().into_owned()));
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        news
    }

    fn take(&mut self, news: News) {
        match news {
            News::Created(parent, name) => {
                let Some(parent) = self.watched.get(&parent) else { return };
                let cgroup = parent.child(&name);
                let path = self.root.join(cgroup.path.trim_start_matches('/'));
                let depth = cgroup.path.matches('/').count();
                self.add(&path, cgroup, depth);
            }
            News::Ended(watch) => drop(self.watched.remove(&watch)),
            News::Lost => {
                self.counters.add(Counter::CgroupNewsLost, 1);
                self.add_all();
            }
        }
    }
}

/// How many watches the kernel grants a user.
fn limit() -> usize {
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").unwrap_or_default();
    text.trim().parse().unwrap_or(MAX_WATCHES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until news was read.
    fn eventually(what: &str, mut is: impl FnMut() -> bool) {
        let tries = 500;
        assert!(
            (0..tries).any(|_| is() || {
                thread::sleep(std::time::Duration::from_millis(10));
                false
            }),
            "{what}"
        );
    }

    fn watch(root: &Path) -> (Arc<Cgroups>, Arc<Counters>, CgroupWatch) {
        let counters = Arc::<Counters>::default();
        let cgroups = Arc::new(Cgroups::below(Some(root.to_owned()), Arc::clone(&counters)));
        let watch = CgroupWatch::start(Arc::clone(&cgroups), Arc::clone(&counters)).unwrap();
        (cgroups, counters, watch)
    }

    fn id(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_new_one_is_known_without_being_asked_for_and_after_its_end() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("old")).unwrap();
        let (cgroups, counters, _watch) = watch(root.path());
        assert_eq!(&*cgroups.known(id(&root.path().join("old"))).unwrap().path, "/old");
        let deep = root.path().join("old/new/deep/deeper");
        fs::create_dir_all(&deep).unwrap();
        let ids = [id(&deep), id(deep.parent().unwrap())];
        eventually("both are known", || ids.iter().all(|id| cgroups.known(*id).is_some()));
        assert_eq!(&*cgroups.known(ids[0]).unwrap().path, "/old/new/deep/deeper");
        fs::remove_dir_all(root.path().join("old")).unwrap();
        fs::create_dir(root.path().join("next")).unwrap();
        let next = id(&root.path().join("next"));
        eventually("the next is known", || cgroups.known(next).is_some());
        assert!(cgroups.known(ids[0]).is_some());
        assert_eq!(counters.get(Counter::Walks), 0);
    }

    #[test]
    fn what_is_not_watched_is_sought_when_somebody_asks() {
        let root = tempfile::tempdir().unwrap();
        let (cgroups, counters) =
            (Arc::new(Cgroups::below(Some(root.path().to_owned()), Arc::default())), Arc::default());
        let mut tree = Tree::watch(&cgroups, &counters).unwrap();
        tree.most = 1;
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        tree.read(&mut vec![MaybeUninit::uninit(); NEWS_BYTES]);
        assert_eq!(counters.get(Counter::CgroupsUnwatched), 2, "a and b");
        let wake = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let sought =
            Sought { cgroups, ids: Mutex::default(), wake, over: AtomicBool::default(), counters: Arc::default() };
        fs::create_dir(root.path().join("a/c")).unwrap();
        let id = id(&root.path().join("a/c"));
        assert_eq!(sought.cgroup(id), None, "asking does not walk");
        sought.seek();
        assert_eq!(&*sought.cgroup(id).unwrap().path, "/a/c");
        assert!(!sought.is_seeking());
        for unknown in 0..2000 {
            assert_eq!(sought.cgroup(u64::MAX - unknown), None);
        }
        assert_eq!(sought.counters.get(Counter::CgroupsNotSought), 2000 - MAX_SOUGHT as u64);
    }

    #[test]
    fn lost_news_are_made_up_for() {
        // In memory, for it is many.
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let (cgroups, counters) =
            (Arc::new(Cgroups::below(Some(root.path().to_owned()), Arc::default())), Arc::default());
        let mut tree = Tree::watch(&cgroups, &counters).unwrap();
        // So many that the queue of the kernel overflows.
        let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let queue: usize = queue.trim().parse().unwrap();
        for round in 0..=queue {
            let path = root.path().join(round.to_string());
            fs::create_dir(&path).unwrap();
            if round < queue {
                fs::remove_dir(&path).unwrap();
            }
        }
        let last = id(&root.path().join(queue.to_string()));
        tree.read(&mut vec![MaybeUninit::uninit(); NEWS_BYTES]);
        assert_eq!(counters.get(Counter::CgroupNewsLost), 1);
        assert!(cgroups.known(last).is_some());
    }
}
