//! What the demo's programs work on: a small git repository with a history, made from this checkout's own sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use xtask::workspace::Workspace;

use crate::setup;

/// Marks a directory as one that a demo made and may empty.
const MARK: &str = ".fsi-demo";

const SQLITE_LOAD: &str = "\
import sqlite3
db = sqlite3.connect('load.db')
db.execute('create table reading (id integer primary key, sensor text, value real)')
for batch in range(20):
    with db:
        db.executemany('insert into reading (sensor, value) values (?, ?)', ((f's{n % 7}', n * 0.5) for n in range(500)))
print(db.execute('select count(*), avg(value) from reading').fetchone())
";

/// A program to watch.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) command: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Stage {
    out: PathBuf,
    python: String,
}

impl Stage {
    /// Empties `out` if an earlier demo made it, refuses it if somebody else did, and puts the repository there.
    pub(super) fn prepare(workspace: &Workspace, out: &Path) -> Result<Self> {
        if out.exists() {
            let is_empty = fs::read_dir(out).with_context(|| format!("read {}", out.display()))?.next().is_none();
            if !is_empty && !out.join(MARK).exists() {
                bail!("{} is not empty and was not made by a demo: name another --out", out.display());
            }
            fs::remove_dir_all(out).with_context(|| format!("empty {}", out.display()))?;
        }
        let python = setup::python().context("find a python3 with sqlite3")?;
        let stage = Self { out: out.to_path_buf(), python };
        fs::create_dir_all(stage.work()).with_context(|| format!("create {}", stage.work().display()))?;
        fs::write(out.join(MARK), "Made by `cargo xtask demo`, which empties this directory when it runs again.\n")
            .with_context(|| format!("write into {}", out.display()))?;
        fs::write(stage.work().join("load.py"), SQLITE_LOAD).context("write the sqlite load")?;
        stage.make_repository(workspace)?;
        Ok(stage)
    }

    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// One that knows SQLite.
    pub(super) fn python(&self) -> &str {
        &self.python
    }

    /// The programs' current directory.
    pub(super) fn work(&self) -> PathBuf {
        self.out.join("work")
    }

    pub(super) fn programs(&self) -> [Watched; 4] {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        let clone_and_gc = "git clone --quiet --no-local origin clone && git -C clone gc --quiet";
        [
            Watched {
                name: "git",
                about: "git clones a local repository and repacks the clone: several processes, many small files, locks \
                        and renames.",
                command: ["sh", "-c", clone_and_gc].map(str::to_owned).to_vec(),
            },
            Watched {
                name: "tar",
                about: "tar packs the clone with gzip: a walk over directories, every file read once, one file written.",
                command: words("tar -czf clone.tar.gz clone"),
            },
            Watched {
                name: "sqlite",
                about: "python3 loads 10,000 rows into SQLite in 20 transactions: journals, locks, and an fsync for each.",
                command: vec![self.python.clone(), "load.py".to_owned()],
            },
            Watched {
                name: "dd",
                about: "dd writes 8 MiB in blocks of 4 KiB past the page cache (O_DIRECT): each write waits for the disk.",
                command: words("dd if=/dev/zero of=direct.bin bs=4096 count=2048 oflag=direct status=none"),
            },
        ]
    }

    /// One commit for each crate: a history with something to repack, the same on every machine, whether or not the
    /// checkout is itself a clone.
    fn make_repository(&self, workspace: &Workspace) -> Result<()> {
        let origin = self.work().join("origin");
        fs::create_dir_all(&origin).with_context(|| format!("create {}", origin.display()))?;
        git(&origin, &["init", "--quiet"])?;
        for part in ["Cargo.lock", "fsi-common", "fsi-ebpf", "fsi-agent", "xtask", "tests", "docs"] {
            let from = workspace.path(part);
            if from.exists() {
                copy(&from, &origin.join(part))?;
                git(&origin, &["add", "--all"])?;
                git(&origin, &["commit", "--quiet", "--allow-empty", "--message", part])?;
            }
        }
        Ok(())
    }
}

/// git without the person's configuration: no signing, no hooks, no questions.
fn git(dir: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=FSI demo", "-c", "user.email=demo@localhost", "-c", "gc.auto=0"])
        .args(arguments)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .current_dir(dir)
        .stdin(Stdio::null());
    let output = command.output().context("start git")?;
    if !output.status.success() {
        bail!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let name = entry.with_context(|| format!("read {}", from.display()))?.file_name();
        if name != "target" {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}
