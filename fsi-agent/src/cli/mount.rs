//! `fsi mount`: options to a plain configuration; the keeper runs here, or as a daemon that says when the mount answers.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use fsi_agent::fuse::config::{FilePath, MountConfig};
use fsi_agent::fuse::serve;
use fsi_agent::keeper::check::{self, Covering};
use fsi_agent::keeper::node::client::{self, ClientError, Place};
use fsi_agent::keeper::{self, Note, READY};
use fsi_agent::rules::parse;
use fsi_agent::rules::replay::line;
use fsi_agent::selection::quantity;

use super::{Failure, output};

/// `fsi mount SOURCE TARGET` shows the files of SOURCE at TARGET, and does to them what the rules say.
#[derive(Args, Debug)]
pub(super) struct MountArgs {
    /// The directory whose files are shown
    source: PathBuf,
    /// The directory where they are shown
    target: PathBuf,
    /// What spans and metrics call the volume
    #[arg(long, value_name = "NAME", value_parser = volume_name)]
    volume: Option<String>,
    /// Which namespace the volume is in, for spans and metrics
    #[arg(long, value_name = "NAME", value_parser = volume_name)]
    namespace: Option<String>,
    /// What to do to which operations; without rules everything passes through
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Stay here until it is unmounted; Ctrl-C unmounts
    #[arg(long)]
    foreground: bool,
    /// Refuse to write
    #[arg(long)]
    read_only: bool,
    /// Ignore setuid and setgid bits of programs
    #[arg(long)]
    nosuid: bool,
    /// Refuse to open devices
    #[arg(long)]
    nodev: bool,
    /// Cover a TARGET that has something in it
    #[arg(long)]
    nonempty: bool,
    /// Threads that answer requests
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// How long the kernel may remember names and attributes (ms, s)
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = quantity::duration)]
    attr_timeout: Duration,
    /// Have all reads and writes come here, also those the kernel could do by itself
    #[arg(long)]
    no_passthrough: bool,
    /// Inject the faults of this log again
    #[arg(long, value_name = "LOG")]
    replay: Option<PathBuf>,
    /// Write injected faults to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    fault_log: Option<PathBuf>,
    /// Send spans to an OpenTelemetry collector: grpc://HOST:4317 or http://HOST:4318 (grpcs, https)
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Write spans to this file, as OTLP/JSON lines
    #[arg(long, value_name = "FILE")]
    spans: Option<PathBuf>,
    /// Write metrics to this file, as Prometheus text
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Do not tell the agent of this node what the mount does
    #[arg(long)]
    no_agent: bool,
    /// In the background: where the keeper's words go
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log: Option<PathBuf>,
    /// Serve here, under the keeper of the node that listens there (`fsi keeper`); what it has under ID is taken over, and else mounted
    #[arg(long, value_name = "SOCKET", requires = "id", conflicts_with_all = ["foreground", "log"])]
    keeper: Option<PathBuf>,
    /// What the mount is called at the keeper of the node
    #[arg(long, value_name = "ID", requires = "keeper")]
    id: Option<String>,
    /// Only take over what the keeper has; mount nothing
    #[arg(long, requires = "keeper")]
    take_over: bool,
    /// Longest time without a server that answers; then the mount is aborted
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = quantity::duration)]
    deadline: Duration,
    /// After SIGTERM, the time that users of the mount have to finish
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = quantity::duration)]
    drain: Duration,
}

pub(super) fn run(arguments: MountArgs) -> Result<ExitCode, Failure> {
    if let (Some(socket), Some(id)) = (&arguments.keeper, &arguments.id) {
        let place = Place { socket: socket.clone(), id: id.clone() };
        return serve(place, arguments);
    }
    let is_foreground = arguments.foreground;
    let log = arguments.log.clone();
    let config = resolve(arguments)?;
    if is_foreground {
        keep(config, &mut |note| output::say(&format!("fsi: {note}")))
    } else {
        detach(&config, log.as_deref())
    }
}

/// The server itself, under the keeper of the node. Ends when the mount does; killed, another such call goes on where it was.
fn serve(place: Place, arguments: MountArgs) -> Result<ExitCode, Failure> {
    let failed = |error: ClientError| Failure::Failed(error.into());
    output::log();
    let socket = match client::take(&place).map_err(failed)? {
        Some(socket) => socket,
        None if arguments.take_over => {
            let sentence = format!("the keeper has no mount `{}` (any more): there is nothing to take over", place.id);
            return Err(Failure::Failed(anyhow::anyhow!(sentence)));
        }
        None => client::mount(&place, resolve(arguments)?).map_err(failed)?,
    };
    let mut ready = || {
        // When nobody listens any more, it serves all the same.
        output::result(READY).ok();
    };
    serve::run_kept(socket, place, &mut ready).map_err(|error| Failure::Failed(error.into()))?;
    Ok(ExitCode::SUCCESS)
}

/// `fsi keep`: the keeper as a daemon; configuration on stdin, its readiness or failure on stdout.
pub(super) fn daemon() -> Result<ExitCode, Failure> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| Failure::Failed(error.into()))?;
    let config = serde_json::from_str(&text)
        .map_err(|_other| Failure::Usage("a keeper is started by `fsi mount`, which configures it".to_owned()))?;
    rustix::process::setsid().map_err(|error| Failure::Failed(error.into()))?;
    let kept = keep(config, &mut |note| {
        if matches!(note, Note::Ready { .. }) {
            tell(READY);
        }
        output::say(&format!("fsi: {note}"));
    });
    if let Err(Failure::Failed(error)) = &kept {
        tell(&error.to_string());
    }
    kept
}

/// Says one thing on stdout and lets it go, which the one who waits for it sees.
fn tell(what: &str) {
    // When `fsi mount` was interrupted, nobody waits.
    output::result(what).ok();
    if let Ok(nothing) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        rustix::stdio::dup2_stdout(&nothing).ok();
        rustix::stdio::dup2_stdin(&nothing).ok();
    }
}

fn keep(config: MountConfig, notes: &mut (dyn FnMut(Note) + Send)) -> Result<ExitCode, Failure> {
    keeper::run(config, notes).map_err(|error| Failure::Failed(error.into()))?;
    Ok(ExitCode::SUCCESS)
}

fn detach(config: &MountConfig, log: Option<&Path>) -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::Failed(anyhow::anyhow!("start the keeper: {error}"));
    let stderr = match log {
        Some(path) => {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            Stdio::from(opened.map_err(|error| Failure::usage(&format!("--log {}", path.display()), error))?)
        }
        None => Stdio::null(),
    };
    let text = serde_json::to_vec(config).map_err(|error| Failure::Failed(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("keep").current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).map_err(failed)?;
    }
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said).map_err(failed)?;
    }
    match said.trim() {
        READY => Ok(ExitCode::SUCCESS),
        "" => {
            let status = child.wait().map_err(failed)?;
            Err(Failure::Failed(anyhow::anyhow!("the keeper ended before the mount answered: {status}")))
        }
        sentence => Err(Failure::Failed(anyhow::anyhow!("{sentence}"))),
    }
}

fn resolve(arguments: MountArgs) -> Result<MountConfig, Failure> {
    let MountArgs {
        source,
        target,
        volume,
        namespace,
        rules,
        foreground: _,
        read_only,
        nosuid,
        nodev,
        nonempty,
        threads,
        attr_timeout,
        no_passthrough,
        replay,
        fault_log,
        otlp,
        spans,
        metrics,
        no_agent,
        log: _,
        keeper: _,
        take_over: _,
        id: _,
        deadline,
        drain,
    } = arguments;
    let covering = if nonempty { Covering::Anything } else { Covering::EmptyOnly };
    let (source, target) =
        check::places(&source, &target, covering).map_err(|refusal| Failure::Usage(refusal.to_string()))?;
    let rules_text = rules.as_deref().map(rules_of).transpose()?.unwrap_or_default();
    if let Some(path) = &replay {
        let refused = |error: &dyn Display| Failure::usage(&format!("--replay {}", path.display()), error);
        let log = fs::read_to_string(path).map_err(|error| refused(&error))?;
        line::read_all(&log).map_err(|error| refused(&error))?;
    }
    Ok(MountConfig {
        source: source.into(),
        target: target.into(),
        volume,
        namespace,
        device_major: 0,
        device_minor: 0,
        keeper_pid: 0,
        rules: absolute(rules)?,
        rules_text,
        read_only,
        nosuid,
        nodev,
        threads: usize::from(threads),
        attr_timeout,
        passthrough: !no_passthrough,
        replay: absolute(replay)?,
        fault_log: absolute(fault_log)?,
        otlp,
        spans: absolute(spans)?,
        metrics: absolute(metrics)?,
        agent: !no_agent,
        deadline,
        drain,
    })
}

/// Longest name of a volume, or of its namespace: that of a Kubernetes object.
const MAX_VOLUME_NAME: usize = 253;

/// A name that is fit for a label.
fn volume_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > MAX_VOLUME_NAME || text.chars().any(char::is_control) {
        return Err(format!("expected 1 to {MAX_VOLUME_NAME} characters, none of them a control character"));
    }
    Ok(text.to_owned())
}

/// The text of a file of rules that has no mistake: said here, before anything is mounted.
fn rules_of(path: &Path) -> Result<String, Failure> {
    let refused = |error: &dyn Display| Failure::usage(&format!("--rules {}", path.display()), error);
    let text = fs::read_to_string(path).map_err(|error| refused(&error))?;
    parse::parse(&text).map_err(|problems| refused(&problems))?;
    Ok(text)
}

/// The keeper runs elsewhere than here.
fn absolute(path: Option<PathBuf>) -> Result<Option<FilePath>, Failure> {
    let absolute = path.map(std::path::absolute).transpose();
    Ok(absolute.map_err(|error| Failure::Failed(error.into()))?.map(FilePath))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_volumes() {
        for name in ["data", "pvc-1 of db", "größe", &"x".repeat(MAX_VOLUME_NAME)] {
            assert_eq!(volume_name(name).as_deref(), Ok(name));
        }
        for wrong in ["", "a\nb", &"x".repeat(MAX_VOLUME_NAME + 1)] {
            assert!(volume_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
