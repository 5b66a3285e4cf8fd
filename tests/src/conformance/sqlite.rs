//! sqlite as people use it: with a journal, with a write-ahead log that is mapped and shared, with its file mapped, and two
//! processes on one database.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Results, last_words};
use crate::fsi::{output, text};

const MODES: &[(&str, &str)] = &[
    ("rollback journal", "PRAGMA journal_mode=DELETE;"),
    ("persistent journal", "PRAGMA journal_mode=PERSIST; PRAGMA synchronous=FULL;"),
    ("write-ahead log", "PRAGMA journal_mode=WAL;"),
    ("mapped file", "PRAGMA journal_mode=TRUNCATE; PRAGMA mmap_size=67108864;"),
];

const LOAD: &str = "
CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v BLOB);
CREATE INDEX by_k ON t(k);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
  INSERT INTO t SELECT i, i * 7919 % 1000, zeroblob(i % 900) FROM n;
COMMIT;
UPDATE t SET v = zeroblob(5000) WHERE id % 50 = 0;
BEGIN; DELETE FROM t WHERE id < 500; ROLLBACK;
DELETE FROM t WHERE id > 2500;
VACUUM;
";

/// One that a second process runs at the same time; each row is a transaction of its own.
fn rows(from: u32) -> String {
    let rows = (from..from + 40).map(|id| format!("INSERT INTO t VALUES({id}, {id}, zeroblob(300));\n"));
    format!("PRAGMA busy_timeout=60000;{}", rows.collect::<String>())
}

const QUESTIONS: &str = "PRAGMA integrity_check;
SELECT count(*), sum(id), sum(k), sum(length(v)) FROM t;
SELECT count(*) FROM t INDEXED BY by_k WHERE k BETWEEN 100 AND 300;
";

pub(super) fn run(directory: &Path) -> Results {
    let mut results = Results::default();
    for (case, pragmas) in MODES {
        let database = directory.join(case.replace(' ', "-"));
        let loaded = sql(&database, &format!("{pragmas}{LOAD}"));
        let second = shell(&database, &rows(20_000)).spawn().expect("sqlite3 starts");
        let first = sql(&database, &rows(10_000));
        let second = second.wait_with_output().expect("it ends");
        let mut answer = vec![loaded, first, text(&second.stdout), text(&second.stderr), sql(&database, QUESTIONS)];
        answer.retain(|part| !part.is_empty());
        results.add(*case, answer.join("\n").trim().replace('\n', "; "));
    }
    results
}

fn shell(database: &Path, script: &str) -> Command {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-bail"]).arg(database).arg(script);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it answered; where it failed, what it said.
fn sql(database: &Path, script: &str) -> String {
    let output = output(&mut shell(database, script));
    match output.status.success() {
        true => text(&output.stdout),
        false => format!("{}: {}", output.status, last_words(&text(&output.stderr))),
    }
}
