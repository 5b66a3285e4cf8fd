//! `throttle`: `read=20MiB/s, write_iops=100` as a throttle; several with semicolons.

use super::{ParameterError, quoted};

const RIGHT: &str = "KEY=VALUE, several with commas, for example `read=20MiB/s, write=10MiB/s, burst=2s`; keys are those of a throttle in \
                     the rules, `scope` is `volume` where it is left out";

pub(super) fn line(value: &str) -> Result<String, ParameterError> {
    let throttles: Option<Vec<String>> = value.split(';').map(one).collect();
    match throttles {
        Some(throttles) => Ok(format!("throttle: [{}]", throttles.join(", "))),
        None => Err(ParameterError::Value { name: "throttle", value: value.to_owned(), right: RIGHT.to_owned() }),
    }
}

fn one(text: &str) -> Option<String> {
    let mut pairs = Vec::new();
    let mut has_scope = false;
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=')?;
        has_scope |= key.trim() == "scope";
        pairs.push(format!("{}: {}", quoted(key.trim()), quoted(value.trim())));
    }
    if !has_scope {
        pairs.push("scope: volume".to_owned());
    }
    Some(format!("{{ {} }}", pairs.join(", ")))
}
