//! `fsi keeper`: the keeper of a node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fsi_agent::keeper::node::{self, client, protocol::Answer};

use super::{Failure, output};

/// Holds /dev/fuse, the state and the nameless files of mounts, so that their servers may be killed and upgraded. Mounts are told of it by
/// `fsi mount --keeper SOCKET --id ID`. It needs no privilege, and may itself be killed while the servers live.
#[derive(Args, Debug)]
pub(super) struct KeeperArgs {
    /// Where servers find it
    #[arg(long, value_name = "SOCKET", default_value = "/run/fsi/keeper.sock")]
    socket: PathBuf,
    /// Only ask the one that runs what it keeps
    #[arg(long)]
    list: bool,
}

pub(super) fn run(arguments: &KeeperArgs) -> Result<ExitCode, Failure> {
    let failed = |error: anyhow::Error| Failure::Failed(error);
    if arguments.list {
        let Answer::Volumes { volumes, more } =
            client::list(&arguments.socket).map_err(|error| failed(error.into()))?
        else {
            return Err(failed(anyhow::anyhow!("{}: that is no keeper", arguments.socket.display())));
        };
        for kept in volumes {
            let waits = kept
                .waits
                .map_or_else(|| "served".to_owned(), |waits| format!("no server for {:.1} s", waits.as_secs_f64()));
            output::result(&format!("{}\t{waits}\t{} held\t{}\n", kept.id, kept.held, kept.layout))?;
        }
        if more > 0 {
            output::result(&format!("and {more} more\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    output::log();
    node::run(&arguments.socket).map_err(|error| failed(error.into()))?;
    Ok(ExitCode::SUCCESS)
}
