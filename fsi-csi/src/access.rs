//! What a caller wants a volume to be: its access mode, its mount options, its group.

use fsi_agent::sys::mount::Mount;
use rustix::mount::MountFlags;
use thiserror::Error;

use crate::proto::csi::VolumeCapability;
use crate::proto::csi::volume_capability::AccessType;
use crate::proto::csi::volume_capability::access_mode::Mode;

/// Mount options that hold for one mount of a file system, and how mountinfo names them; an empty name is the absence of another.
const OPTIONS: [(&str, MountFlags, &str); 14] = [
    ("ro", MountFlags::RDONLY, "ro"),
    ("rw", MountFlags::empty(), ""),
    ("nosuid", MountFlags::NOSUID, "nosuid"),
    ("suid", MountFlags::empty(), ""),
    ("nodev", MountFlags::NODEV, "nodev"),
    ("dev", MountFlags::empty(), ""),
    ("noexec", MountFlags::NOEXEC, "noexec"),
    ("exec", MountFlags::empty(), ""),
    ("noatime", MountFlags::NOATIME, "noatime"),
    ("nodiratime", MountFlags::NODIRATIME, "nodiratime"),
    ("relatime", MountFlags::RELATIME, "relatime"),
    ("strictatime", MountFlags::STRICTATIME, ""),
    ("defaults", MountFlags::empty(), ""),
    ("bind", MountFlags::empty(), ""),
];

/// Why a volume cannot be had like that.
#[derive(Debug, Error)]
pub enum AccessError {
    #[error("the request has no volume capability")]
    None,
    #[error("the volume capability has no access type")]
    NoType,
    #[error("the volume capability has no access mode")]
    NoMode,
    #[error("volumeMode Block is not served, only Filesystem is")]
    Block,
    #[error("fsType `{0}` is asked for; a directory has that of its pool, so leave fsType out")]
    FsType(String),
    #[error("mount option `{0}` is not known; known are: {known}", known = known())]
    Option(String),
    #[error("the volume's group is `{0}`; a group is a number")]
    Group(String),
}

/// A volume capability that can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub flags: Flags,
    /// The group to own all files.
    pub group: Option<u32>,
    /// At most one pod may have it.
    pub one_pod: bool,
}

/// Mount options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(MountFlags);

impl Default for Flags {
    fn default() -> Self {
        Self(MountFlags::empty())
    }
}

impl Flags {
    #[must_use]
    pub fn read_only(self) -> Self {
        Self(self.0 | MountFlags::RDONLY)
    }

    #[must_use]
    pub fn is_read_only(self) -> bool {
        self.0.contains(MountFlags::RDONLY)
    }

    #[must_use]
    pub fn bits(self) -> MountFlags {
        self.0
    }

    /// These and those that a mount has already: what is forbidden below stays forbidden.
    #[must_use]
    pub fn and_of(self, mount: &Mount) -> Self {
        let options = mount.options.to_string_lossy();
        let present = options.split(',').filter_map(|word| OPTIONS.iter().find(|(.., name)| *name == word));
        let atimes = MountFlags::NOATIME | MountFlags::RELATIME | MountFlags::STRICTATIME;
        let inherited = present.fold(MountFlags::empty(), |all, (_, flag, _)| all | *flag);
        Self(if self.0.intersects(atimes) { self.0 | (inherited - atimes) } else { self.0 | inherited })
    }

    /// Whether a mount has all of them.
    #[must_use]
    pub fn hold_for(self, mount: &Mount) -> bool {
        let options = mount.options.to_string_lossy();
        let has = |wanted: &str| options.split(',').any(|word| word == wanted);
        OPTIONS.iter().filter(|(_, flag, name)| !name.is_empty() && self.0.contains(*flag)).all(|(.., name)| has(name))
            && (self.0.contains(MountFlags::RDONLY) || has("rw"))
    }
}

fn known() -> String {
    OPTIONS.map(|(name, ..)| name).join(", ")
}

/// Reads one capability.
///
/// # Errors
/// When a volume cannot be had like that.
pub fn read(capability: Option<&VolumeCapability>) -> Result<Access, AccessError> {
    let capability = capability.ok_or(AccessError::None)?;
    let mount = match capability.access_type.as_ref().ok_or(AccessError::NoType)? {
        AccessType::Block(_) => return Err(AccessError::Block),
        AccessType::Mount(mount) => mount,
    };
    let mode = capability.access_mode.as_ref().map_or(Mode::Unknown, |mode| mode.mode());
    let mut flags = MountFlags::empty();
    for written in mount.mount_flags.iter().flat_map(|flag| flag.split(',')) {
        let option = OPTIONS.iter().find(|(name, ..)| *name == written.trim());
        flags |= option.ok_or_else(|| AccessError::Option(written.to_owned()))?.1;
    }
    match mode {
        Mode::Unknown => return Err(AccessError::NoMode),
        Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly => flags |= MountFlags::RDONLY,
        Mode::SingleNodeWriter
        | Mode::SingleNodeSingleWriter
        | Mode::SingleNodeMultiWriter
        | Mode::MultiNodeSingleWriter
        | Mode::MultiNodeMultiWriter => {}
    }
    let group = match mount.volume_mount_group.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_no_number| AccessError::Group(text.to_owned()))?),
    };
    Ok(Access { flags: Flags(flags), group, one_pod: mode == Mode::SingleNodeSingleWriter })
}

/// Reads all capabilities that a new volume is to have.
///
/// # Errors
/// When a volume cannot be had like one of them.
pub fn read_all(capabilities: &[VolumeCapability]) -> Result<(), AccessError> {
    if capabilities.is_empty() {
        return Err(AccessError::None);
    }
    for capability in capabilities {
        read(Some(capability))?;
        if let Some(AccessType::Mount(mount)) = &capability.access_type
            && !mount.fs_type.is_empty()
        {
            return Err(AccessError::FsType(mount.fs_type.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn capability(mode: Mode, mount: MountVolume) -> VolumeCapability {
        let access_mode = Some(AccessMode { mode: mode.into() });
        VolumeCapability { access_mode, access_type: Some(AccessType::Mount(mount)) }
    }

    fn options(flags: &[&str]) -> MountVolume {
        MountVolume { mount_flags: flags.iter().map(|&flag| flag.to_owned()).collect(), ..MountVolume::default() }
    }

    #[test]
    fn modes_and_options_become_flags() {
        let access = read(Some(&capability(Mode::SingleNodeWriter, options(&["nosuid,nodev", "noexec"])))).unwrap();
        assert_eq!(access.flags.bits(), MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC);
        let reader = read(Some(&capability(Mode::MultiNodeReaderOnly, options(&[])))).unwrap();
        assert_eq!(reader.flags.bits(), MountFlags::RDONLY);
        assert!(read(Some(&capability(Mode::SingleNodeSingleWriter, options(&[])))).unwrap().one_pod);
        let group = MountVolume { volume_mount_group: "2000".to_owned(), ..MountVolume::default() };
        assert_eq!(read(Some(&capability(Mode::SingleNodeWriter, group))).unwrap().group, Some(2000));
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let sentence = |capability: Option<&VolumeCapability>| read(capability).unwrap_err().to_string();
        assert!(sentence(None).contains("no volume capability"));
        let unknown = sentence(Some(&capability(Mode::SingleNodeWriter, options(&["data=journal"]))));
        assert!(
            unknown.starts_with("mount option `data=journal` is not known; known are: ro, rw, nosuid"),
            "{unknown}"
        );
        let block = VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            access_type: Some(AccessType::Block(BlockVolume {})),
        };
        assert_eq!(sentence(Some(&block)), "volumeMode Block is not served, only Filesystem is");
        let typed = MountVolume { fs_type: "xfs".to_owned(), ..MountVolume::default() };
        assert!(read_all(&[capability(Mode::SingleNodeWriter, typed)]).unwrap_err().to_string().contains("xfs"));
    }
}
