//! What a server says to the keeper of its node first, and what it is answered; after that they speak as with a keeper of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest name of a mount, in bytes.
pub const MAX_ID: usize = 1024;
/// Longest layout, in bytes.
pub(super) const MAX_LAYOUT: usize = 128;
/// Mounts that one answer lists; with their names they fit a packet.
pub(super) const MAX_LISTED: usize = 50;

/// From a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hello {
    /// Here is a mount that was just made: with the descriptors of [`crate::keeper::message::ToServer::Start`], which come back with the answer.
    New { id: String, layout: String, deadline: Duration },
    /// I served this mount when the keeper before you died: with the same descriptors; what is held follows.
    Back { id: String, layout: String, deadline: Duration },
    /// Let me serve that one.
    Take { id: String, layout: String },
    /// What is kept: everything, or that one.
    List { id: Option<String> },
}

/// From the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// After `New` and `Take` the messages follow with which a server starts.
    Granted,
    /// There is no such mount.
    Unknown,
    Refused {
        sentence: String,
    },
    /// `more` are not listed.
    Volumes {
        volumes: Vec<Kept>,
        more: usize,
    },
}

/// A mount that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub id: String,
    /// Which servers can have it; empty when the keeper is of a version that does not tell.
    #[serde(default)]
    pub layout: String,
    /// How long it has had no server.
    pub waits: Option<Duration>,
    /// Descriptors of files without a name.
    pub held: usize,
}
