//! The volumes of this node by their devices, from the kubelet's folder and the table of mounts.
//!
//! The kubelet mounts a pod's volume at `pods/<uid>/volumes/<plugin>/<name>[/mount]`. A device is a volume's if a whole file system is
//! mounted there. A directory of a larger file system (a bind mount: `local-volume`, an `empty-dir` on the node's disk, a volume of
//! ours without interposition) shares its device with everything else on it; that device then says nothing, and nothing is told
//! rather than guessed. Several volumes may be one file system (two exports of one server): then the pod tells which.
//!
//! Only the kubelet's own files are read (`vol_data.json` beside a mount), never anything in a volume, which may hang.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use lru::LruCache;
use serde::Deserialize;

use super::counters::{Counter, Counters};
use crate::sys::mount::{self, Device, Mount};

/// Mounts of volumes on one node.
const MAX_MOUNTS: usize = 16_384;
/// Devices of volumes that are not mounted any more.
const MAX_ENDED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// The kubelet's file about a volume is far shorter.
const MAX_DATA_BYTES: u64 = 64 << 10;
const CSI: &str = "csi";

/// A volume of a pod, as the kubelet has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mounted {
    /// The pod's uid, as the kubelet has it.
    pub(super) pod: Arc<str>,
    pub(super) kind: Arc<str>,
    /// Of a persistent volume its own name, else that in the pod.
    pub(super) name: Arc<str>,
    pub(super) driver: Option<Arc<str>>,
    /// The driver made it for the pod and it goes with it.
    pub(super) is_ephemeral: bool,
}

/// What a device stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Behind {
    /// One entry for each pod that has it.
    Volumes(Vec<Mounted>),
    /// A part of it is a volume.
    Shared,
}

#[derive(Debug)]
pub(super) struct Volumes {
    /// The kubelet's folder, as the table of mounts has it.
    kubelet: PathBuf,
    table: RwLock<Table>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Table {
    devices: HashMap<u32, Behind>,
    /// Of devices that are not mounted any more.
    ended: LruCache<u32, Vec<Mounted>>,
    /// What was read about each mount, by its number and place.
    read: HashMap<(u64, PathBuf), Mounted>,
}

impl Volumes {
    pub(super) fn new(kubelet: &Path, counters: Arc<Counters>) -> Self {
        let kubelet = kubelet.canonicalize().unwrap_or_else(|_| kubelet.to_owned());
        let table = Table { devices: HashMap::new(), ended: LruCache::new(MAX_ENDED), read: HashMap::new() };
        Self { kubelet, table: RwLock::new(table), counters }
    }

    /// The volume behind a device, as a pod sees it or anybody.
    pub(super) fn behind(&self, device: u32, pod: Option<&str>) -> Option<Mounted> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let all = match table.devices.get(&device) {
            Some(Behind::Shared) => return None,
            Some(Behind::Volumes(all)) => all,
            None => table.ended.peek(&device)?,
        };
        let of_pod: Vec<_> = all.iter().filter(|mounted| pod.is_some_and(|pod| *mounted.pod == *pod)).collect();
        only(&of_pod).or_else(|| if of_pod.is_empty() { only(&all.iter().collect::<Vec<_>>()) } else { None })
    }

    /// Reads the table again. Whether anything is another than before.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn refresh(&self, table: &File) -> io::Result<bool> {
        Ok(self.take(&mount::mounts_of(table)?))
    }

    fn take(&self, mounts: &[Mount]) -> bool {
        let mut before = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut table.read)
        };
        let mut read = HashMap::new();
        let mut devices = HashMap::<u32, Behind>::new();
        for mount in mounts {
            let Some(place) = Place::of(&self.kubelet, &mount.point) else { continue };
            if read.len() >= MAX_MOUNTS {
                self.counters.add(Counter::VolumesOver, 1);
                continue;
            }
            let key = (mount.id, mount.point.clone());
            let mounted = before.remove(&key).unwrap_or_else(|| place.read());
            let behind = devices.entry(number(mount.device)).or_insert_with(|| Behind::Volumes(Vec::new()));
            match behind {
                Behind::Volumes(all) if mount.root == Path::new("/") => all.push(mounted.clone()),
                Behind::Volumes(_) | Behind::Shared => *behind = Behind::Shared,
            }
            read.insert(key, mounted);
        }
        let is_mounted = |device: u32| mounts.iter().any(|mount| number(mount.device) == device);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let gone = std::mem::replace(&mut table.devices, devices);
        let changed = gone != table.devices;
        for (device, behind) in gone {
            if let (Behind::Volumes(all), false) = (behind, is_mounted(device)) {
                table.ended.put(device, all);
            }
        }
        let used_again: Vec<_> =
            table.ended.iter().map(|(device, _)| *device).filter(|device| is_mounted(*device)).collect();
        for device in used_again {
            table.ended.pop(&device);
        }
        table.read = read;
        changed
    }
}

/// The one volume, if all are the same.
fn only(all: &[&Mounted]) -> Option<Mounted> {
    let first = *all.first()?;
    let same = |other: &&&Mounted| (&other.kind, &other.name) == (&first.kind, &first.name);
    (all.iter().filter(same).count() == all.len()).then(|| first.clone())
}

/// As the kernel side has it: 20 bits of minor below the major.
fn number(device: Device) -> u32 {
    (device.major << 20) | device.minor
}

/// Where the kubelet mounts a pod's volume.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    pod: &'a str,
    kind: &'a str,
    name: &'a str,
    directory: PathBuf,
}

impl<'a> Place<'a> {
    fn of(kubelet: &Path, point: &'a Path) -> Option<Self> {
        let mut parts = point.strip_prefix(kubelet).ok()?.components().map(|part| match part {
            Component::Normal(part) => std::str::from_utf8(part.as_bytes()).ok(),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
        });
        let mut next = || parts.next().flatten();
        let ("pods", pod, "volumes", plugin, name) = (next()?, next()?, next()?, next()?, next()?) else { return None };
        // Below a volume there may be mounts of others.
        if !matches!((next(), next()), (None | Some("mount"), None)) {
            return None;
        }
        // `kubernetes.io~csi`; a slash in a plugin's name is a tilde here.
        let kind = plugin.rsplit_once('~').map_or(plugin, |(_, kind)| kind);
        let directory = kubelet.join("pods").join(pod).join("volumes").join(plugin).join(name);
        Some(Self { pod, kind, name, directory })
    }

    fn read(&self) -> Mounted {
        let data = if self.kind == CSI { volume_data(&self.directory) } else { VolumeData::default() };
        let VolumeData { driver_name, spec_vol_id, volume_lifecycle_mode } = data;
        Mounted {
            pod: self.pod.into(),
            kind: self.kind.into(),
            name: spec_vol_id.map_or_else(|| self.name.into(), Arc::from),
            driver: driver_name.map(Arc::from),
            is_ephemeral: volume_lifecycle_mode.as_deref() == Some("Ephemeral"),
        }
    }
}

/// The parts that we read of what the kubelet writes about a CSI volume.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeData {
    driver_name: Option<String>,
    #[serde(rename = "specVolID")]
    spec_vol_id: Option<String>,
    volume_lifecycle_mode: Option<String>,
}

/// Without the file there is the directory's name, which says nearly as much.
fn volume_data(directory: &Path) -> VolumeData {
    let mut text = Vec::new();
    let read =
        File::open(directory.join("vol_data.json")).and_then(|file| file.take(MAX_DATA_BYTES).read_to_end(&mut text));
    read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const POD: &str = "6b9f2c3e-0000-1111-2222-333344445555";
    const OTHER: &str = "0123456789abcdef0123456789abcdef";

    struct Node {
        folder: tempfile::TempDir,
        volumes: Volumes,
        mounts: Vec<Mount>,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let volumes = Volumes::new(folder.path(), Arc::default());
            let mut node = Self { folder, volumes, mounts: Vec::new() };
            node.mount("/", (8, 1), "/");
            node
        }

        fn mount(&mut self, point: &str, (major, minor): (u32, u32), root: &str) {
            let point = if point == "/" { point.into() } else { self.volumes.kubelet.join(point) };
            let id = self.mounts.len() as u64 + 20;
            let (options, fstype, source) = ("rw".into(), "ext4".into(), "/dev/x".into());
            let device = Device { major, minor };
            self.mounts.push(Mount { id, parent: 1, device, root: root.into(), point, options, fstype, source });
        }

        fn csi(&mut self, pod: &str, name: &str, device: (u32, u32), data: &str) {
            let directory = format!("pods/{pod}/volumes/kubernetes.io~csi/{name}");
            let path = self.folder.path().join(&directory);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("vol_data.json"), data).unwrap();
            self.mount(&format!("{directory}/mount"), device, "/");
        }

        fn behind(&self, (major, minor): (u32, u32), pod: Option<&str>) -> Option<(String, String)> {
            let mounted = self.volumes.behind(number(Device { major, minor }), pod)?;
            Some((mounted.kind.to_string(), mounted.name.to_string()))
        }

        fn look(&self) -> bool {
            self.volumes.take(&self.mounts)
        }
    }

    fn is(kind: &str, name: &str) -> Option<(String, String)> {
        Some((kind.to_owned(), name.to_owned()))
    }

    const DATA: &str = r#"{"attachmentID":"csi-1","driverName":"ebs.csi.aws.com","nodeName":"n1",
        "specVolID":"pvc-1","volumeHandle":"vol-1","volumeLifecycleMode":"Persistent"}"#;

    #[test]
    fn each_kind_of_volume_with_a_file_system_of_its_own() {
        let mut node = Node::new();
        node.csi(POD, "pvc-1", (259, 1), DATA);
        node.mount("plugins/kubernetes.io/csi/ebs.csi.aws.com/0a1b/globalmount", (259, 1), "/");
        node.csi(
            POD,
            "inline",
            (0, 60),
            r#"{"driverName":"d","specVolID":"inline","volumeLifecycleMode":"Ephemeral"}"#,
        );
        node.csi(POD, "broken", (0, 61), "{");
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~nfs/pv-nfs"), (0, 62), "/");
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~empty-dir/memory"), (0, 63), "/");
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~projected/kube-api-access"), (0, 64), "/");
        // A volume's device is its own wherever else it is mounted, and a part of it is still it.
        node.mount("/mnt/disks/ssd1", (8, 16), "/");
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~local-volume/pv-ssd1"), (8, 16), "/");
        node.mount(&format!("pods/{POD}/volume-subpaths/pvc-1/main/0"), (259, 1), "/sub");
        // Somebody mounted inside a volume.
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~csi/pvc-1/mount/inner"), (0, 70), "/");
        assert!(node.look());
        assert_eq!(node.behind((259, 1), Some(POD)), is("csi", "pvc-1"));
        assert_eq!(node.behind((259, 1), None), is("csi", "pvc-1"));
        assert_eq!(node.behind((259, 1), Some(OTHER)), is("csi", "pvc-1"), "the driver's pod writes to it as well");
        assert_eq!(node.behind((0, 61), None), is("csi", "broken"));
        assert_eq!(node.behind((0, 62), None), is("nfs", "pv-nfs"));
        assert_eq!(node.behind((0, 63), None), is("empty-dir", "memory"));
        assert_eq!(node.behind((0, 64), None), is("projected", "kube-api-access"));
        assert_eq!(node.behind((8, 16), None), is("local-volume", "pv-ssd1"));
        assert_eq!(node.behind((0, 70), None), None);
        let inline = node.volumes.behind(60, None).unwrap();
        assert!(inline.is_ephemeral && inline.driver.as_deref() == Some("d"));
        assert!(!node.look(), "nothing is another");
    }

    #[test]
    fn a_device_that_is_shared_says_nothing() {
        let mut node = Node::new();
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~local-volume/pv-a"), (8, 1), "/opt/a");
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~local-volume/whole"), (8, 16), "/");
        node.mount(&format!("pods/{OTHER}/volumes/kubernetes.io~local-volume/part"), (8, 16), "/part");
        node.look();
        assert_eq!((node.behind((8, 1), None), node.behind((8, 1), Some(POD))), (None, None), "the node's root");
        assert_eq!((node.behind((8, 16), None), node.behind((8, 16), Some(POD))), (None, None), "one holds the other");
    }

    #[test]
    fn of_volumes_on_one_file_system_the_pod_tells_which() {
        let mut node = Node::new();
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~nfs/a"), (0, 62), "/");
        node.mount(&format!("pods/{OTHER}/volumes/kubernetes.io~nfs/b"), (0, 62), "/");
        node.look();
        assert_eq!(node.behind((0, 62), Some(POD)), is("nfs", "a"));
        assert_eq!(node.behind((0, 62), Some(OTHER)), is("nfs", "b"));
        assert_eq!((node.behind((0, 62), None), node.behind((0, 62), Some("third"))), (None, None));
        node.mount(&format!("pods/{POD}/volumes/kubernetes.io~nfs/b"), (0, 62), "/");
        node.look();
        assert_eq!(node.behind((0, 62), Some(POD)), None, "one pod has both");
    }

    #[test]
    fn what_was_a_volume_is_remembered_until_its_device_is_another() {
        let mut node = Node::new();
        node.csi(POD, "pvc-1", (259, 1), DATA);
        node.look();
        node.mounts.pop();
        assert!(node.look());
        assert_eq!(node.behind((259, 1), None), is("csi", "pvc-1"), "it was");
        node.mount("/media/stick", (259, 1), "/");
        node.look();
        assert_eq!(node.behind((259, 1), None), None, "another now");
    }

    #[test]
    fn what_is_said_of_a_mount_is_read_once() {
        let mut node = Node::new();
        node.csi(POD, "dir-name", (259, 1), DATA);
        node.look();
        fs::remove_dir_all(node.folder.path().join("pods")).unwrap();
        node.mount("/mnt", (8, 17), "/");
        node.look();
        assert_eq!(node.behind((259, 1), None), is("csi", "pvc-1"));
    }
}
