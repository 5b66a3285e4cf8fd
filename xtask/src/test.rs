//! `cargo xtask test`: every check and test in one run. A failing step never hides the next one: all of them run, all
//! failures are listed, and the last line counts them.

mod libtest;
pub(crate) mod tally;

use std::env;
use std::io::{self, IsTerminal as _};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use xtask::cargo_env::forget_outer_package;
use xtask::tools;
use xtask::workspace::Workspace;

use self::libtest::{Libtest, Shown};
use self::tally::Tally;
use crate::child::{self, Event};
use crate::setup::{self, Purpose};
use crate::tidy;

/// The slowest step, a cold build included, takes a quarter of this: it is there for what hangs.
const LIMIT: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only the tests whose name contains this, and none of the checks
    filter: Option<String>,
    /// Leave out the tests that need a kernel
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut run = Run { workspace, tally: Tally::default(), tests: 0 };
    run.set_up()?;
    let filter = options.filter.as_deref();
    if filter.is_none() {
        run.checks();
    }
    run.unit_tests(filter);
    match options.quick {
        true => run.tally.skip("kernel tests", "left out by --quick"),
        false => run.kernel_tests(filter),
    }
    if let Some(filter) = filter
        && run.tests == 0
        && !run.tally.has_failed()
    {
        run.tally.fail(&format!("no test has `{filter}` in its name"));
    }
    print!("{}", run.tally);
    Ok(if run.tally.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Run<'a> {
    workspace: &'a Workspace,
    tally: Tally,
    /// Of libtest's, however they ended.
    tests: usize,
}

impl Run<'_> {
    fn set_up(&mut self) -> Result<()> {
        let start = header("setup");
        let lacking = setup::ensure(self.workspace, &[Purpose::Build, Purpose::Demo, Purpose::Test])?;
        match lacking.required.as_slice() {
            [] => self.tally.pass(),
            missing => self.tally.fail(&format!("setup: missing {}", missing.join(", "))),
        }
        for (need, reason) in lacking.optional {
            self.tally.note(&need, &reason);
        }
        footer(start);
        Ok(())
    }

    /// The cheap ones first: who forgot to format wants to know before the compiler is done.
    fn checks(&mut self) {
        self.check("format", cargo(&["fmt", "--all", "--check"]));
        self.tidy();
        let clippy = ["clippy", "--workspace", "--exclude", "fsi-ebpf", "--all-targets", "--", "-D", "warnings"];
        self.check("lint", cargo(&clippy));
        let mut doc = cargo(&["doc", "--workspace", "--exclude", "fsi-ebpf", "--no-deps", "--document-private-items"]);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        self.check("documentation", doc);
        match tools::on_path("cargo-deny") {
            // Not the advisories: they change without the tree changing, and need the network.
            Some(_) => {
                self.check("licences and sources", cargo(&["deny", "check", "bans", "licenses", "sources"]));
            }
            None => self.tally.skip("licences and sources", "cargo-deny is not installed (`cargo install cargo-deny`)"),
        }
    }

    fn unit_tests(&mut self, filter: Option<&str>) {
        let selection = ["--workspace", "--exclude", "fsi-ebpf", "--exclude", "fsi-tests"];
        self.tests("unit tests", cargo_test(&selection, filter, &["--show-output"]));
    }

    /// One at a time: they count what the whole kernel does, each other's work included.
    fn kernel_tests(&mut self, filter: Option<&str>) {
        if !self.check("build fsi", cargo(&["build", "--package", "fsi-agent", "--package", "fsi-csi", "--bins"])) {
            self.tally.skip("kernel tests", "there is no fsi to test");
            return;
        }
        let mut command = cargo_test(&["--package", "fsi-tests"], filter, &["--show-output", "--test-threads=1"]);
        command.env("FSI_BIN", self.workspace.target_dir().join("debug/fsi"));
        command.env("FSI_CSI_BIN", self.workspace.target_dir().join("debug/fsi-csi"));
        command.env("FSI_CSI_SANITY", setup::CSI_SANITY.program(self.workspace));
        command.env("FSI_OTELCOL", setup::OTELCOL.program(self.workspace));
        command.env("FSI_JAEGER", setup::JAEGER.program(self.workspace));
        command.env("FSI_OLDER_KERNEL", setup::older_kernel());
        command.env("FSI_PJDFSTEST", tools::PJDFSTEST.program());
        command.env("FSI_FSX", tools::FSX.program());
        self.tests("kernel tests", command);
    }

    fn tidy(&mut self) {
        let start = header("tidy");
        let findings = match tidy::check(self.workspace) {
            Ok(findings) => findings,
            Err(error) => vec![tidy::Finding::failure(format!("{error:#}"))],
        };
        for finding in &findings {
            println!("{finding}");
        }
        match findings.iter().filter(|finding| finding.is_failure()).count() {
            0 => self.tally.pass(),
            failures => self.tally.fail(&format!("tidy: {failures} rules broken")),
        }
        footer(start);
    }

    /// A step that passes or fails as a whole.
    fn check(&mut self, name: &str, mut command: Command) -> bool {
        let start = header(name);
        command.current_dir(self.workspace.root());
        let ended = child::stream(command, LIMIT, |event| {
            if let Event::Line(line) = event {
                println!("{line}");
            }
        });
        let passed = match ended {
            Ok(ended) if ended.is_success() => true,
            Ok(ended) => {
                self.tally.fail(&format!("{name}: {ended}"));
                false
            }
            Err(error) => {
                self.tally.fail(&format!("{name}: {error:#}"));
                false
            }
        };
        if passed {
            self.tally.pass();
        }
        footer(start);
        passed
    }

    /// A step that is many tests.
    fn tests(&mut self, name: &str, mut command: Command) {
        let start = header(name);
        command.current_dir(self.workspace.root());
        let mut libtest = Libtest::default();
        let ended = child::stream(command, LIMIT, |event| {
            if let Event::Line(line) = event
                && libtest.read(line) == Shown::Yes
            {
                println!("{line}");
            }
        });
        self.tests += libtest.count();
        match ended {
            Ok(ended) => self.tally.add(libtest.finish(name, ended)),
            Err(error) => self.tally.fail(&format!("{name}: {error:#}")),
        }
        footer(start);
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_outer_package(&mut command);
    command.args(arguments);
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    } else {
        // rustfmt colours its differences for whatever terminal is named, pipe or not.
        command.env("TERM", "dumb");
    }
    command
}

fn cargo_test(selection: &[&str], filter: Option<&str>, libtest: &[&str]) -> Command {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(selection).arg("--").args(libtest).args(filter);
    command
}

fn header(name: &str) -> Instant {
    println!("\n=== {name}");
    Instant::now()
}

fn footer(start: Instant) {
    println!("=== {:.1} s", start.elapsed().as_secs_f64());
}
