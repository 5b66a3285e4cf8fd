//! Parameters of a StorageClass, or attributes of an inline volume, to where the data is and one text of rules.
//!
//! Rules are read by the parser of `fsi rules check`, so that a mistake is told with the same words, and with the line and column of
//! the text that the user wrote.

mod document;
mod faults;
mod source;
mod switches;
mod throttle;

use std::collections::BTreeMap;

use fsi_agent::rules::model::RuleSet;
use fsi_agent::rules::parse::{self, Problems};
use thiserror::Error;

pub use self::source::Source;
use self::switches::Switches;

/// Every parameter there is, in the order of docs/KUBERNETES.md.
pub const NAMES: [&str; 16] = [
    "source",
    "persistentVolumeClaimName",
    "rules",
    "rulesConfigMap",
    "throttle",
    "faults",
    "fake",
    "profile",
    "capacity",
    "seed",
    "traces",
    "metrics",
    "tracesNested",
    "faultyIO",
    "throttleIO",
    "fakeIO",
];
/// What Kubernetes adds on its own.
const KUBERNETES: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];

/// Says of a capacity that it is the size that the claim asks for, and grows with it.
const OF_THE_CLAIM: &str = " # the claim's";

/// Why a volume cannot be made as the parameters say.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ParameterError {
    #[error("parameter `{name}` is not known; known are: {}", NAMES.join(", "))]
    Unknown { name: String },
    #[error("parameter `{name}` is `{value}`; write {right}")]
    Value { name: &'static str, value: String, right: String },
    #[error("parameter `{name}`: {sentence}")]
    Rules { name: &'static str, sentence: String },
    #[error("ConfigMap `{map}`: {sentence}")]
    ConfigMap { map: String, sentence: String },
    #[error("parameters `{first}` and `{second}` contradict each other: {why}")]
    Contradiction { first: &'static str, second: &'static str, why: &'static str },
    #[error("parameter `{name}` is missing: {why}")]
    Missing { name: &'static str, why: &'static str },
    #[error(
        "source `storageClass:NAME` makes a claim for a claim: write it in a StorageClass, and in a pod a claim of that class"
    )]
    OnlyClaims,
    #[error("source `pvc` wraps a claim for one pod: write it as an inline volume (`csi:`) of the pod")]
    OnlyInline,
}

/// What the parameters say; each has been looked at on its own and with the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pub source: Source,
    /// Inline.
    rules: Option<String>,
    /// The name of a ConfigMap that has the rules, in the namespace of the claim or pod.
    pub rules_config_map: Option<String>,
    /// Lines of the rules' text that other parameters stand for, each with its parameter.
    lines: Vec<(&'static str, String)>,
}

impl Parameters {
    /// Reads them.
    ///
    /// # Errors
    /// When one is wrong or not known, or two contradict each other.
    pub fn read<'a>(all: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Self, ParameterError> {
        let given: BTreeMap<&str, &str> = all
            .into_iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !KUBERNETES.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        if let Some(name) = given.keys().find(|name| !NAMES.contains(name)) {
            return Err(ParameterError::Unknown { name: (*name).to_owned() });
        }
        let get = |name: &str| given.get(name).copied();
        let switches = Switches::read(get)?;
        let source = Source::read(get("source"), get("persistentVolumeClaimName"))?;
        let rules = get("rules").map(str::to_owned);
        let rules_config_map = get("rulesConfigMap").map(config_map_name).transpose()?;
        if rules.is_some() && rules_config_map.is_some() {
            let why = "rules are in one of them";
            return Err(ParameterError::Contradiction { first: "rules", second: "rulesConfigMap", why });
        }
        let has_rules = rules.is_some() || rules_config_map.is_some();
        let lines = lines(get, switches, has_rules)?;
        let parameters = Self { source, rules, rules_config_map, lines };
        if parameters.rules_config_map.is_none() {
            parameters.document(None, None)?;
        }
        Ok(parameters)
    }

    /// Whether anything is asked for that takes an interposer.
    #[must_use]
    pub fn is_interposed(&self) -> bool {
        let asks = |(name, _): &(&str, String)| *name != "seed";
        self.rules.is_some() || self.rules_config_map.is_some() || self.lines.iter().any(asks)
    }

    /// The text of the rules, for a volume of that many bytes; none where a plain bind mount does.
    ///
    /// # Errors
    /// When the rules are wrong, or say what another parameter says.
    pub fn document(&self, config_map: Option<&str>, bytes: Option<u64>) -> Result<Option<String>, ParameterError> {
        if !self.is_interposed() {
            return Ok(None);
        }
        let base = self.rules.as_deref().or(config_map);
        let mut set = RuleSet::default();
        if let Some(text) = base {
            set = parse::parse(text).map_err(|problems| self.wrong(&problems))?;
        }
        for (name, _) in &self.lines {
            if said_twice(name, &set) {
                let why = "both say it; write it in one of them";
                return Err(ParameterError::Contradiction { first: self.rules_name(), second: name, why });
            }
        }
        let own: Vec<&str> = self.lines.iter().map(|(_, line)| line.as_str()).collect();
        let text = document::joined(base, &own);
        let whole = parse::parse(&text).map_err(|problems| self.beside(base, &problems))?;
        let Some(bytes) = bytes.filter(|_| whole.capacity.is_none()) else { return Ok(Some(text)) };
        let with_capacity = document::joined(Some(&text), &[&format!("capacity: {bytes}{OF_THE_CLAIM}")]);
        // A text that takes no more keys goes without.
        Ok(Some(if parse::parse(&with_capacity).is_ok() { with_capacity } else { text }))
    }

    const fn rules_name(&self) -> &'static str {
        if self.rules_config_map.is_some() { "rulesConfigMap" } else { "rules" }
    }

    fn wrong(&self, problems: &Problems) -> ParameterError {
        let sentence = one_line(problems);
        match &self.rules_config_map {
            Some(map) => ParameterError::ConfigMap { map: map.clone(), sentence },
            None => ParameterError::Rules { name: "rules", sentence },
        }
    }

    /// Text and lines are right, each on its own.
    fn beside(&self, base: Option<&str>, problems: &Problems) -> ParameterError {
        match (base, self.lines.first()) {
            (Some(_), Some((name, _))) => {
                let why =
                    "the text has no place for it; write it into the rules (the older JSON takes a `capacity` alone)";
                ParameterError::Contradiction { first: self.rules_name(), second: name, why }
            }
            _ => self.wrong(problems),
        }
    }
}

/// Rules with a larger capacity, if theirs is smaller and is the size that was asked for; none when it is the user's own. The size before is
/// known by rules of an earlier version, which do not say whose their capacity is.
#[must_use]
pub fn raised(rules: &str, before: Option<u64>, bytes: u64) -> Option<String> {
    let capacity = parse::parse(rules).ok()?.capacity?.bytes;
    let (start, end) = rules.rsplit_once(&format!("capacity: {capacity}"))?;
    let is_of_the_claim = end.starts_with(OF_THE_CLAIM) || before == Some(capacity);
    if !is_of_the_claim || bytes <= capacity {
        return None;
    }
    let text = format!("{start}capacity: {bytes}{end}");
    parse::parse(&text).is_ok_and(|set| set.capacity.is_some_and(|now| now.bytes == bytes)).then_some(text)
}

/// What the parameters without YAML stand for, checked one by one.
fn lines<'a>(
    get: impl Fn(&str) -> Option<&'a str>,
    switches: Switches,
    has_rules: bool,
) -> Result<Vec<(&'static str, String)>, ParameterError> {
    let mut lines = Vec::new();
    for name in ["seed", "capacity", "fake", "profile"] {
        if let Some(value) = get(name).filter(|value| *value != "none") {
            lines.push((name, format!("{name}: {}", quoted(value))));
        }
    }
    if let Some(value) = get("throttle") {
        lines.push(("throttle", throttle::line(value)?));
    }
    if let Some(value) = get("faults") {
        lines.push(("faults", faults::line(value)?));
    }
    switches.apply(&mut lines, has_rules)?;
    for (name, line) in &lines {
        let alone = document::joined(None, &[line.as_str()]);
        parse::parse(&alone).map_err(|Problems(problems)| {
            let sentences: Vec<_> = problems.into_iter().map(|problem| problem.sentence).collect();
            ParameterError::Rules { name, sentence: sentences.join("; ") }
        })?;
    }
    Ok(lines)
}

fn said_twice(name: &str, set: &RuleSet) -> bool {
    match name {
        "capacity" => set.capacity.is_some(),
        "fake" => set.fake != fsi_agent::rules::model::Fake::None,
        "profile" => set.profile.is_some(),
        "throttle" => !set.throttle.is_empty(),
        "faults" => !set.rules.is_empty(),
        "seed" => set.seed != 0,
        _ => false,
    }
}

/// A text as YAML reads it back.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn one_line(Problems(problems): &Problems) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn config_map_name(name: &str) -> Result<String, ParameterError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !name.is_empty() && name.len() <= 253 && name.bytes().all(is_plain) {
        return Ok(name.to_owned());
    }
    let right = "the name of a ConfigMap in the namespace of the claim".to_owned();
    Err(ParameterError::Value { name: "rulesConfigMap", value: name.to_owned(), right })
}

#[cfg(test)]
mod tests;
