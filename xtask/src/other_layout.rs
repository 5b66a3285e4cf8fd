//! An `fsi` with another layout, as another version has it: the program itself with another number where it has that of its layout. Mounts of
//! one are refused by the other, in the keeper's word and in the state. For tests; no build of `fsi` can be told to have another.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Writes one beside, or anywhere; the layout that it says it has.
///
/// # Errors
/// When the number is not in the program as it is in memory: on a processor that loads it in parts.
pub fn write(fsi: &Path, out: &Path) -> Result<String> {
    let old = layout(fsi)?;
    let number =
        old.split_whitespace().find_map(|word| word.strip_prefix("state=0x")).context("no number of a state")?;
    let number = u64::from_str_radix(number, 16).with_context(|| format!("`{number}` in `{old}`"))?;
    let (from, to) = (number.to_le_bytes(), (number + 1).to_le_bytes());
    let mut program = fs::read(fsi).with_context(|| format!("read {}", fsi.display()))?;
    let mut at = 0;
    while let Some(found) = program[at..].windows(from.len()).position(|window| window == from) {
        program[at + found..][..to.len()].copy_from_slice(&to);
        at += found + to.len();
    }
    fs::write(out, program).with_context(|| format!("write {}", out.display()))?;
    fs::set_permissions(out, fs::Permissions::from_mode(0o755)).with_context(|| format!("write {}", out.display()))?;
    let new = layout(out)?;
    ensure!(new != old, "{} still has the layout `{old}`", out.display());
    Ok(new)
}

fn layout(fsi: &Path) -> Result<String> {
    let output = Command::new(fsi).args(["serve", "--layout"]).output();
    let output = output.with_context(|| format!("run {}", fsi.display()))?;
    ensure!(output.status.success(), "{} serve --layout: {}", fsi.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
