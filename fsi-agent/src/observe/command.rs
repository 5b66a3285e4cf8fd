//! The command: found before anything is loaded, so that a typing error costs nothing and has its own exit code.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Access, access};

use super::ObserveError;
use crate::probe::ProbeError;

/// The command ready to start, with our stdin, stdout and stderr; nothing when there is none.
pub(super) fn resolve(command: &[OsString]) -> Result<Option<Command>, ObserveError> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    find(program)?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(Some(command))
}

/// Looks where `execvp` will look.
fn find(program: &OsStr) -> Result<(), ObserveError> {
    let name = || program.to_string_lossy().into_owned();
    if program.as_bytes().contains(&b'/') {
        let path = Path::new(program);
        if !path.exists() {
            return Err(ObserveError::NotFound { name: name(), place: "no such file" });
        }
        return executable(path).map_err(|reason| ObserveError::NotExecutable { name: name(), reason });
    }
    let mut refused = None;
    for directory in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        let path = directory.join(program);
        match executable(&path) {
            Ok(()) => return Ok(()),
            Err(reason) if path.is_file() => refused = Some(reason),
            Err(_) => {}
        }
    }
    match refused {
        Some(reason) => Err(ObserveError::NotExecutable { name: name(), reason }),
        None => Err(ObserveError::NotFound { name: name(), place: "it is in no directory of PATH" }),
    }
}

fn executable(path: &Path) -> Result<(), &'static str> {
    if path.is_dir() {
        return Err("it is a directory");
    }
    access(path, Access::EXEC_OK).map_err(|_denied| "the file is not marked executable for this user")
}

/// A command that the kernel refused, told as a shell would.
pub(super) fn not_started(command: &[OsString], error: ProbeError) -> ObserveError {
    let name = command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let refused = if let ProbeError::Spawn(source) = &error { source.raw_os_error() } else { None };
    match refused {
        Some(libc::ENOENT) => ObserveError::NotFound { name, place: "it or its interpreter does not exist" },
        Some(libc::ENOEXEC) => ObserveError::NotExecutable {
            name,
            reason: "the kernel does not know its format; a script begins with `#!`",
        },
        Some(libc::EACCES) => ObserveError::NotExecutable { name, reason: "permission denied" },
        Some(_) | None => ObserveError::Spawn { name, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_can_run_and_says_why_not() {
        assert!(resolve(&["sh".into()]).unwrap().is_some());
        assert!(resolve(&[]).unwrap().is_none());
        assert!(matches!(resolve(&["no-such-command-here".into()]), Err(ObserveError::NotFound { .. })));
        assert!(matches!(resolve(&["/no/such".into()]), Err(ObserveError::NotFound { .. })));
        assert!(matches!(resolve(&["/etc/passwd".into()]), Err(ObserveError::NotExecutable { .. })));
        assert!(matches!(resolve(&["/etc".into()]), Err(ObserveError::NotExecutable { .. })));
    }
}
