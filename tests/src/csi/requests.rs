//! What requests are made of, and what is seen of their effect.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use fsi_csi::proto::csi::volume_capability::access_mode::Mode;
use fsi_csi::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use fsi_csi::proto::csi::{Volume, VolumeCapability};

use crate::fsi::text;

/// Parameters under which no file can be written.
pub const FLAKY: &[(&str, &str)] = &[("faults", "write=EIO")];

/// A capability with mount options.
#[must_use]
pub fn capability(mode: Mode, options: &[&str]) -> VolumeCapability {
    let mount_flags = options.iter().map(|&option| option.to_owned()).collect();
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume { mount_flags, ..MountVolume::default() })),
    }
}

/// Parameters as CSI has them.
#[must_use]
pub fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The errno with which a file cannot be written there.
#[must_use]
pub fn errno_of_write(target: &Path) -> Option<i32> {
    fs::write(target.join("file"), "content").err().and_then(|error| error.raw_os_error())
}

/// What the kubelet passes for a volume that is written in a pod.
#[must_use]
pub fn inline_volume(id: &str, attributes: &[(&str, &str)]) -> Volume {
    let mut volume_context = map(attributes);
    volume_context.extend(map(&[("csi.storage.k8s.io/ephemeral", "true")]));
    for_a_pod(Volume { volume_id: id.to_owned(), volume_context, ..Volume::default() })
}

/// With what the kubelet tells of the pod that a volume is for.
#[must_use]
pub fn for_a_pod(mut volume: Volume) -> Volume {
    volume.volume_context.extend(map(&[
        ("csi.storage.k8s.io/pod.name", "pod"),
        ("csi.storage.k8s.io/pod.namespace", "default"),
        ("csi.storage.k8s.io/pod.uid", "1-2-3"),
    ]));
    volume
}

/// Mount points below a folder.
#[must_use]
pub fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = text(&fs::read("/proc/self/mountinfo").expect("every process has one"));
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned));
    points.filter(|point| Path::new(point).starts_with(folder)).collect()
}
