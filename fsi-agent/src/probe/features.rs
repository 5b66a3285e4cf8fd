//! What this kernel and these privileges allow: each capability with what it means and how to get it.
//!
//! Tried rather than guessed wherever the kernel can be asked without harm; the last word has [`Report::observing`], which
//! loads and attaches the real thing.

mod checks;

use serde::Serialize;

use super::Probe;
use super::options::{EventPolicy, GlobList, ProbeOptions, Selection};

/// The hooks in use.
pub const TIER: &str = "tp_btf";

/// Whether a capability is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    Missing,
    /// It cannot be found out from here.
    Unknown,
}

/// Whether observing works without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    Required,
    Optional,
}

/// One thing the kernel or the privileges give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    pub name: &'static str,
    pub state: State,
    pub need: Need,
    /// What was found.
    pub found: String,
    /// What it is good for.
    pub meaning: &'static str,
    /// What to do to get it; nothing when it is there.
    pub remedy: Option<String>,
}

/// Whether the real thing loads and attaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observing {
    pub possible: bool,
    /// One sentence.
    pub sentence: String,
}

/// Everything that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub kernel: String,
    /// The hooks in use, when observing is possible.
    pub tier: Option<&'static str>,
    pub observing: Observing,
    pub capabilities: Vec<Capability>,
}

/// Asks the kernel. Changes nothing: what is loaded on the way is gone at return.
#[must_use]
pub fn examine() -> Report {
    let kernel = checks::Kernel::running();
    let (observing, joins) = observing();
    let capabilities = checks::all(&kernel, joins);
    let tier = observing.possible.then_some(TIER);
    Report { kernel: kernel.release, tier, observing, capabilities }
}

/// Loads and attaches the programs as the agent does or, if that fails, as `fsi observe -- CMD` does, with a small ring, and lets them go;
/// and whether requests to mounts are told, where that could be tried.
fn observing() -> (Observing, Option<bool>) {
    let possible = Observing { possible: true, sentence: "the programs load and attach".to_owned() };
    if let Ok(loaded) = Probe::load(&options(true)) {
        return (possible, Some(loaded.joins()));
    }
    match Probe::load(&options(false)) {
        Ok(_loaded) => (possible, None),
        Err(error) => (Observing { possible: false, sentence: error.to_string() }, None),
    }
}

fn options(interposed: bool) -> ProbeOptions {
    ProbeOptions {
        selection: Selection::Command,
        events: EventPolicy::default(),
        follow_files: true,
        follow_processes: true,
        interposed,
        paths: GlobList::default(),
        processes: GlobList::default(),
        operations: Vec::new(),
        ring_bytes: 64 * 1024,
        debug: false,
    }
}
