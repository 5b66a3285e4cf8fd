//! The `fsi-csi` command: the CSI driver on a node, or away from the nodes as the controller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use fsi_agent::selection::quantity;

mod run;

/// Volumes that may break, slow down or fill up, for Kubernetes.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Identity, controller and node services of one node, and its registration with the kubelet
    Node(Box<NodeOptions>),
    /// Identity and controller services without a pool, beside an external-resizer
    Controller(ControllerOptions),
    /// Do nothing until told to end: what a pod does that holds a claim
    #[command(hide = true)]
    Hold,
}

#[derive(Args, Debug)]
struct NodeOptions {
    /// Where CSI is served: unix:///PATH
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// The name of this node
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_id: String,
    /// The kubelet's folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Where volumes are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fsi/pool")]
    pool: PathBuf,
    /// The pool is the same on every node, so that a volume can be had on all of them
    #[arg(long)]
    pool_shared: bool,
    /// Where the kubelet looks for plugins; without it the driver does not register
    #[arg(long, value_name = "DIR")]
    registration_dir: Option<PathBuf>,
    /// The program that serves interposed volumes
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/fsi")]
    fsi: PathBuf,
    /// The keeper of this node (`fsi keeper`); without it each mount has a keeper of its own, which ends with this container
    #[arg(long, value_name = "SOCKET")]
    keeper: Option<PathBuf>,
    /// How long the keeper waits for another server before it lets the users of a mount go (ENOTCONN)
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = quantity::duration)]
    deadline: Duration,
    /// Where versions of this driver leave one another the programs of their servers; programs must be allowed to run there
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fsi/bin")]
    programs: PathBuf,
    /// Sockets of mounts, and what is mounted; emptied when the node starts
    #[arg(long, value_name = "DIR", default_value = "/run/fsi")]
    run_dir: PathBuf,
    /// Serve /metrics, /healthz and /readyz here
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Ask nothing of a Kubernetes API: no rules from ConfigMaps, no events
    #[arg(long)]
    no_kubernetes: bool,
    /// The PriorityClass of pods that hold claims; none: that of any pod
    #[arg(long, value_name = "NAME")]
    holder_priority_class: Option<String>,
    /// The namespace of the pod we run in, of which pods that hold claims have the image
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide = true)]
    pod_namespace: Option<String>,
    /// Its name
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide = true)]
    pod_name: Option<String>,
}

#[derive(Args, Debug)]
struct ControllerOptions {
    /// Where CSI is served: unix:///PATH
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Serve /metrics, /healthz and /readyz here
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Ask nothing of a Kubernetes API: claims behind volumes do not grow with them
    #[arg(long)]
    no_kubernetes: bool,
}

fn main() -> ExitCode {
    run::main(Options::parse())
}
