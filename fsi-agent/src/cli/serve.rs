//! `fsi serve`: a mount's server, as its keeper starts it. Nobody types this.

use std::process::ExitCode;

use clap::Args;
use fsi_agent::fuse::serve::{self, ServeError};
use fsi_agent::keeper::message;

use super::{Failure, output};

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// Say which mounts this binary can take over, and exit
    #[arg(long)]
    layout: bool,
}

pub(super) fn run(arguments: &ServeArgs) -> Result<ExitCode, Failure> {
    if arguments.layout {
        output::result(&message::layout())?;
        return Ok(ExitCode::SUCCESS);
    }
    match serve::run() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ ServeError::NotStartedByKeeper) => Err(Failure::Usage(error.to_string())),
        Err(error) => Err(Failure::Failed(error.into())),
    }
}
