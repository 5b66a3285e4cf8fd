//! What a mount is judged with: suites that know what a file system must do, programs that use one as people do, and
//! other file systems of its kind.

use std::path::PathBuf;
use std::process::Command;

use xtask::tools::{self, FSX, PJDFSTEST};

use super::super::Purpose::{Bench, Test};
use super::super::postgres::POSTGRES;
use super::{Get, Need, State, Weight, all, executable, file, program, succeeds};

pub(super) const NEEDS: &[Need] = &[
    Need {
        name: "fio that verifies",
        why: "reads back what it wrote to a mount, on which it measures as well",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| program("fio"),
        get: Get::Apt(&["fio"]),
        by_hand: "install fio",
    },
    Need {
        name: "FUSE",
        why: "the interface that a mount is served through",
        serves: &[Bench, Test],
        weight: Weight::Optional,
        state: |_| file("/dev/fuse"),
        get: Get::ByHand,
        by_hand: "load the module fuse, and let this container have /dev/fuse",
    },
    Need {
        name: "pjdfstest",
        why: "holds a mount to POSIX, call by call",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| executable(&PJDFSTEST.program()),
        get: Get::Crate(&PJDFSTEST),
        by_hand: "cargo install pjdfstest, and set FSI_PJDFSTEST to it",
    },
    Need {
        name: "fsx",
        why: "compares one file of a mount with memory, operation by operation",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| executable(&FSX.program()),
        get: Get::Crate(&FSX),
        by_hand: "cargo install fsx, and set FSI_FSX to it",
    },
    Need {
        name: "stress-ng",
        why: "runs every kind of call on a mount at once",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| program("stress-ng"),
        get: Get::Apt(&["stress-ng"]),
        by_hand: "install stress-ng",
    },
    Need {
        name: "sqlite3",
        why: "a database that locks and maps its file on a mount",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| program("sqlite3"),
        get: Get::Apt(&["sqlite3"]),
        by_hand: "install sqlite3",
    },
    Need {
        name: "attr and acl",
        why: "set extended attributes, capabilities and access lists on a mount",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| all(&["setfattr", "getfattr", "setfacl", "getfacl"]),
        get: Get::Apt(&["attr", "acl"]),
        by_hand: "install attr and acl",
    },
    Need {
        name: "PostgreSQL's server",
        why: "a database that must survive what a mount does to it",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| postgres().map_or(State::Missing, |path| State::Present(path.display().to_string())),
        get: Get::Apt(&[POSTGRES]),
        by_hand: "install PostgreSQL's server, initdb and pgbench",
    },
    Need {
        name: "bindfs",
        why: "a peer to compare a mount with",
        serves: &[Bench],
        weight: Weight::Optional,
        state: |_| program("bindfs"),
        get: Get::Apt(&["bindfs"]),
        by_hand: "install bindfs",
    },
    Need {
        name: "libfuse to build with",
        why: "passthrough_ll is built with it",
        serves: &[Bench],
        weight: Weight::Optional,
        state: |_| match (passthrough_ll(), succeeds(Command::new("pkg-config").args(["--exists", "fuse3"]))) {
            (State::Present(_), _) => State::Present("passthrough_ll is built already".to_owned()),
            (State::Missing, true) => State::Present("pkg-config knows fuse3".to_owned()),
            (State::Missing, false) => State::Missing,
        },
        get: Get::Apt(&["gcc", "libc6-dev", "pkg-config", "libfuse3-dev"]),
        by_hand: "install libfuse 3 with its headers, pkg-config and a C compiler",
    },
    Need {
        name: "passthrough_ll",
        why: "a peer to compare a mount with: libfuse's own pass-through file system",
        serves: &[Bench],
        weight: Weight::Optional,
        state: |_| passthrough_ll(),
        get: Get::PassthroughLl,
        by_hand: "build example/passthrough_ll.c of libfuse 3 to tools/passthrough_ll-debian/passthrough_ll in FSI's cache",
    },
];

/// Being there is not enough: it loads libfuse3.
fn passthrough_ll() -> State {
    let program = tools::passthrough_ll();
    match succeeds(Command::new(&program).arg("--version")) {
        true => State::Present(program.display().to_string()),
        false => State::Missing,
    }
}

/// Debian keeps the server's programs off the path, one folder per version; the newest.
fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter(|path| number(path).is_some()).max_by_key(number)?;
    let server = newest.join("bin/postgres");
    server.is_file().then_some(server)
}
