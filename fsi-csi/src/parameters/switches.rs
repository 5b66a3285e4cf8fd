//! The parameters of the older driver: `enabled` or `disabled`.
//!
//! `traces`, `tracesNested` and `metrics` ask for what the node's agent does for every volume, so they change nothing about the mount.

use super::ParameterError;

/// What `faultyIO` means where no faults are given.
const FAULTS: &str = "rules: [{ name: faultyIO, match: { ops: [read, write, fsync] }, when: { probability: 0.01 }, do: { errno: EIO } }]";
/// What `throttleIO` means where no throttle is given: the older driver's 32 tokens of 1 KiB a second, for each file.
const THROTTLE: &str = "throttle: [{ scope: file, read: 32KiB/s, write: 32KiB/s }]";
/// What `fakeIO` means where no fake is given.
const FAKE: &str = "fake: \"null\"";

/// What is switched on or off; nothing where nothing is said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Switches {
    faulty: Option<bool>,
    throttle: Option<bool>,
    fake: Option<bool>,
}

impl Switches {
    pub(super) fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, ParameterError> {
        let switch = |name: &'static str| match get(name) {
            None => Ok(None),
            Some("enabled") => Ok(Some(true)),
            Some("disabled") => Ok(Some(false)),
            Some(other) => {
                let right = "`enabled` or `disabled`".to_owned();
                Err(ParameterError::Value { name, value: other.to_owned(), right })
            }
        };
        for name in ["traces", "tracesNested", "metrics"] {
            switch(name)?;
        }
        Ok(Self { faulty: switch("faultyIO")?, throttle: switch("throttleIO")?, fake: switch("fakeIO")? })
    }

    /// Adds what is switched on and not said in detail.
    pub(super) fn apply(self, lines: &mut Vec<(&'static str, String)>, has_rules: bool) -> Result<(), ParameterError> {
        for (name, detail, state, default) in [
            ("faultyIO", "faults", self.faulty, FAULTS),
            ("throttleIO", "throttle", self.throttle, THROTTLE),
            ("fakeIO", "fake", self.fake, FAKE),
        ] {
            let is_given = lines.iter().any(|(given, _)| *given == detail);
            let is_in_rules = has_rules && name == "faultyIO";
            match state {
                Some(true) if !is_given && !is_in_rules => lines.push((detail, default.to_owned())),
                Some(false) if is_given => {
                    let why = "one switches off what the other asks for";
                    return Err(ParameterError::Contradiction { first: name, second: detail, why });
                }
                Some(true | false) | None => {}
            }
        }
        Ok(())
    }
}
