//! Mounts that a command makes, ours and others: none may outlive it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Until a mount is there, or gone.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// One that answers; it ends with this.
#[derive(Debug)]
pub(crate) struct Mounted {
    server: Child,
    target: PathBuf,
}

impl Mounted {
    /// Starts what mounts at `target`, and waits until it has. What it said is in the error when it did not.
    pub(crate) fn start(mut command: Command, target: &Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
        let words = target.with_extension("words");
        let said = File::create(&words).with_context(|| format!("create {}", words.display()))?;
        command.stdin(Stdio::null()).stdout(said.try_clone().context("share a file")?).stderr(said);
        let server = command.spawn().with_context(|| format!("start {program}"))?;
        let mut mounted = Self { server, target: target.to_path_buf() };
        let deadline = Instant::now() + PATIENCE;
        // It is there before its server answers, and for a moment also where the mount is refused.
        while connection(target)?.is_none() || fs::read_dir(target).is_err() {
            if mounted.server.try_wait().context("wait for a mount")?.is_some() {
                bail!("{}", fs::read_to_string(&words).unwrap_or_default().trim());
            }
            if Instant::now() > deadline {
                bail!("{program} did not mount within {} s", PATIENCE.as_secs());
            }
            thread::sleep(LOOK);
        }
        Ok(mounted)
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The number by which the kernel knows its connection.
    pub(crate) fn connection(&self) -> Result<u32> {
        connection(&self.target)?.with_context(|| format!("{} is no mount any more", self.target.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A file that was closed a moment ago may still be on its way out.
        let deadline = Instant::now() + PATIENCE;
        while is_mounted(&self.target) && !umount(&self.target, &[]) {
            if Instant::now() > deadline {
                umount(&self.target, &["--lazy"]);
                self.server.kill().unwrap_or_default();
                break;
            }
            thread::sleep(LOOK);
        }
        self.server.wait().map(drop).unwrap_or_default();
    }
}

/// Takes away what an earlier run left mounted below `directory`.
pub(crate) fn clear(directory: &Path) -> Result<()> {
    // The last one first: one may be mounted in another.
    for point in points()?.iter().rev().filter(|(_, point)| point.starts_with(directory)) {
        umount(&point.1, &["--lazy"]);
    }
    if points()?.iter().any(|(_, point)| point.starts_with(directory)) {
        bail!("something is mounted below {}, and cannot be unmounted", directory.display());
    }
    Ok(())
}

fn umount(target: &Path, options: &[&str]) -> bool {
    let mut command = Command::new("umount");
    command.args(options).arg(target).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_mounted(target: &Path) -> bool {
    connection(target).is_ok_and(|connection| connection.is_some())
}

/// Minor number of the device that is mounted there.
fn connection(target: &Path) -> Result<Option<u32>> {
    Ok(points()?.into_iter().rev().find(|(_, point)| point == target).map(|(minor, _)| minor))
}

fn points() -> Result<Vec<(u32, PathBuf)>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(mounts.lines().filter_map(point).collect())
}

/// Minor number and place of a line of mountinfo.
fn point(line: &str) -> Option<(u32, PathBuf)> {
    let mut fields = line.split(' ');
    let device = fields.nth(2)?;
    let place = fields.nth(1)?;
    // Blanks and their like are written in octal.
    let place = place.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    Some((device.split_once(':')?.1.parse().ok()?, place.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_a_number_and_a_place() {
        let line = "36 35 0:58 / /mnt/a\\040b rw,noatime shared:1 - fuse.fsi fsi rw";
        assert_eq!(point(line), Some((58, "/mnt/a b".into())));
        assert_eq!(point("nonsense"), None);
    }
}
