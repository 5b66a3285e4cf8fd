//! `faults`: `write=EIO@0.001, fsync+fdatasync=ENOSPC, read=5ms@0.1` as rules.

use super::{ParameterError, quoted};

const RIGHT: &str = "OPERATION=EFFECT@PROBABILITY, several with commas, for example `write=EIO@0.001, read=5ms`; an effect is an errno, \
                     a delay, `short` or `torn`; for more there is `rules`";

pub(super) fn line(value: &str) -> Result<String, ParameterError> {
    let rules: Option<Vec<String>> =
        value.split(',').enumerate().map(|(index, text)| rule(index, text.trim())).collect();
    match rules {
        Some(rules) => Ok(format!("rules: [{}]", rules.join(", "))),
        None => Err(ParameterError::Value { name: "faults", value: value.to_owned(), right: RIGHT.to_owned() }),
    }
}

fn rule(index: usize, text: &str) -> Option<String> {
    let (ops, rest) = text.split_once('=')?;
    let (effect, probability) = rest.split_once('@').map_or((rest, None), |(effect, chance)| (effect, Some(chance)));
    let effect = effect.trim();
    let does = match effect.chars().next()? {
        'E' => format!("errno: {}", quoted(effect)),
        '0'..='9' => format!("delay: {}", quoted(effect)),
        _ if matches!(effect, "short" | "torn") => format!("{effect}: random"),
        _ => return None,
    };
    let ops: Vec<String> = ops.split('+').map(|op| quoted(op.trim())).collect();
    let when = probability.map(|chance| format!(", when: {{ probability: {} }}", quoted(chance.trim())));
    let (ops, when, number) = (ops.join(", "), when.unwrap_or_default(), index + 1);
    Some(format!("{{ name: faults-{number}, match: {{ ops: [{ops}] }}{when}, do: {{ {does} }} }}"))
}
