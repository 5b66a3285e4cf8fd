//! With directories of our own in the place of cgroups.

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
    let (cgroups, counters) = (Arc::new(Cgroups::below(Some(root.path().to_owned()), Arc::default())), Arc::default());
    let mut tree = Tree::watch(&cgroups, &counters).unwrap();
    tree.most = 1;
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    tree.read(&mut vec![MaybeUninit::uninit(); NEWS_BYTES]);
    assert_eq!(counters.get(Counter::CgroupsUnwatched), 2, "a and b");
    let wake = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let sought = Sought { cgroups, ids: Mutex::default(), wake, over: AtomicBool::default(), counters: Arc::default() };
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
fn the_watch_of_a_path_is_that_of_its_latest_directory() {
    let root = tempfile::tempdir().unwrap();
    let cgroups = Arc::new(Cgroups::below(Some(root.path().to_owned()), Arc::default()));
    let mut tree = Tree::watch(&cgroups, &Arc::default()).unwrap();
    let mut buffer = vec![MaybeUninit::uninit(); NEWS_BYTES];
    let path = root.path().join("a");
    for round in 0..10 {
        fs::create_dir(&path).unwrap();
        if round % 3 == 0 {
            tree.read(&mut buffer);
        }
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        tree.read(&mut buffer);
        fs::create_dir(path.join("b")).unwrap();
        tree.read(&mut buffer);
        assert!(cgroups.known(id(&path.join("b"))).is_some(), "round {round}");
        assert_eq!((tree.watched.len(), tree.watches.len()), (3, 3), "round {round}");
        fs::remove_dir_all(&path).unwrap();
    }
    tree.read(&mut buffer);
    assert_eq!((tree.watched.len(), tree.watches.len()), (1, 1));
}

#[test]
fn lost_news_are_made_up_for() {
    // In memory, for it is many.
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let (cgroups, counters) = (Arc::new(Cgroups::below(Some(root.path().to_owned()), Arc::default())), Arc::default());
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
