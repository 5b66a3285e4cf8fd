//! What an operation is about: its open file, its path, its other path. Lookups only, no I/O.
//!
//! What cannot be known stays in the span as a path with a state that says why, and is counted.

use fsi_common::op::OpKind;
use fsi_common::record::{OpRecord, PathState};

use super::decode::{Opened, Operation};
use super::loss::{PipelineLoss, PipelineLosses};
use super::open_files::OpenFiles;
use super::paths::Paths;
use crate::span::Path;

/// An operation whose paths are known, or known to be unknown.
#[derive(Debug)]
pub(super) struct AttributedOp {
    pub(super) raw: OpRecord,
    pub(super) op: OpKind,
    pub(super) path: Option<Path>,
    pub(super) target: Option<Path>,
}

/// The name and the directory of one of an operation's two paths.
struct Given<'a> {
    state: PathState,
    dir: u64,
    name: &'a [u8],
}

/// Finds the paths of an operation.
pub(super) fn operation(
    operation: &Operation<'_>,
    files: &OpenFiles,
    paths: &mut Paths,
    losses: &mut PipelineLosses,
) -> AttributedOp {
    let Operation { raw, op, path1, path2, name1, name2 } = operation;
    let first = Given { state: *path1, dir: raw.dir1, name: name1 };
    let second = Given { state: *path2, dir: raw.dir2, name: name2 };
    AttributedOp {
        raw: *raw,
        op: *op,
        path: path_of(raw.file_id, &first, files, paths, losses),
        target: path_of(raw.file2_id, &second, files, paths, losses),
    }
}

/// Finds the path of a file that was opened.
pub(super) fn opened(file: &Opened, paths: &Paths, losses: &mut PipelineLosses) -> Option<Path> {
    if file.raw.path_id == 0 {
        return match file.path {
            PathState::None => None,
            state @ (PathState::Resolved
            | PathState::Unreachable
            | PathState::TooLong
            | PathState::Fault
            | PathState::Lost
            | PathState::Race) => Some(paths.nameless(state)),
        };
    }
    Some(announced(file.raw.path_id, paths, losses))
}

fn announced(id: u64, paths: &Paths, losses: &mut PipelineLosses) -> Path {
    paths.get(id).cloned().unwrap_or_else(|| {
        losses.count(PipelineLoss::UnknownPath);
        paths.nameless(PathState::Lost)
    })
}

fn path_of(
    file_id: u64,
    given: &Given<'_>,
    files: &OpenFiles,
    paths: &mut Paths,
    losses: &mut PipelineLosses,
) -> Option<Path> {
    if file_id == 0 {
        return named(given, paths, losses);
    }
    match files.facts(file_id) {
        Some(facts) => facts.path.clone(),
        None => {
            losses.count(PipelineLoss::UnknownFile);
            Some(paths.nameless(PathState::Lost))
        }
    }
}

fn named(given: &Given<'_>, paths: &mut Paths, losses: &mut PipelineLosses) -> Option<Path> {
    let Given { state, dir, name } = given;
    if *state == PathState::None {
        return None;
    }
    if *dir == 0 {
        return Some(Path { bytes: paths.alone(name), state: *state });
    }
    let Some(dir) = paths.get(*dir).cloned() else {
        losses.count(PipelineLoss::UnknownPath);
        return Some(Path { bytes: paths.alone(name), state: PathState::Lost });
    };
    // An absolute name does not depend on the directory it was given with.
    if name.first() == Some(&b'/') {
        return Some(Path { bytes: paths.alone(name), state: *state });
    }
    let joined = if *state == PathState::Resolved { dir.state } else { *state };
    Some(Path { bytes: paths.join(&dir, name), state: joined })
}
