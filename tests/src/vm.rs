//! A small virtual machine with an older kernel: `fsi` and busybox in an initramfs, a script, and what it prints.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::fsi::{binary, succeed, text};

/// The kernel image: `$FSI_OLDER_KERNEL`, which `cargo xtask test` sets to what `cargo xtask setup` fetched.
#[must_use]
pub fn kernel() -> Option<PathBuf> {
    env::var_os("FSI_OLDER_KERNEL").map(PathBuf::from).filter(|path| path.is_file())
}

/// Seconds after which the machine is given up: it boots in 3 and is emulated.
const PATIENCE_SECONDS: &str = "180";

/// Boots, runs the script as the only process, powers off; what the console showed.
#[must_use]
pub fn run(kernel: &Path, script: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory for the machine");
    let image = initramfs(&directory, script);
    let mut qemu = Command::new("timeout");
    qemu.args([PATIENCE_SECONDS, "qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-accel", "tcg"]);
    qemu.args(["-m", "1024", "-nographic", "-no-reboot", "-append", "console=ttyS0 quiet panic=-1", "-kernel"]);
    qemu.arg(kernel).arg("-initrd").arg(image).stdin(Stdio::null());
    text(&succeed(&mut qemu).stdout).replace('\r', "")
}

fn initramfs(directory: &TempDir, script: &str) -> PathBuf {
    let root = directory.path().join("root");
    for folder in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder of the root");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox is there");
    for applet in ["sh", "mount", "cp", "cat", "poweroff"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    fs::copy(binary(), root.join("bin/fsi")).expect("fsi is there");
    for library in libraries(binary()) {
        let to = root.join(library.strip_prefix("/").expect("ldd prints whole paths"));
        fs::create_dir_all(to.parent().expect("it is in a folder")).expect("a folder of the root");
        fs::copy(&library, to).expect("a library can be copied");
    }
    let init = root.join("init");
    let prelude =
        "#!/bin/sh\nexport PATH=/bin\nmount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t tmpfs tmp /tmp\n";
    fs::write(&init, format!("{prelude}{script}\npoweroff -f\n")).expect("the script can be written");
    let image = directory.path().join("initramfs.gz");
    let mut pack = Command::new("sh");
    pack.args(["-c", "chmod +x init && find . | cpio --quiet -o -H newc | gzip -1 > \"$0\""])
        .arg(&image)
        .current_dir(root);
    succeed(&mut pack);
    image
}

/// What a program is linked with, the loader included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = text(&succeed(Command::new("ldd").arg(program)).stdout);
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
