//! `fsi umount`: ends a mount, or says who is in the way.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use fsi_agent::keeper::{self, check, users};
use fsi_agent::sys::mount::{self, FSTYPE, Mount, Unmount};

use super::{Failure, output};

/// Longest time for the keeper to clean up after the mount is gone.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// `fsi umount TARGET` ends a mount that nobody uses, and names those who do.
#[derive(Args, Debug)]
pub(super) struct UmountArgs {
    /// Take the mount from its place at once; those who use it keep it until they are done
    #[arg(long)]
    lazy: bool,
    /// Where it is mounted
    target: PathBuf,
}

pub(super) fn run(arguments: &UmountArgs) -> Result<ExitCode, Failure> {
    let mounts = mount::mounts().map_err(|error| Failure::Failed(error.into()))?;
    let ours = find(&mounts, &arguments.target)?;
    let how = if arguments.lazy { Unmount::Detach } else { Unmount::Idle };
    match mount::unmount(&ours.point, how) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(busy(ours, &mounts)),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            return Err(Failure::Usage("unmounting needs root, with CAP_SYS_ADMIN".to_owned()));
        }
        Err(error) => return Err(Failure::Failed(anyhow::anyhow!("unmount {}: {error}", ours.point.display()))),
    }
    if how == Unmount::Idle {
        cleaned_up(&keeper::socket_path(ours.device));
    }
    Ok(ExitCode::SUCCESS)
}

/// Looked up without asking the mount: it may be one that does not answer.
fn find<'a>(mounts: &'a [Mount], target: &Path) -> Result<&'a Mount, Failure> {
    let place =
        check::absolute(target).map_err(|error| Failure::usage(&format!("TARGET {}", target.display()), error))?;
    let found = mount::at(mounts, &place).or_else(|| mount::at(mounts, &std::fs::canonicalize(&place).ok()?));
    found
        .filter(|mount| mount.fstype == FSTYPE)
        .ok_or_else(|| Failure::Usage(format!("TARGET {} is no fsi mount", target.display())))
}

fn busy(ours: &Mount, mounts: &[Mount]) -> Failure {
    let below = mounts.iter().filter(|mount| mount.parent == ours.id);
    let mut reasons: Vec<_> = below.map(|mount| format!("{} is mounted in it", mount.point.display())).collect();
    reasons.extend(users::of(ours.device).iter().map(users::User::to_string));
    if reasons.is_empty() {
        reasons.push("by something that is no process to be seen from here".to_owned());
    }
    let sentence =
        format!("{} is in use: {}; --lazy takes it away all the same", ours.point.display(), reasons.join("; "));
    Failure::Failed(anyhow::anyhow!(sentence))
}

/// Waits until the keeper's socket is gone, so that a mount that ended leaves nothing to wait for.
fn cleaned_up(socket: &Path) {
    let started = fsi_agent::clock::monotonic_ns();
    while fsi_agent::clock::Clock::since(started) < CLEAN_UP {
        match std::os::unix::net::UnixStream::connect(socket) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Its keeper died before the mount did.
                std::fs::remove_file(socket).ok();
                return;
            }
            Err(_gone) => return,
            Ok(_listening) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    output::say("fsi: the mount is gone, its keeper not yet");
}
