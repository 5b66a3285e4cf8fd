//! Differences between a mount and the disk below it that are known, each with its reason. One that is new fails, and so does one
//! that is not there any more: then this list is wrong.

/// A difference that cannot be helped.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// What its lines start with.
    pub starts: &'static str,
    pub reason: &'static str,
}

/// Fails with one line for each difference.
#[track_caller]
pub fn none(what: &str, differences: &[String]) {
    only(what, differences, &[]);
}

/// Fails with one line for each difference that is not expected, and one for each that is and does not occur.
#[track_caller]
pub fn only(what: &str, differences: &[String], expected: &[Expected]) {
    let wrong = judge(differences, expected);
    assert!(wrong.is_empty(), "{what}: {} differences\n{}", wrong.len(), wrong.join("\n"));
}

fn judge(differences: &[String], expected: &[Expected]) -> Vec<String> {
    let is = |line: &String, expected: &Expected| line.starts_with(expected.starts);
    let unknown = differences.iter().filter(|line| !expected.iter().any(|expected| is(line, expected))).cloned();
    let over = expected.iter().filter(|expected| !differences.iter().any(|line| is(line, expected)));
    unknown
        .chain(over.map(|over| format!("{}: there is no such difference any more ({})", over.starts, over.reason)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_must_occur_and_nothing_else() {
        let lines = |these: &[&str]| these.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let expected = [Expected { starts: "a: ", reason: "why" }, Expected { starts: "b: ", reason: "because" }];
        assert_eq!(judge(&lines(&["a: 1", "b: 2", "b: 3"]), &expected), lines(&[]));
        assert_eq!(judge(&lines(&["a: 1", "b: 2", "ab: 3"]), &expected), lines(&["ab: 3"]));
        let over = ["b: : there is no such difference any more (because)"];
        assert_eq!(judge(&lines(&["a: 1"]), &expected), lines(&over));
    }
}
