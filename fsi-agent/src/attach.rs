//! Attaching to a running agent: its numbers and what it sees, over a unix socket of its own, so that several who watch cost one set of probes.
//!
//! ```text
//! fsi top, observe --attach: client --(agent-control.sock)--> service --asks--> the agent's busy thread
//!                               ^------ spans, marks --------- queue <---tells--'
//! ```
//! A watcher's queue is bounded: one that is slow loses spans of its own, counted, and holds up nobody.

pub mod client;
pub(crate) mod queue;
pub(crate) mod service;
pub(crate) mod target;
pub(crate) mod wire;
pub mod words;

use std::path::PathBuf;

/// The longest message on either side.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Who may watch at once.
pub(crate) const MAX_WATCHERS: usize = 64;

/// Where the agent is asked, unless its configuration says otherwise.
#[must_use]
pub fn agent_socket() -> PathBuf {
    crate::control::target::run_directory().join("agent-control.sock")
}

/// Whom to watch through an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// All that the agent looks at by its configuration.
    All,
    /// Directories of cgroups, with all below, and containers by their ids, which may be cut short.
    Cgroups { directories: Vec<PathBuf>, containers: Vec<String> },
    /// Globs on the names of pods and of their namespaces; nothing: all.
    Pods { pod: Option<String>, namespace: Option<String> },
}

impl Whom {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::All => "all that the agent looks at".to_owned(),
            Self::Cgroups { directories, containers } => {
                let cgroups = directories.iter().map(|path| format!("cgroup {}", path.display()));
                let containers = containers.iter().map(|id| format!("container {id}"));
                cgroups.chain(containers).collect::<Vec<_>>().join(", ")
            }
            Self::Pods { pod, namespace } => {
                let pod = pod.as_deref().map_or_else(|| "all pods".to_owned(), |pod| format!("pod {pod}"));
                namespace.as_ref().map_or_else(|| pod.clone(), |namespace| format!("{pod} in namespace {namespace}"))
            }
        }
    }
}

/// The messages and the service as generated from `proto/agent.proto`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub(crate) mod generated {
    tonic::include_proto!("fsi.agent.v1");
}
