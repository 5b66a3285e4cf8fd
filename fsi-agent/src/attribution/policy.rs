//! What annotations of a pod and of its namespace ask of observation. Pure.
//!
//! | annotation | value | |
//! |---|---|---|
//! | `fsi.dev/observe` | `spans`, `metrics`, `off` | what is told of the pod |
//! | `fsi.dev/slower` | `1ms` | events of operations that take as long |
//! | `fsi.dev/sample` | `1/100` | events of one in so many |
//! | `fsi.dev/paths` | `/data/**,*.log` | events of these paths |
//!
//! Each counts for itself: the pod's before the namespace's, and a value that makes no sense is as if it were not there, with a note.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::probe::options::GlobList;
use crate::selection::glob::{self, GlobStyle};
use crate::selection::quantity;

/// What every annotation of ours begins with.
pub(super) const PREFIX: &str = "fsi.dev/";
/// Of a value that makes no sense, no more is repeated.
const MAX_QUOTED: usize = 64;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observe {
    /// Metrics, and spans.
    Spans,
    /// Metrics alone.
    Metrics,
    /// Nothing.
    Off,
}

/// What is asked for; where nothing is, the agent's own configuration holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub observe: Option<Observe>,
    pub slower: Option<Duration>,
    pub sample: Option<NonZeroU32>,
    pub paths: Option<Vec<String>>,
    /// A sentence for each value that makes no sense.
    pub notes: Vec<String>,
}

/// Those annotations of an object that begin with [`PREFIX`].
pub(super) type Annotations = BTreeMap<String, String>;

impl Policy {
    /// The pod's annotations go before those of its namespace.
    pub(super) fn of(pod: &Annotations, namespace: Option<&Annotations>) -> Self {
        let mut policy = Self::default();
        // The namespace first, and what the pod says over it.
        let both = [("namespace", namespace), ("pod", Some(pod))];
        for (whose, annotations) in both.into_iter().filter_map(|(whose, found)| Some((whose, found?))) {
            for (key, value) in annotations {
                if let Err(problem) = policy.set(key, value.trim()) {
                    policy.notes.push(format!("annotation {key} of the {whose}: {problem}"));
                }
            }
        }
        policy
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.strip_prefix(PREFIX) {
            Some("observe") => self.observe = Some(observe(value)?),
            Some("slower") => {
                self.slower = Some(quantity::duration(&quoted(value)).map_err(|error| error.to_string())?)
            }
            Some("sample") => self.sample = Some(quantity::sample(&quoted(value)).map_err(|error| error.to_string())?),
            Some("paths") => self.paths = Some(paths(value)?),
            Some(_) => {
                return Err("there is no such annotation; there are observe, slower, sample and paths".to_owned());
            }
            None => {}
        }
        Ok(())
    }
}

fn observe(value: &str) -> Result<Observe, String> {
    match value {
        "spans" => Ok(Observe::Spans),
        "metrics" => Ok(Observe::Metrics),
        "off" => Ok(Observe::Off),
        _ => Err(format!("`{}` is none of `spans`, `metrics` and `off`", quoted(value))),
    }
}

fn paths(value: &str) -> Result<Vec<String>, String> {
    let globs: Vec<_> = split(value).into_iter().filter(|glob| !glob.is_empty()).collect();
    if globs.is_empty() {
        return Err("it names no path; write globs with commas between them, for example `/data/**,*.log`".to_owned());
    }
    let list = GlobList { include: globs, exclude: Vec::new() };
    glob::compile(&list, GlobStyle::Path).map_err(|error| error.to_string())?;
    Ok(list.include)
}

/// At the commas that are not inside `{a,b}`.
fn split(value: &str) -> Vec<String> {
    let mut globs = vec![String::new()];
    let (mut depth, mut escaped) = (0_usize, false);
    for letter in value.chars() {
        let plain = escaped;
        escaped = letter == '\\' && !plain;
        match letter {
            ',' if depth == 0 && !plain => globs.push(String::new()),
            _ => {
                if !plain {
                    depth = match letter {
                        '{' => depth + 1,
                        '}' => depth.saturating_sub(1),
                        _ => depth,
                    };
                }
                globs.last_mut().into_iter().for_each(|glob| glob.push(letter));
            }
        }
    }
    globs.into_iter().map(|glob| glob.trim().to_owned()).collect()
}

fn quoted(value: &str) -> String {
    value.chars().take(MAX_QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations<const N: usize>(pairs: [(&str, &str); N]) -> Annotations {
        pairs.into_iter().map(|(key, value)| (format!("{PREFIX}{key}"), value.to_owned())).collect()
    }

    #[test]
    fn the_pod_goes_before_its_namespace_key_by_key() {
        let namespace = annotations([("observe", "off"), ("slower", "1ms"), ("paths", "/a/**, *.{log,txt}")]);
        let pod = annotations([("observe", "spans"), ("sample", "1/10")]);
        let expected = Policy {
            observe: Some(Observe::Spans),
            slower: Some(Duration::from_millis(1)),
            sample: NonZeroU32::new(10),
            paths: Some(vec!["/a/**".to_owned(), "*.{log,txt}".to_owned()]),
            notes: Vec::new(),
        };
        assert_eq!(Policy::of(&pod, Some(&namespace)), expected);
        assert_eq!(Policy::of(&Annotations::new(), None), Policy::default());
        let metrics = Policy::of(&annotations([("observe", " metrics ")]), Some(&namespace));
        assert_eq!(metrics.observe, Some(Observe::Metrics));
    }

    #[test]
    fn what_makes_no_sense_is_said_and_left_out() {
        let namespace = annotations([("observe", "metrics"), ("sample", "1/7")]);
        let pod =
            annotations([("observe", "on"), ("slower", "fast"), ("sample", "7"), ("paths", " , "), ("sampel", "1/7")]);
        let policy = Policy::of(&pod, Some(&namespace));
        assert_eq!(
            (policy.observe, policy.sample),
            (Some(Observe::Metrics), NonZeroU32::new(7)),
            "the namespace's hold"
        );
        assert_eq!((policy.slower, policy.paths), (None, None));
        assert_eq!(policy.notes.len(), 5, "{:#?}", policy.notes);
        let observe = "annotation fsi.dev/observe of the pod: `on` is none of `spans`, `metrics` and `off`";
        assert_eq!(policy.notes[0], observe);
        assert!(policy.notes.iter().any(|note| note.contains("fsi.dev/sampel") && note.contains("no such annotation")));
        let glob = Policy::of(&annotations([("paths", "/a/[")]), None);
        assert!(glob.paths.is_none() && glob.notes[0].contains("column"), "{:?}", glob.notes);
    }
}
