//! Everything of a mount that outlives its servers, from mount(2) to the last trace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::KeeperError;
use super::message::{self, Given};
use crate::fuse::config::MountConfig;
use crate::fuse::fake::Memory;
use crate::fuse::fault_log;
use crate::fuse::state::{State, Word};
use crate::fuse::undo::Undo;
use crate::sys::mount::{self, Device, Unmount};

/// Larger than any INIT request; the kernel wants at least this much room for whatever comes first.
const READ_BYTES: usize = 1 << 20;

/// What the keeper holds.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) config: MountConfig,
    pub(super) state: Arc<State>,
    pub(super) held: BTreeMap<u64, OwnedFd>,
    given: Given<OwnedFd>,
    socket: PathBuf,
}

impl Mounted {
    /// Mounts and takes the kernel's INIT; what fails leaves nothing mounted.
    pub(super) fn new(config: MountConfig) -> Result<Self, KeeperError> {
        let source =
            mount::private_tree(&config.source).map_err(|error| KeeperError::Source(config.source.clone(), error))?;
        let [state_file, undo, memory, faults] = memory().map_err(KeeperError::Memory)?;
        let state = State::open(state_file.as_fd())?;
        state.set_rules_text(config.rules_text.as_bytes())?;
        let connection = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| KeeperError::NoFuse(error.into()))?;
        mount::fuse(connection.as_fd(), &config.source, &config.target, config.forbids())
            .map_err(|error| KeeperError::Mount(config.target.clone(), error))?;
        let target = config.target.clone();
        let given = Given {
            connection,
            source,
            state: state_file,
            undo,
            memory,
            faults,
            control: File::open("/dev/null").map_err(KeeperError::Memory)?.into(),
            config: rustix::fs::memfd_create("fsi-config", MemfdFlags::CLOEXEC)
                .map_err(|error| KeeperError::Memory(error.into()))?,
        };
        let parts = Self { config, state, held: BTreeMap::new(), given, socket: PathBuf::new() };
        parts.begin().inspect_err(|_error| {
            // Nobody was told of it yet, so the bare directory may show.
            mount::unmount(&target, Unmount::Detach).ok();
        })
    }

    fn begin(mut self) -> Result<Self, KeeperError> {
        let mut bytes = vec![0; READ_BYTES];
        let length =
            rustix::io::read(&self.given.connection, &mut bytes).map_err(|error| KeeperError::Init(error.into()))?;
        self.state.set_init(&bytes[..length])?;
        let mounts = mount::mounts().map_err(KeeperError::Mounts)?;
        let ours = mount::at(&mounts, &self.config.target).filter(|mount| mount.fstype == mount::FSTYPE);
        let device = ours.ok_or_else(|| KeeperError::Mounts(ErrorKind::NotFound.into()))?.device;
        (self.config.device_major, self.config.device_minor) = (device.major, device.minor);
        if self.config.keeper_pid == 0 {
            self.config.keeper_pid = std::process::id();
        }
        self.config.rules_text.clear();
        let text = serde_json::to_vec(&self.config).map_err(|error| KeeperError::Memory(error.into()))?;
        let written = self.given.config.try_clone().map_err(KeeperError::Memory)?;
        File::from(written).write_all(&text).map_err(KeeperError::Memory)?;
        self.socket = super::socket_path(device);
        self.given.control = listen(&self.socket).map_err(|error| KeeperError::Control(self.socket.clone(), error))?;
        Ok(self)
    }

    pub(super) fn device(&self) -> Device {
        self.config.device()
    }

    pub(super) fn progress(&self) -> u64 {
        self.state.word(Word::Progress).load(Ordering::Relaxed)
    }

    pub(super) const fn given(&self) -> &Given<OwnedFd> {
        &self.given
    }

    /// Hands everything to a new server.
    pub(super) fn hand_over(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        message::hand_over(socket, &self.given.lent(), &self.held)
    }

    /// Whether the connection ended: everything was unmounted, or it was aborted.
    pub(super) fn ended(&self) -> bool {
        has_ended(self.given.connection.as_fd())
    }

    pub(super) fn abort(&self) -> io::Result<()> {
        mount::abort(self.device())
    }

    /// Ends the control socket, and with the last descriptor the connection.
    pub(super) fn close(self) {
        // It may be gone with its directory.
        fs::remove_file(&self.socket).ok();
    }
}

/// Whether nothing comes over a connection any more.
pub(super) fn has_ended(connection: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&connection, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

/// Takes the mount away from every place where it is.
pub(super) fn unmount(device: Device, how: Unmount) -> io::Result<()> {
    let places: Vec<_> = mount::mounts()?.into_iter().filter(|mount| mount.device == device).collect();
    for place in places.iter().rev() {
        let mounts = mount::mounts()?;
        if mount::at(&mounts, &place.point).is_some_and(|upper| upper.device == device) {
            mount::unmount(&place.point, how)?;
        } else {
            return Err(rustix::io::Errno::BUSY.into());
        }
    }
    Ok(())
}

fn memory() -> io::Result<[OwnedFd; 4]> {
    Ok([State::create()?, Undo::create()?, Memory::create()?, fault_log::create()?])
}

/// Device numbers come again: a socket that an earlier keeper left is nobody's.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener.into())
}
