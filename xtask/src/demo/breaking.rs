//! The second half of the demo: a directory behind `fsi mount`, with rules that break and slow down what is done to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{LIMIT, spans};
use crate::child::{self, Event};
use crate::{mounts, setup};

const RULES: &str = r#"version: 1
seed: 7
rules:
  # Every third fsync of the database fails, as on a disk that is about to die.
  - { name: dying-disk, match: { ops: fsync, path: orders.db }, when: { every: 3 }, do: { errno: EIO } }
  # The report is far away.
  - { name: far-away, match: { ops: read, path: report.txt }, do: { delay: 200ms } }
# No file is written faster than this.
throttle:
  - { scope: file, write: 2MiB/s, burst: 1s }
"#;

const ORDERS: &str = "\
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('create table orders (item text)')
for number in range(1, 7):
    try:
        with db:
            db.execute('insert into orders values (?)', (f'item {number}',))
        print(f'order {number}: committed')
    except sqlite3.Error as error:
        print(f'order {number}: {error}')
rows = [row[0] for row in db.execute('select item from orders')]
print('in the database:', ', '.join(rows), '- integrity:', db.execute('pragma integrity_check').fetchone()[0])
";

/// How it went.
#[derive(Debug)]
pub(super) enum Shown {
    Well,
    /// Not on this machine, and why.
    LeftOut(&'static str),
    /// What should have been seen and was not.
    Badly(String),
}

/// Where it all happens; nothing is left mounted below.
#[derive(Debug)]
struct Place<'a> {
    fsi: &'a Path,
    directory: PathBuf,
}

/// Mounts, breaks, shows, unmounts.
pub(super) fn show(fsi: &Path, out: &Path, python: &str) -> Result<Shown> {
    if !setup::is_root() {
        return Ok(Shown::LeftOut("mounting needs root"));
    }
    if !Path::new("/dev/fuse").exists() {
        return Ok(Shown::LeftOut(
            "/dev/fuse is not there: load the module fuse, or let this container have the device",
        ));
    }
    let place = Place { fsi, directory: out.join("mount") };
    place.prepare()?;
    println!("The rules, in rules.yaml:\n\n{}", indented(RULES));
    place.mount()?;

    println!("SQLite takes six orders and is told of every fsync that failed:\n");
    let sqlite = place.run(python, &["orders.py", "target/orders.db"])?;
    println!("A report is read, 200 ms later than asked for (once for its text, once for its end):\n");
    place.run("cat", &["target/report.txt"])?;
    println!("dd writes 8 MiB, the first two of them at once, the rest at 2 MiB a second:\n");
    place.run("dd", &["if=/dev/zero", "of=target/export.bin", "bs=64k", "count=128"])?;
    println!("What was done to them, and how the mount is doing:\n");
    let faults = place.run_fsi(&["ctl", "target", "faults"])?;
    place.run_fsi(&["ctl", "target", "show"])?;
    place.run_fsi(&["umount", "target"])?;

    println!("The spans with a fault, of those in mount.spans.jsonl:\n");
    let text = fs::read_to_string(place.directory.join("mount.spans.jsonl")).context("read the mount's spans")?;
    let tree = spans::with_faults(&text, &place.directory.join("target"));
    println!("{}", indented(&tree.join("\n")));
    let expected = [
        ("SQLite saw no error", sqlite.contains("disk I/O error")),
        ("SQLite's database is damaged", sqlite.contains("integrity: ok")),
        ("the fault log lacks a rule", faults.contains("dying-disk") && faults.contains("far-away")),
        ("no span tells of a fault", tree.len() > 1),
    ];
    Ok(match expected.iter().find(|(_, is_so)| !is_so) {
        Some((sentence, _)) => Shown::Badly((*sentence).to_owned()),
        None => Shown::Well,
    })
}

impl Place<'_> {
    /// The directories, the programs' files, and the rules.
    fn prepare(&self) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = self.directory.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        for name in ["source", "target"] {
            let path = self.directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        write("orders.py", ORDERS)?;
        write("source/report.txt", "All is well.\n")?;
        write("rules.yaml", RULES)
    }

    fn mount(&self) -> Result<()> {
        let options = ["--rules", "rules.yaml", "--spans", "mount.spans.jsonl", "--metrics", "mount.prom"];
        let more = ["--fault-log", "faults.jsonl", "source", "target"];
        let words: Vec<&str> = ["mount"].into_iter().chain(options).chain(more).collect();
        self.run_fsi(&words).map(drop)
    }

    fn run_fsi(&self, words: &[&str]) -> Result<String> {
        self.started("fsi", Command::new(self.fsi), words)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.started(&name, Command::new(program), words)
    }

    /// Runs a program where everything is, shows what it says and how long it took.
    fn started(&self, name: &str, mut command: Command, words: &[&str]) -> Result<String> {
        println!("    $ {name} {}", words.join(" "));
        // Cargo sets it for what it runs, and it is nothing of theirs.
        command.env_remove("LD_LIBRARY_PATH").args(words).current_dir(&self.directory);
        let begin = Instant::now();
        let mut text = String::new();
        let ended = child::stream(command, LIMIT, |event| {
            if let Event::Line(line) = event {
                println!("    {line}");
                text.push_str(line);
                text.push('\n');
            }
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        let how = if ended.is_success() { String::new() } else { format!(", {ended}") };
        println!("    ({seconds:.2} s{how})\n");
        if ended.is_success() { Ok(text) } else { anyhow::bail!("{name} {}: {ended}", words.join(" ")) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // After an error it may still be mounted; after that, nothing can be done about it here.
        mounts::clear(&self.directory).unwrap_or_default();
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
