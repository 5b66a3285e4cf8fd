//! A process that was there before the observation, with a file open, and does as it is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::fsi::load;

/// The process.
#[derive(Debug)]
pub struct Served {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Served {
    /// Started, and its file open.
    #[must_use]
    pub fn start(file: &Path) -> Self {
        let mut command = Command::new(load());
        command.arg("served").arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the helper starts");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let orders = child.stdin.take();
        let mut served = Self { child, orders, answers };
        served.answer("ready");
        served
    }

    /// As an argument.
    #[must_use]
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// One read by an old thread, one by a new one, one by a child process; returns when they are done.
    pub fn turn(&mut self) {
        let orders = self.orders.as_mut().expect("it lives");
        orders.write_all(b"\n").expect("it listens");
        self.answer("done");
    }

    fn answer(&mut self, expected: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        assert_eq!(line.trim(), expected);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The end of its orders ends it.
        drop(self.orders.take());
        let status = self.child.wait();
        assert!(std::thread::panicking() || status.is_ok_and(|status| status.success()), "the helper ends well");
    }
}
