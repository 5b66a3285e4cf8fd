//! Cgroups at their creation: every directory of the hierarchy is watched for new ones, so that a cgroup is known before it does
//! anything, and stays known when it is gone a moment later.
//!
//! One thread reads the news (inotify), and walks the hierarchy for ids that somebody asked for and nobody knows. A directory that
//! cannot be watched (the bound, the kernel's limit) is counted; what is created in it is found by walks alone.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
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
    watched: HashMap<i32, (u64, Cgroup)>,
    /// The watches by the paths of their cgroups.
    watches: HashMap<Arc<str>, i32>,
    cgroups: Arc<Cgroups>,
    counters: Arc<Counters>,
}

/// What one piece of news says.
enum News {
    Created(i32, String),
    /// Said by the parent's watch. The end of a cgroup does not end its own watch, unlike that of any other directory.
    Removed(i32, String),
    Ended(i32),
    Lost,
}

impl Tree {
    /// Watches the whole hierarchy and learns what is in it.
    fn watch(cgroups: &Arc<Cgroups>, counters: &Arc<Counters>) -> Option<Self> {
        let root = cgroups.hierarchy()?.to_owned();
        let inotify = new_inotify().ok()?;
        let most = MAX_WATCHES.min(limit() / SHARE_OF_LIMIT);
        let (cgroups, counters) = (Arc::clone(cgroups), Arc::clone(counters));
        let mut tree =
            Self { inotify, root, most, watched: HashMap::new(), watches: HashMap::new(), cgroups, counters };
        tree.add_all();
        Some(tree)
    }

    fn add_all(&mut self) {
        let root = self.root.clone();
        self.add(&root, Cgroup::root(), 0);
    }

    /// A new directory and what is in it already. It is watched before it is read, so that nothing falls in between.
    fn add(&mut self, path: &Path, cgroup: Cgroup, depth: usize) {
        let Ok(metadata) = fs::metadata(path) else { return self.cgroups.nothing_is_at(&cgroup.path) };
        self.cgroups.learn([(metadata.ino(), cgroup.clone())]);
        match self.add_watch(path) {
            Ok(watch) => self.keep(watch, metadata.ino(), &cgroup),
            // It is gone again, and with it what was in it.
            Err(Errno::NOENT) => return self.cgroups.has_gone(metadata.ino()),
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
        inotify::add_watch(&self.inotify, path, WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR)
    }

    /// In the place of that of an earlier cgroup of the same path.
    fn keep(&mut self, watch: i32, id: u64, cgroup: &Cgroup) {
        self.watched.insert(watch, (id, cgroup.clone()));
        let before = self.watches.insert(Arc::clone(&cgroup.path), watch);
        if let Some(before) = before.filter(|before| *before != watch) {
            self.end(before);
        }
    }

    fn end(&mut self, watch: i32) {
        if let Some((id, _cgroup)) = self.watched.remove(&watch) {
            self.cgroups.has_gone(id);
        }
        // The kernel may have ended it by itself.
        inotify::remove_watch(&self.inotify, watch).ok();
    }

    /// Takes in all news there are.
    fn read(&mut self, buffer: &mut [MaybeUninit<u8>]) {
        loop {
            let news = self.next(buffer);
            if news.is_empty() {
                return;
            }
            for news in news {
                if self.take(news).is_break() {
                    break;
                }
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
                let name = name.to_string_lossy().into_owned();
                let is_new = kind.contains(ReadFlags::CREATE);
                news.push(if is_new { News::Created(event.wd(), name) } else { News::Removed(event.wd(), name) });
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        news
    }

    fn take(&mut self, news: News) -> ControlFlow<()> {
        match news {
            News::Created(parent, name) => {
                if let Some((path, cgroup)) = self.child(parent, &name) {
                    let depth = cgroup.path.matches('/').count();
                    self.add(&path, cgroup, depth);
                }
            }
            News::Removed(parent, name) => {
                // If it exists, it is another of the same path, of which there is news as well.
                if let Some((path, cgroup)) = self.child(parent, &name)
                    && !path.exists()
                {
                    match self.watches.remove(&cgroup.path) {
                        Some(watch) => self.end(watch),
                        None => self.cgroups.nothing_is_at(&cgroup.path),
                    }
                }
            }
            News::Ended(watch) => {
                let Some((id, cgroup)) = self.watched.remove(&watch) else { return ControlFlow::Continue(()) };
                self.cgroups.has_gone(id);
                if self.watches.get(&cgroup.path) == Some(&watch) {
                    self.watches.remove(&cgroup.path);
                }
            }
            // What was told before the new watches means nothing to them.
            News::Lost => {
                self.begin_again();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn child(&self, parent: i32, name: &str) -> Option<(PathBuf, Cgroup)> {
        let cgroup = self.watched.get(&parent)?.1.child(name);
        Some((cgroup.directory(&self.root), cgroup))
    }

    /// After news were lost: of which cgroups, nobody knows, so every watch is made anew.
    fn begin_again(&mut self) {
        self.counters.add(Counter::CgroupNewsLost, 1);
        if let Ok(inotify) = new_inotify() {
            self.inotify = inotify;
            self.watched.clear();
            self.watches.clear();
        }
        self.add_all();
        for (id, _cgroup) in self.cgroups.there() {
            // Marked, if it is.
            let _gone = self.cgroups.is_gone(id);
        }
    }
}

fn new_inotify() -> Result<OwnedFd, Errno> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
}

/// How many watches the kernel grants a user.
fn limit() -> usize {
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").unwrap_or_default();
    text.trim().parse().unwrap_or(MAX_WATCHES)
}

#[cfg(test)]
mod tests;
