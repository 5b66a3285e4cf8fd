//! The command line: one file per command; options in, one call, words out.
//!
//! Human text goes to stderr, results to stdout. Exit codes: 0 done, 1 failed, 2 wrong usage; `observe` passes on the
//! command's own (128 + signal when it was killed; 127 not found, 126 not executable).

mod agent;
mod ctl;
mod doctor;
mod keeper;
mod mount;
mod observe;
mod options;
mod output;
mod rules;
mod serve;
mod top;
mod umount;

use std::fmt::Display;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// See what any program does with its files.
#[derive(Debug, Parser)]
#[command(name = "fsi", version, max_term_width = 110, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Observe a command, a process, cgroups, a container or everything; a summary at the end.
    Observe(Box<observe::ObserveArgs>),
    /// The daemon of a node: watches its containers, joins what its mounts report, serves and exports both.
    Agent(agent::AgentArgs),
    /// Talk to a mount while it runs: its rules, its fault log, a power cut, another server; or ask the agent how it is.
    Ctl(ctl::CtlArgs),
    /// Say what this kernel and these privileges allow, and what to do to get the rest.
    Doctor(doctor::DoctorArgs),
    /// A live table of who is busy with files, by file, process, container or operation.
    Top(Box<top::TopArgs>),
    /// Show a directory's files elsewhere, and do to them what rules say.
    Mount(Box<mount::MountArgs>),
    /// End a mount, or say who uses it.
    Umount(umount::UmountArgs),
    /// The keeper of a node: holds what mounts need to outlive their servers. For Kubernetes; by hand each mount has its own.
    Keeper(keeper::KeeperArgs),
    /// A mount's server, as its keeper starts it.
    #[command(hide = true)]
    Serve(serve::ServeArgs),
    /// A mount's keeper, as `fsi mount` starts it.
    #[command(hide = true)]
    Keep,
    /// Check a set of rules, or say which of them would strike an operation and why.
    Rules(rules::RulesArgs),
}

/// Why a command ends early.
#[derive(Debug)]
enum Failure {
    /// The person asked for something that cannot be.
    Usage(String),
    /// It did not work.
    Failed(anyhow::Error),
    /// It did not work, and the exit code says how.
    Code(u8, anyhow::Error),
}

impl Failure {
    fn usage(what: &str, error: impl Display) -> Self {
        Self::Usage(format!("{what}: {error}"))
    }
}

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Runs what the arguments ask for.
pub(crate) fn run() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(Cli { command: Command::Observe(arguments) }) => observe::run(*arguments),
        Ok(Cli { command: Command::Agent(arguments) }) => agent::run(&arguments),
        Ok(Cli { command: Command::Ctl(arguments) }) => ctl::run(&arguments),
        Ok(Cli { command: Command::Doctor(arguments) }) => doctor::run(&arguments),
        Ok(Cli { command: Command::Top(arguments) }) => top::run(*arguments),
        Ok(Cli { command: Command::Mount(arguments) }) => mount::run(*arguments),
        Ok(Cli { command: Command::Umount(arguments) }) => umount::run(&arguments),
        Ok(Cli { command: Command::Keeper(arguments) }) => keeper::run(&arguments),
        Ok(Cli { command: Command::Serve(arguments) }) => serve::run(&arguments),
        Ok(Cli { command: Command::Keep }) => mount::daemon(),
        Ok(Cli { command: Command::Rules(arguments) }) => rules::run(&arguments),
        Err(error) => refused(&error),
    };
    let (code, sentence) = match result {
        Ok(code) => return code,
        Err(Failure::Usage(sentence)) => (WRONG_USAGE, sentence),
        Err(Failure::Failed(error)) => (FAILED, error.to_string()),
        Err(Failure::Code(code, error)) => (code, error.to_string()),
    };
    output::say(&format!("fsi: {sentence}"));
    ExitCode::from(code)
}

/// Help and version are results; anything else is one sentence.
fn refused(error: &clap::Error) -> Result<ExitCode, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::result(&error.to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Err(Failure::Usage("say what to do; `fsi --help` lists the commands".to_owned()))
        }
        _ => Err(Failure::Usage(sentence(&error.to_string()))),
    }
}

/// What clap says over several lines, on one: the error and the hints, without the usage.
fn sentence(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let wanted = paragraphs.filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more information"));
    let joined = wanted.collect::<Vec<_>>().join("; ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn refusals_are_one_sentence() {
        let error = Cli::try_parse_from(["fsi", "observe", "--slower", "5", "--all"]).unwrap_err();
        let text = sentence(&error.to_string());
        assert!(text.starts_with("invalid value '5' for '--slower <DURATION>': `5` is no duration; write"), "{text}");
        assert!(!text.contains('\n'));
        let error = Cli::try_parse_from(["fsi", "observe", "--slowr", "5ms", "--all"]).unwrap_err();
        assert!(sentence(&error.to_string()).contains("--slower"), "{error}");
    }
}
