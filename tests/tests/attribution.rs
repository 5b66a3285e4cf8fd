//! Cgroups are known from their creation on, in the real hierarchies of this machine, and volumes from the moment of their mount.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fsi_agent::attribution::counters::Counter;
use fsi_agent::attribution::{Attribution, Config};
use fsi_agent::sys::mount::{self, Unmount};
use fsi_tests::cgroup::Cgroup;
use fsi_tests::eventually::eventually;
use fsi_tests::need::{self, Need, has};
use fsi_tests::stop::Stop;
use rustix::mount::MountFlags;

const UID: &str = "6b9f2c3e-0000-1111-2222-333344445555";
const CGROUPS: usize = 500;
/// Every so many there is one that is gone again at once, and lives for so long: 20 to 95 ms.
const SHORT_ONE_IN: usize = 5;
const SHORT_LIVES_MS: [u64; 4] = [20, 45, 70, 95];

fn id(cgroup: &Cgroup) -> u64 {
    fs::metadata(cgroup.path()).expect("it is there").ino()
}

/// A thread of ours that is this late may have missed what a cgroup's short life is.
const LATE: Duration = Duration::from_millis(10);

/// How late threads are on this machine: the latest of one that wakes up again and again until it is told to stop.
fn latest(stop: &Stop) -> Duration {
    const PAUSE: Duration = Duration::from_millis(1);
    let mut latest = Duration::ZERO;
    while !stop.is_said() {
        let begun = Instant::now();
        thread::sleep(PAUSE);
        latest = latest.max(begun.elapsed().saturating_sub(PAUSE));
    }
    latest
}

fn each_is_known(hierarchy: &Path) {
    // Nobody can know what is gone before a thread of theirs has run at all.
    let held = (0..5).any(|_| {
        let stop = Stop::default();
        let (gone, latest) = thread::scope(|scope| {
            let clock = scope.spawn(|| latest(&stop));
            let said = stop.at_end();
            let gone = gone_unknown(hierarchy);
            drop(said);
            (gone, clock.join().expect("it does not panic"))
        });
        assert!(gone == 0 || latest > LATE, "{gone} were gone before they were known");
        gone == 0
    });
    assert!(held, "this machine is too busy to tell");
}

/// How many were gone before they were known.
fn gone_unknown(hierarchy: &Path) -> u64 {
    let Some(parent) = Cgroup::below(hierarchy) else {
        need::skip(&format!("no hierarchy at {} that can be written", hierarchy.display()));
        return 0;
    };
    let config = Config { hierarchy: Some(hierarchy.to_owned()), kubelet: None, ..Config::default() };
    let attribution = Attribution::start(config).expect("two threads");
    let pod = parent.child(&format!("pod{UID}"));
    let mut long_lived = Vec::new();
    let mut ids = Vec::new();
    let mut short_lived = Vec::new();
    for number in 0..CGROUPS {
        let name = format!("{number:064x}");
        let cgroup = pod.child(&name);
        ids.push((id(&cgroup), name));
        if number % SHORT_ONE_IN == 0 {
            let life = Duration::from_millis(SHORT_LIVES_MS[number / SHORT_ONE_IN % SHORT_LIVES_MS.len()]);
            short_lived.push(thread::spawn(move || {
                thread::sleep(life);
                drop(cgroup);
            }));
        } else {
            long_lived.push(cgroup);
        }
    }
    for life in short_lived {
        life.join().expect("it ends");
    }
    let gone = || attribution.counters().get(Counter::CgroupsGone);
    for (id, name) in &ids {
        let id = *id;
        // The news of the last ones may still be on their way.
        eventually("the cgroup is known", || attribution.of_cgroup(id).is_some() || gone() > 0);
        if gone() > 0 {
            return gone();
        }
        let identity = attribution.of_cgroup(id).expect("it is known");
        assert_eq!(identity.container_id.as_deref(), Some(name.as_str()));
        assert_eq!(identity.pod_uid.as_deref(), Some(UID));
    }
    assert!(ids.iter().any(|(id, _)| watched().contains(id)), "each has a watch of the kernel's");
    drop(long_lived);
    eventually("no watch outlives its cgroup", || ids.iter().all(|(id, _)| !watched().contains(id)));
    gone()
}

/// The inodes that this process watches.
fn watched() -> HashSet<u64> {
    let all = fs::read_dir("/proc/self/fdinfo").expect("it is there").flatten();
    let texts: Vec<_> = all.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("inotify "));
    let inode =
        |line: &str| u64::from_str_radix(line.split(' ').find_map(|field| field.strip_prefix("ino:"))?, 16).ok();
    lines.filter_map(inode).collect()
}

#[test]
fn five_hundred_of_version_1_of_which_some_end_at_once() {
    each_is_known(Path::new("/sys/fs/cgroup/memory"));
}

#[test]
fn five_hundred_of_version_2_of_which_some_end_at_once() {
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let one = unified.into_iter().find(|path| path.join("cgroup.controllers").exists());
    one.map_or_else(|| need::skip("no version 2 hierarchy"), each_is_known);
}

/// A file system in memory at a place; it goes with the test.
struct Memory(PathBuf);

impl Memory {
    fn at(place: PathBuf) -> Self {
        fs::create_dir_all(&place).expect("our own folder");
        rustix::mount::mount("none", &place, "tmpfs", MountFlags::empty(), None).expect("root may mount");
        Self(place)
    }

    /// As the kernel side has it.
    fn device(&self) -> u32 {
        let device = fs::metadata(&self.0).expect("it is mounted").dev();
        (rustix::fs::major(device) << 20) | rustix::fs::minor(device)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        mount::unmount(&self.0, Unmount::Detach).expect("it is mounted");
    }
}

#[test]
fn a_volume_is_known_soon_after_its_mount_and_after_its_end() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let kubelet = tempfile::tempdir().expect("a folder");
    let volume = |name: &str| kubelet.path().join(format!("pods/{UID}/volumes/kubernetes.io~csi/{name}/mount"));
    let before = Memory::at(volume("before"));
    let (kubelet, mounts_every) = (Some(kubelet.path().to_owned()), Duration::from_secs(3600));
    let config = Config { hierarchy: Some(PathBuf::from("/nowhere")), kubelet, mounts_every, ..Config::default() };
    let attribution = Attribution::start(config).expect("two threads");
    let name = |device| Some(attribution.volume_of(device, None)?.name.to_string());
    assert_eq!(name(before.device()).as_deref(), Some("before"), "it was mounted already");
    let after = Memory::at(volume("after"));
    let device = after.device();
    eventually("the new one is known", || name(device).as_deref() == Some("after"));
    let root = fs::metadata("/").expect("a root").dev();
    assert_eq!(name((rustix::fs::major(root) << 20) | rustix::fs::minor(root)), None);
    drop(after);
    assert_eq!(name(device).as_deref(), Some("after"));
    // The table was looked at since: what came then is known.
    let last = Memory::at(volume("last"));
    let is_known = || name(last.device()).as_deref() == Some("last");
    eventually("the last one is known", is_known);
    assert!(last.device() == device || name(device).as_deref() == Some("after"), "remembered, or its number taken");
}
