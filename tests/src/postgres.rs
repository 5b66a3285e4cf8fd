//! A PostgreSQL server of one test, with its data in a directory that the test chooses. It listens on a socket of its own only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::eventually::eventually;
use crate::fsi::{succeed, text};
use crate::need::skip;

/// PostgreSQL refuses to run as root.
const USER: &str = "65534";

/// Told to the server: no other host, nothing that depends on the machine, one log that a test can read.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "shared_buffers=16MB",
    "log_checkpoints=off",
    "checkpoint_timeout=30s",
    "max_wal_size=64MB",
    "min_wal_size=32MB",
];

/// A server that runs.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    sockets: tempfile::TempDir,
    server: Option<Child>,
}

/// What pgbench says of a run.
#[derive(Debug)]
pub struct Run {
    pub transactions: u64,
    pub failed: u64,
    pub latency_ms: f64,
}

/// Where the server's programs are, or why the test that calls is skipped.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let places = versions.map(|entry| entry.path().join("bin"));
    let found = places.filter(|place| ["postgres", "initdb", "pgbench"].iter().all(|name| place.join(name).is_file()));
    let newest = found.max();
    if newest.is_none() {
        skip("PostgreSQL's server is not installed");
    }
    newest
}

impl Postgres {
    /// Makes a cluster in `data` and starts it.
    #[must_use]
    pub fn begin(programs: PathBuf, data: &Path) -> Self {
        let sockets = tempfile::tempdir().expect("a directory");
        fs::create_dir(data).expect("a directory");
        for directory in [data, sockets.path()] {
            succeed(Command::new("chown").arg(USER).arg(directory));
        }
        let mut this = Self { programs, data: data.to_owned(), sockets, server: None };
        succeed(this.program("initdb").args(["--auth=trust", "--username=postgres", "--pgdata"]).arg(data));
        this.start();
        this
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(self.programs.join(name));
        command.current_dir("/").env("PGHOST", self.sockets.path()).env("PGUSER", "postgres").env("LC_ALL", "C");
        command
    }

    fn log_file(&self) -> PathBuf {
        self.sockets.path().join("log")
    }

    /// What the server said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Starts it, and recovers what has to be.
    pub fn start(&mut self) {
        let log = fs::File::options().append(true).create(true).open(self.log_file()).expect("a file");
        let mut command = self.program("postgres");
        command.arg("-D").arg(&self.data).arg("-k").arg(self.sockets.path());
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().expect("postgres starts"));
        self.answers();
    }

    /// Waits until it takes questions.
    pub fn answers(&self) {
        let ready = || self.program("pg_isready").arg("--quiet").status().is_ok_and(|status| status.success());
        eventually("postgres answers", ready);
    }

    /// Stops it, with a checkpoint.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            succeed(
                self.program("pg_ctl").args(["stop", "--mode=fast", "--wait", "--silent", "--pgdata"]).arg(&self.data),
            );
            server.wait().expect("it is ours");
        }
    }

    /// As if the machine had gone: no checkpoint, no good-bye.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may be dead already.
            self.program("pg_ctl")
                .args(["stop", "--mode=immediate", "--wait", "--silent", "--pgdata"])
                .arg(&self.data)
                .status()
                .map(drop)
                .unwrap_or_default();
            server.kill().unwrap_or_default();
            server.wait().expect("it is ours");
        }
    }

    /// The answer to a question.
    #[must_use]
    pub fn ask(&self, question: &str) -> String {
        let output = succeed(self.program("psql").args(["--no-psqlrc", "-At", "-c", question]).arg("postgres"));
        text(&output.stdout).trim().to_owned()
    }

    /// Fills pgbench's tables.
    pub fn fill(&self) {
        succeed(self.program("pgbench").args(["--initialize", "--quiet", "--scale=1"]).arg("postgres"));
    }

    /// pgbench for that long, with four clients; it may be that the server dies under it.
    #[must_use]
    pub fn bench(&self, seconds: u32) -> Command {
        let mut command = self.program("pgbench");
        command.args(["--client=4", "--no-vacuum", "--time"]).arg(seconds.to_string()).arg("postgres");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// That every transaction is there as a whole: pgbench adds the same amount to three tables and writes it into a fourth.
    pub fn is_consistent(&self) {
        let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
                    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)";
        let sums = self.ask(sums);
        let mut each = sums.split('|');
        let first = each.next();
        assert!(each.all(|sum| Some(sum) == first), "{sums}");
    }

    /// Transactions that are there.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.ask("SELECT count(*) FROM pgbench_history").parse().expect("a number")
    }
}

impl Run {
    /// Reads pgbench's report.
    #[must_use]
    pub fn read(report: &str) -> Self {
        let after = |start: &str| -> Option<&str> {
            let line = report.lines().find_map(|line| line.strip_prefix(start))?;
            line.split(['/', ' ']).find(|word| !word.is_empty())
        };
        let number = |start| after(start).and_then(|word| word.parse().ok()).unwrap_or(0);
        Self {
            transactions: number("number of transactions actually processed:"),
            failed: number("number of failed transactions:"),
            latency_ms: after("latency average =").and_then(|word| word.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl Drop for Postgres {
    #[expect(clippy::print_stderr, reason = "the server's log goes with its directory, and says why the test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            if let Some(server) = &mut self.server {
                server.kill().unwrap_or_default();
                server.wait().map(drop).unwrap_or_default();
            }
        } else {
            self.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let run = Run::read(
            "number of clients: 4\nnumber of transactions actually processed: 1234\n\
             number of failed transactions: 2 (0.100%)\nlatency average = 3.250 ms\ntps = 9 (without initial connection time)\n",
        );
        assert_eq!((run.transactions, run.failed), (1234, 2));
        assert!((run.latency_ms - 3.25).abs() < 1e-9);
    }
}
