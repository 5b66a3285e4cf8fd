//! `fsi rules`: a set of rules checked, or asked what it would do to an operation.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use fsi_agent::rules::explain::{self, Explained, Held, Question};
use fsi_agent::rules::model::RuleSet;
use fsi_agent::rules::op::Op;
use fsi_agent::rules::parse::{self, Problems};
use fsi_agent::selection::quantity;
use serde::Serialize;

use super::{FAILED, Failure, output};

#[derive(Args, Debug)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Say whether a set of rules is right, and everything that is wrong with it. Exits with 1 when something is.
    Check(CheckArgs),
    /// Say which rules would strike an operation, and why or why not.
    Explain(ExplainArgs),
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// The rules: YAML, or the JSON of the older driver; `-` reads stdin
    file: PathBuf,
    /// The answer as one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ExplainArgs {
    /// The rules: YAML, or the JSON of the older driver; `-` reads stdin
    file: PathBuf,
    /// The operation, for example `write`
    #[arg(long, value_name = "OP", value_parser = operation)]
    op: Op,
    /// The path from the mount's root, for example `a/b`
    #[arg(long, value_name = "PATH")]
    path: OsString,
    /// The user it is done by
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// The group it is done by
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// The command name of the process
    #[arg(long, value_name = "NAME")]
    process: Option<OsString>,
    /// The size of the file, for example 8KiB
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    size: Option<u64>,
    /// Where the data begins, for example 1MiB
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    offset: Option<u64>,
    /// How much data there is, for example 4KiB
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    len: Option<u64>,
    /// The answer as one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Checked {
    schema: &'static str,
    valid: bool,
    rules: Vec<String>,
    problems: Vec<CheckedProblem>,
}

#[derive(Serialize)]
struct CheckedProblem {
    line: usize,
    column: usize,
    sentence: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    rules: &'a [Explained],
}

pub(super) fn run(arguments: &RulesArgs) -> Result<ExitCode, Failure> {
    match &arguments.command {
        RulesCommand::Check(arguments) => check(arguments),
        RulesCommand::Explain(arguments) => explain(arguments),
    }
}

fn check(CheckArgs { file, json }: &CheckArgs) -> Result<ExitCode, Failure> {
    let result = parse::parse(&read(file)?);
    if *json {
        output::result(&document(&checked(&result))?)?;
    } else {
        match &result {
            Ok(set) => output::result(&format!("{}: right: {}", file.display(), explain::summary(set)))?,
            Err(problems) => output::say(&told(file, problems)),
        }
    }
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn checked(result: &Result<RuleSet, Problems>) -> Checked {
    let (rules, problems) = match result {
        Ok(set) => (set.rules.iter().map(|rule| rule.name.to_string()).collect(), Vec::new()),
        Err(Problems(problems)) => (Vec::new(), problems.clone()),
    };
    let problem = |problem: parse::Problem| CheckedProblem {
        line: problem.at.line,
        column: problem.at.column,
        sentence: problem.sentence,
    };
    Checked {
        schema: "fsi.rules.check/1",
        valid: result.is_ok(),
        rules,
        problems: problems.into_iter().map(problem).collect(),
    }
}

fn explain(arguments: &ExplainArgs) -> Result<ExitCode, Failure> {
    let ExplainArgs { file, op, path, uid, gid, process, size, offset, len, json } = arguments;
    let set = parse::parse(&read(file)?).map_err(|problems| Failure::Failed(anyhow::anyhow!(told(file, &problems))))?;
    let path = path.as_bytes();
    let question = Question {
        op: *op,
        path: path.strip_prefix(b"/").unwrap_or(path).to_vec(),
        uid: *uid,
        gid: *gid,
        process: process.as_ref().map(|name| name.as_bytes().to_vec()),
        size: *size,
        offset: *offset,
        len: *len,
    };
    let rules = explain::explain(&set, &question);
    let text = if *json {
        document(&Answer { schema: "fsi.rules.explain/1", rules: &rules })?
    } else if rules.is_empty() {
        "there are no rules, so none strikes".to_owned()
    } else {
        rules.iter().map(words).collect::<Vec<_>>().join("\n")
    };
    output::result(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::Failed(anyhow::anyhow!("read {}: {error}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    fs::read_to_string(file).map_err(failed)
}

fn document(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::Failed(error.into()))
}

/// `FILE:LINE:COLUMN: what is wrong`, as editors take it.
fn told(file: &Path, Problems(problems): &Problems) -> String {
    let line = |problem: &parse::Problem| {
        format!("{}:{}:{}: {}", file.display(), problem.at.line, problem.at.column, problem.sentence)
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn words(explained: &Explained) -> String {
    let Explained { rule, matches, reasons, when, does } = explained;
    let verdict = match matches {
        Held::Yes => "matches",
        Held::No => "does not match",
        Held::Open => "matches, if what is open holds",
    };
    let mut lines = vec![format!("{rule}: {verdict}")];
    for reason in reasons {
        let mark = match reason.held {
            Held::Yes => "yes",
            Held::No => "no",
            Held::Open => "open",
        };
        lines.push(format!("  {mark:<4} {:<9} {}", reason.key, reason.sentence));
    }
    if *matches != Held::No {
        lines.push(format!("  when {when}"));
        lines.push(format!("  do   {does}"));
    }
    lines.join("\n")
}

fn operation(name: &str) -> Result<Op, String> {
    Op::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
        format!("`{name}` is no operation; write one of {}", names.join(", "))
    })
}
