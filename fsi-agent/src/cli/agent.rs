//! `fsi agent`: the daemon of a node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fsi_agent::agent::{self, AgentError};
use fsi_agent::config::Config;

use super::{Failure, output};

/// Watches the selected containers of this node, joins what its mounts report, and serves and exports both, until SIGTERM. SIGHUP reads the
/// configuration again.
#[derive(Args, Debug)]
pub(super) struct AgentArgs {
    /// The configuration (docs/CONFIGURATION.md names every key)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only say whether the configuration is right
    #[arg(long)]
    check: bool,
}

pub(super) fn run(arguments: &AgentArgs) -> Result<ExitCode, Failure> {
    if arguments.check {
        Config::read(&arguments.config).map_err(|error| Failure::Usage(error.to_string()))?;
        output::result(&format!("{}: right\n", arguments.config.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    match agent::run(&arguments.config) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ (AgentError::Config(_) | AgentError::Kubernetes { .. } | AgentError::Privacy(_))) => {
            Err(Failure::Usage(error.to_string()))
        }
        Err(error) => Err(Failure::Failed(error.into())),
    }
}
