//! `fsi ctl`: asks a mount or the agent, or tells a mount, while it runs.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use fsi_agent::attach;
use fsi_agent::clock::{self, Clock};
use fsi_agent::control::client::{Client, ClientError};
use fsi_agent::control::target::{self, MountOfOurs};
use fsi_agent::control::{document, words};
use fsi_agent::rules::decision::FaultEntry;
use fsi_agent::rules::{explain, parse};
use fsi_agent::selection::quantity;
use serde_json::Map;

use super::output::{self, Reader};
use super::{Failure, output::say};

/// The target that is no mount.
const AGENT: &str = "agent";
/// How often a log that is followed is asked for what is new.
const FOLLOW: Duration = Duration::from_millis(200);
/// How often a mount without a server is asked again.
const RETRY: Duration = Duration::from_millis(50);
/// What moves data or starts processes may take this long, once the mount has answered at all.
const LONG: Duration = Duration::from_secs(60);

/// Talks to a mount over its control socket; TARGET `agent` is the agent of this node, unless there is a file of that name.
#[derive(Args, Debug)]
pub(super) struct CtlArgs {
    /// Where it is mounted, or `agent`
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    #[command(subcommand)]
    what: What,
    /// Where the agent listens, with TARGET `agent` [default: agent-control.sock in $FSI_RUN_DIR or /run/fsi]
    #[arg(long, global = true, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// The answer as one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for an answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = quantity::duration)]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How it is doing, and the rules in force
    Show,
    /// Put these rules in force, all or nothing; `-` reads stdin
    Set {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// No rule fires and nothing is throttled until `resume`; capacity and fakes stay
    Pause,
    /// Rules fire again
    Resume,
    /// Take all rules, throttles, capacity and fakes away
    Clear,
    /// The log of injected faults, oldest first
    Faults {
        /// Only those after this sequence number
        #[arg(long, value_name = "N", default_value_t = 0)]
        after: u64,
        /// At most so many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Go on as they come, also over a change of the server; with --json one document a line
        #[arg(long)]
        follow: bool,
    },
    /// Lose everything that was not synced, as when the power goes
    PowerCut,
    /// Have another server take over, from the mount's own binary or from this one
    Upgrade {
        #[arg(value_name = "BINARY")]
        binary: Option<PathBuf>,
    },
}

/// A mount that answers.
struct Mount<'a> {
    arguments: &'a CtlArgs,
    found: MountOfOurs,
    client: Client,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Failed(error.into())
}

pub(super) fn run(arguments: &CtlArgs) -> Result<ExitCode, Failure> {
    // What can be wrong here is told before a mount is looked for.
    let rules = match &arguments.what {
        What::Set { file } => Some(read_rules(file)?),
        What::Show
        | What::Pause
        | What::Resume
        | What::Clear
        | What::Faults { .. }
        | What::PowerCut
        | What::Upgrade { .. } => None,
    };
    if arguments.target == Path::new(AGENT) && !arguments.target.exists() {
        return agent(arguments);
    }
    let found = target::find(&arguments.target).map_err(failed)?;
    let client = Client::connect(&found.socket(), arguments.timeout).map_err(failed)?;
    let mut mount = Mount { arguments, found, client };
    match &arguments.what {
        What::Show => mount.show(),
        What::Set { file } => mount.set(file, rules.unwrap_or_default()),
        What::Pause => {
            mount.client.pause().map_err(failed)?;
            mount.answer("pause", Map::new(), "paused: no rule fires and nothing is throttled until `resume`")
        }
        What::Resume => {
            mount.client.resume().map_err(failed)?;
            mount.answer("resume", Map::new(), "resumed: rules fire and throttles hold again")
        }
        What::Clear => {
            mount.client.clear().map_err(failed)?;
            mount.answer("clear", Map::new(), "cleared: no rule, throttle, capacity or fake is in force")
        }
        What::Faults { after, limit, follow } => {
            let limit = limit.unwrap_or(u64::MAX);
            if *follow { mount.follow(*after, limit) } else { mount.faults(*after, limit) }
        }
        What::PowerCut => mount.power_cut(),
        What::Upgrade { binary } => mount.upgrade(binary.as_deref()),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// What the agent is asked.
fn agent(arguments: &CtlArgs) -> Result<ExitCode, Failure> {
    let What::Show = arguments.what else {
        return Err(Failure::Usage(
            "the agent takes only `show`; SIGHUP has it read its configuration again".to_owned(),
        ));
    };
    let socket = arguments.socket.clone().unwrap_or_else(attach::agent_socket);
    let reply = attach::client::Client::connect(&socket).and_then(|mut agent| agent.show()).map_err(failed)?;
    if !arguments.json {
        output::result(&attach::words::status(&reply))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut document = Map::from_iter([("schema".to_owned(), "fsi.ctl.agent/1".into())]);
    if let serde_json::Value::Object(fields) = serde_json::to_value(&reply).map_err(failed)? {
        document.extend(fields);
    }
    output::result(&serde_json::to_string_pretty(&document).map_err(failed)?)?;
    Ok(ExitCode::SUCCESS)
}

fn read_rules(file: &Path) -> Result<String, Failure> {
    let name = file.display();
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_length| bytes)
    } else {
        fs::read(file)
    };
    let bytes = bytes.map_err(|error| Failure::Failed(anyhow!("read {name}: {error}")))?;
    String::from_utf8(bytes).map_err(|error| Failure::Failed(anyhow!("{name} is no text: {error}")))
}

impl Mount<'_> {
    fn answer(&self, command: &str, fields: Map<String, serde_json::Value>, text: &str) -> Result<(), Failure> {
        if !self.arguments.json {
            return output::result(text);
        }
        let document = document::document(command, &self.found.target, fields);
        output::result(&serde_json::to_string_pretty(&document).map_err(failed)?)
    }

    fn show(&mut self) -> Result<(), Failure> {
        let status = self.client.show().map_err(failed)?;
        self.answer("show", document::status(&status), &words::status(&status))
    }

    fn set(&mut self, file: &Path, rules: String) -> Result<(), Failure> {
        let summary = parse::parse(&rules).map(|set| explain::summary(&set)).unwrap_or_default();
        let outcome = self.client.set(rules).map_err(|error| match error {
            ClientError::Refused(mistakes) => {
                let name = file.display();
                Failure::Failed(anyhow!("{name} is refused, what was in force stays:\n{mistakes}"))
            }
            error => failed(error),
        })?;
        self.answer("set", document::set(outcome), &words::set(outcome, &summary))
    }

    fn faults(&mut self, after: u64, limit: u64) -> Result<(), Failure> {
        let mut entries: Vec<FaultEntry> = Vec::new();
        let mut forgotten = 0;
        let mut last = after;
        loop {
            let wanted = limit - entries.len() as u64;
            if wanted == 0 {
                break;
            }
            let page = self.client.faults(last, wanted).map_err(failed)?;
            forgotten += page.forgotten;
            let Some(newest) = page.entries.last() else { break };
            last = newest.sequence;
            entries.extend(page.entries);
        }
        if self.arguments.json {
            return self.answer("faults", document::faults(&entries, forgotten, last), "");
        }
        say_forgotten(forgotten);
        if entries.is_empty() {
            say("no faults");
            return Ok(());
        }
        let lines: Vec<_> = [words::faults_head()].into_iter().chain(entries.iter().map(words::fault)).collect();
        output::result(&lines.join("\n"))
    }

    /// Ends with its reader, at the limit, or when no server comes back.
    fn follow(&mut self, after: u64, limit: u64) -> Result<(), Failure> {
        let (mut last, mut left) = (after, limit);
        if !self.arguments.json && output::part(&words::faults_head())? == Reader::Gone {
            return Ok(());
        }
        while left > 0 {
            let page = self.patiently(|client| client.faults(last, left))?;
            say_forgotten(page.forgotten);
            for entry in &page.entries {
                let line = if self.arguments.json { document::fault(entry).to_string() } else { words::fault(entry) };
                if output::part(&line)? == Reader::Gone {
                    return Ok(());
                }
                last = entry.sequence;
                left = left.saturating_sub(1);
            }
            if page.entries.is_empty() {
                thread::sleep(FOLLOW);
            }
        }
        Ok(())
    }

    fn power_cut(&mut self) -> Result<(), Failure> {
        self.client.show().map_err(failed)?;
        self.client.set_deadline(self.arguments.timeout.max(LONG));
        let outcome = self.client.power_cut().map_err(failed)?;
        self.answer("power-cut", document::power_cut(outcome), &words::power_cut(outcome))
    }

    /// Done when another server answers.
    fn upgrade(&mut self, binary: Option<&Path>) -> Result<(), Failure> {
        let binary = binary.map(std::path::absolute).transpose().map_err(failed)?;
        let before = self.client.show().map_err(failed)?;
        let wanted = match &binary {
            Some(binary) => identity(binary),
            None => fs::read_link(program(before.server_pid)).ok().and_then(|own| identity(&own)),
        };
        self.client.set_deadline(self.arguments.timeout.max(LONG));
        match self.client.upgrade(binary.as_deref()) {
            // The old server may be gone before its answer is out.
            Ok(()) | Err(ClientError::WentAway(_)) => {}
            Err(error) => return Err(failed(error)),
        }
        self.client.set_deadline(self.arguments.timeout);
        let start = clock::monotonic_ns();
        loop {
            let now = self.patiently(Client::show)?;
            if now.servers > before.servers {
                // Its process cannot be seen from everywhere.
                if let (Some(wanted), Some(serves)) = (wanted, identity(&program(now.server_pid)))
                    && wanted != serves
                {
                    let sentence =
                        format!("it did not take over; pid {} serves on with another program", now.server_pid);
                    return Err(Failure::Failed(anyhow!(sentence)));
                }
                let text = format!("upgraded: version {}, server pid {}", now.version, now.server_pid);
                return self.answer("upgrade", document::status(&now), &text);
            }
            if Clock::since(start) > self.arguments.timeout.max(LONG) {
                let sentence = format!("no other server took over; that of pid {} goes on", now.server_pid);
                return Err(Failure::Failed(anyhow!(sentence)));
            }
            // The old one answers until it has handed over; a new connection reaches whoever serves now.
            thread::sleep(RETRY);
            if let Ok(client) = Client::connect(&self.found.socket(), self.arguments.timeout) {
                self.client = client;
            }
        }
    }

    /// Asks again while servers change, as long as the timeout allows.
    fn patiently<T>(&mut self, mut request: impl FnMut(&mut Client) -> Result<T, ClientError>) -> Result<T, Failure> {
        let start = clock::monotonic_ns();
        loop {
            let error = match request(&mut self.client) {
                Ok(answer) => return Ok(answer),
                Err(error @ (ClientError::WentAway(_) | ClientError::NobodyListens(_))) => error,
                Err(error) => return Err(failed(error)),
            };
            if Clock::since(start) > self.arguments.timeout {
                return Err(failed(error));
            }
            thread::sleep(RETRY);
            if let Ok(client) = Client::connect(&self.found.socket(), self.arguments.timeout) {
                self.client = client;
            }
        }
    }
}

/// Where the program of a process is found.
fn program(pid: u32) -> PathBuf {
    format!("/proc/{pid}/exe").into()
}

/// Which file it is, whatever it is called.
fn identity(file: &Path) -> Option<(u64, u64)> {
    fs::metadata(file).ok().map(|file| (file.dev(), file.ino()))
}

fn say_forgotten(forgotten: u64) {
    if forgotten > 0 {
        say(&format!("fsi: {forgotten} earlier faults are no longer kept"));
    }
}
