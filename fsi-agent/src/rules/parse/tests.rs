//! What is read, and each mistake with its place.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rules::decision::Corrupt;
use crate::rules::model::{Capacity, Delay, Fake, Injection, Portion};
use crate::rules::op::{Op, OpSet};
use crate::throttle::{Scope, WhenEmpty};

/// Line, column and how the sentence begins, of everything that is wrong.
fn wrong(text: &str) -> Vec<(usize, usize, String)> {
    let Err(Problems(problems)) = parse(text) else { panic!("this is right:\n{text}") };
    problems.into_iter().map(|problem| (problem.at.line, problem.at.column, problem.sentence)).collect()
}

#[test]
fn every_block_of_the_documentation_is_read() {
    let document = include_str!("../../../../docs/RULES.md");
    let blocks: Vec<&str> = document.split("```").skip(1).step_by(2).collect();
    assert!(blocks.len() >= 4);
    for block in blocks {
        let text = block.strip_prefix("yaml").or_else(|| block.strip_prefix("json")).unwrap();
        parse(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    }
    for op in Op::ALL {
        assert!(document.contains(&format!("`{}`", op.name())), "{} is not documented", op.name());
    }
}

/// One rule on the third line, with this behind the dash.
fn rule(text: &str) -> String {
    format!("version: 1\nrules:\n- {text}\n")
}

#[test]
fn mistakes_are_named_where_they_are() {
    let cases: &[(String, usize, usize, &str)] = &[
        (String::new(), 1, 1, "the text is empty; write at least `version: 1`"),
        ("- a".into(), 1, 1, "a set of rules is a list; write a map with `version`"),
        ("seed: 1".into(), 1, 1, "`version` is missing; write `version: 1`"),
        ("version: 2".into(), 1, 10, "version `2` is not known; write `version: 1`"),
        ("version: 1\nseed: -1".into(), 2, 7, "seed is `-1`; write a whole number from 0"),
        (
            "version: 1\nruls: []".into(),
            2,
            1,
            "`ruls` is no key of a set of rules (did you mean `rules`?); write `version`,",
        ),
        ("version: 1\nseed: 1\nseed: 2".into(), 3, 1, "`seed` comes twice in a set of rules; write it once"),
        ("version: 1\n  a: 1".into(), 2, 4, "this is no YAML: "),
        ("version: 1\n---\nversion: 1".into(), 2, 1, "a second document begins; write one document"),
        ("version: &a 1\nseed: *a".into(), 2, 7, "aliases (`*name`) are not taken; write the value out here"),
        ("version: 1\nseed: !!int 1".into(), 2, 7, "tags (`!name`) are not taken; write the value out here"),
        ("version: 1\nrules: {}".into(), 2, 8, "rules is a map; write a list, each item after a `-`"),
        (rule("{ name: a }"), 3, 3, "this rule has no `do`; write `do: { errno: EIO }`"),
        (rule("{ name: 'a b', do: { abort: true } }"), 3, 11, "name is `a b`; write 1 to 64 letters, digits,"),
        (rule("{ name: a, do: {} }"), 3, 18, "do says nothing to do; write one or more of `errno`, `delay`,"),
        (
            rule("{ do: { errno: EI0 } }"),
            3,
            18,
            "errno: `EI0` is no errno (did you mean `EIO`?); write one of EIO, ENOSPC,",
        ),
        (
            rule("{ do: { errno: EIO, torn: 0.5 } }"),
            3,
            23,
            "`errno` and `torn` cannot both be done to one operation; make",
        ),
        (rule("{ do: { short: 1.5 } }"), 3, 18, "short is `1.5`; write a fraction below 1, for example `0.5`, a size"),
        (rule("{ do: { short: 5XB } }"), 3, 18, "short: `5XB` is no size; write a number and a unit (B, KiB,"),
        (rule("{ do: { abort: no } }"), 3, 18, "abort is `no`; write `abort: true`, or leave it out"),
        (rule("{ do: { fail_fsync: EIOO } }"), 3, 23, "fail_fsync: `EIOO` is no errno (did you mean `EIO`?); write"),
        (
            rule("{ do: { corrupt: bitflop } }"),
            3,
            20,
            "corrupt is `bitflop` (did you mean `bitflip`?); write `bitflip`,",
        ),
        (
            rule("{ do: { corrupt: { bitflip: 0 } } }"),
            3,
            31,
            "bitflip (how many bits) is `0`; write a whole number from 1",
        ),
        (rule("{ do: { corrupt: { zero: 0 } } }"), 3, 28, "zero of no bytes changes nothing; write at least `1B`"),
        (
            rule("{ do: { corrupt: { zero: 1, random: 1 } } }"),
            3,
            20,
            "corrupt takes one of `bitflip`, `zero`, `random` or",
        ),
        (
            rule("{ do: { corrupt: { pattern: { hex: abc } } } }"),
            3,
            38,
            "hex is `abc`; write two hexadecimal digits for each",
        ),
        (
            rule("{ do: { corrupt: { pattern: {} } } }"),
            3,
            31,
            "pattern takes one of `text` and `hex`; write exactly one",
        ),
        (rule("{ do: { delay: 5 } }"), 3, 18, "delay: `5` is no duration; write a number and a unit (ns, us, ms,"),
        (rule("{ do: { delay: 2h } }"), 3, 18, "delay is longer than an hour; write at most `1h`, or `abort`"),
        (rule("{ do: { delay: { norml: {} } } }"), 3, 20, "`norml` is no key of delay (did you mean `normal`?); write"),
        (rule("{ do: { delay: { normal: { stddev: 1ms } } } }"), 3, 28, "normal has no `mean`; write `mean: 5ms`"),
        (
            rule("{ do: { delay: { uniform: { min: 2s, max: 1s } } } }"),
            3,
            45,
            "max is less than min; write a max that is at",
        ),
        (
            rule("{ do: { delay: { pareto: { min: 1ms, shape: 0, max: 1s } } } }"),
            3,
            47,
            "shape is `0`; write a number above 0",
        ),
        (
            rule("{ do: { delay: { ramp: { to: 1s, over: 10m } } } }"),
            3,
            42,
            "over (how many operations of a file it takes) is",
        ),
        (
            rule("{ match: { ops: wriet }, do: { abort: true } }"),
            3,
            19,
            "`wriet` is no operation (did you mean `write`?); write",
        ),
        (
            rule("{ match: { ops: [] }, do: { abort: true } }"),
            3,
            19,
            "ops is an empty list; write one value, or a list of some",
        ),
        (
            rule("{ match: { ops: [write, read] }, do: { torn: 0 } }"),
            3,
            27,
            "`torn` means nothing for `read`; write one or more of",
        ),
        (
            rule("{ match: { ops: mkdir, offset: 0..1 }, do: { abort: true } }"),
            3,
            19,
            "`offset` means nothing for `mkdir`; write",
        ),
        (
            rule("{ match: { path: 'a[b' }, do: { abort: true } }"),
            3,
            20,
            "path: glob `a[b`, column 2: `[` has no closing `]`",
        ),
        (
            rule("{ match: { path: ['a', 'b/'] }, do: { abort: true } }"),
            3,
            26,
            "path: glob `b/`, column 2: a path never ends",
        ),
        (
            rule("{ match: { process: sixteen-letters-x }, do: { abort: true } }"),
            3,
            23,
            "process: glob `sixteen-letters-x`:",
        ),
        (
            rule("{ match: { uid: root }, do: { abort: true } }"),
            3,
            19,
            "uid is `root`; write a whole number from 0 to 4294967295",
        ),
        (
            rule("{ match: { offset: 5 }, do: { abort: true } }"),
            3,
            22,
            "offset is `5`; write where it begins and ends, for",
        ),
        (
            rule("{ match: { offset: 5..5 }, do: { abort: true } }"),
            3,
            22,
            "offset `5..5` holds no byte; write an end that is",
        ),
        (
            rule("{ match: { min_size: 2, max_size: 1 }, do: { abort: true } }"),
            3,
            37,
            "max_size is less than min_size, so no file",
        ),
        (
            rule("{ match: { min_size: 1XB }, do: { abort: true } }"),
            3,
            24,
            "min_size: `1XB` is no size; write a number and a unit",
        ),
        (
            rule("{ when: { probability: 0 }, do: { abort: true } }"),
            3,
            26,
            "probability is `0`; write a number above 0 and up to 1",
        ),
        (rule("{ when: { every: 0 }, do: { abort: true } }"), 3, 20, "every is `0`; write a whole number from 1"),
        (
            rule("{ when: { after: 2s, until: 1s }, do: { abort: true } }"),
            3,
            31,
            "until is not later than after, so this never",
        ),
        (
            "version: 1\nthrottle:\n- { read: 1MiB/s }".into(),
            3,
            3,
            "this throttle has no `scope`; write `scope: volume`",
        ),
        (
            "version: 1\nthrottle:\n- { scope: node, read: 1B/s }".into(),
            3,
            12,
            "scope is `node`; write `file`, `volume` or",
        ),
        (
            "version: 1\nthrottle:\n- { scope: pod }".into(),
            3,
            3,
            "this throttle limits nothing; write one or more of `read`,",
        ),
        (
            "version: 1\nthrottle:\n- { scope: pod, read: 5MiB }".into(),
            3,
            23,
            "read is `5MiB`; write a size per second, for",
        ),
        (
            "version: 1\nthrottle:\n- { scope: pod, read: 0B/s }".into(),
            3,
            23,
            "read is `0B/s`, at which nothing ever ends;",
        ),
        ("version: 1\ncapacity: { bytes: 1, errno: EIO }".into(), 2, 30, "errno is `EIO`; write `ENOSPC` or `EDQUOT`"),
        ("version: 1\nfake: nul".into(), 2, 7, "fake is `nul` (did you mean `null`?); write `none`, `null`,"),
        (
            "{\n  \"file_fail_rate\": 10,\n  \"file_fail_rat\": 1\n}".into(),
            3,
            3,
            "`file_fail_rat` is no key of the older",
        ),
        (
            "{ \"file_fail_rate\": \"often\" }".into(),
            1,
            21,
            "file_fail_rate is `often`; write a whole number from 0 to",
        ),
    ];
    let mut otherwise = Vec::new();
    for (text, line, column, begins) in cases {
        let problems = wrong(text);
        let as_told =
            matches!(&problems[..], [(l, c, sentence)] if (l, c) == (line, column) && sentence.starts_with(begins));
        if !as_told {
            otherwise.push(format!("{text}\n  told {line}:{column} {begins}\n  was {problems:?}"));
        }
    }
    assert!(otherwise.is_empty(), "{}", otherwise.join("\n"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "version: 1\nfake: x\nrules:\n- { name: a, do: { errno: E } }\n- { name: b, match: { ops: x }, do: { delay: 1 } }\n";
    let lines: Vec<usize> = wrong(text).into_iter().map(|(line, ..)| line).collect();
    assert_eq!(lines, [2, 4, 5, 5]);
}

#[test]
fn names_and_numbers_of_rules_are_bounded() {
    let rules = |count: usize| format!("version: 1\nrules:\n{}", "- { do: { errno: EIO } }\n".repeat(count));
    let set = parse(&rules(64)).unwrap();
    assert_eq!((&*set.rules[0].name, &*set.rules[63].name), ("rule-1", "rule-64"));
    assert_eq!(wrong(&rules(65)), [(67, 3, "there are 65 rules; write at most 64".to_owned())]);
    let twice = "version: 1\nrules:\n- { name: a, do: { errno: EIO } }\n- { name: a, do: { errno: EIO } }\n";
    assert!(wrong(twice)[0].2.starts_with("a rule before this one is named `a` too"));
}

#[test]
fn everything_is_read_as_written() {
    let set = parse(
        "version: 1\nthrottle: [{ scope: file, read: 20MiB/s, write_iops: 5, burst: 2s, when_empty: eagain }]\n\
         capacity: { bytes: 1GiB, errno: EDQUOT }\nfake: memory\nprofile: gp2\nrules:\n- { do: { torn: 512B, delay: 5ms } }\n\
         - { do: { corrupt: { pattern: { hex: 0aFF, bytes: 4 } } } }\n- { do: { delay: { ramp: { to: 1s, over: 9 } } } }\n",
    )
    .unwrap();
    let throttle = &set.throttle[0];
    assert_eq!((throttle.scope, throttle.when_empty), (Scope::File, WhenEmpty::Again));
    assert_eq!(
        (throttle.read_bytes_per_s, throttle.write_bytes_per_s, throttle.write_iops),
        (Some(20 << 20), None, Some(5))
    );
    assert_eq!(set.capacity, Some(Capacity { bytes: 1 << 30, errno: libc::EDQUOT }));
    assert_eq!((set.fake, set.profile.unwrap().name), (Fake::Memory, "gp2"));
    let [torn, pattern, ramp] = &set.rules[..] else { panic!("three rules") };
    assert_eq!(torn.action.effect, Some(Injection::Torn(Portion::Bytes(512))));
    assert_eq!(torn.matching.ops, OpSet::EMPTY.with(Op::Write));
    assert_eq!(torn.action.delay, Some(Delay::Fixed(Duration::from_millis(5))));
    let expected = Corrupt::Pattern { bytes: 4, pattern: vec![10, 255] };
    assert_eq!(pattern.action.effect, Some(Injection::Corrupt(expected)));
    let expected = Delay::Ramp { from: Duration::ZERO, to: Duration::from_secs(1), over: 9 };
    assert_eq!((ramp.action.delay.as_ref(), ramp.matching.ops), (Some(&expected), OpSet::all()));
}

#[test]
fn the_older_json_is_taken_as_it_is() {
    let plain = "{\n\t\"local_log_path\": \"/tmp/log\",\n\t\"file_fail_rate\": 10,\n\t\"directory_fail_rate\": 4,\n\t\"use_seednum\": \
                 true,\n\t\"seed\": 7,\n\t\"delay_time\": 2\n}\n";
    let set = parse(plain).unwrap();
    assert_eq!((set.seed, set.rules.len()), (7, 9));
    let names: Vec<&str> = set.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names[..5], ["file-eio", "file-enospc", "file-enoent", "file-delay", "file-short"]);
    let nested = parse(&format!("{{ \"faultyIO\": {plain}, \"fakeIO\": {{}} }}")).unwrap();
    assert_eq!(nested, set);
    assert_eq!(parse(&plain.replace("true", "false")).unwrap().seed, 0);
    assert!(parse(r#"{ "file_fail_rate": 0 }"#).unwrap().rules.is_empty());
}

proptest! {
    /// Whatever the text is, the answer is rules or problems.
    #[test]
    fn no_text_is_too_odd(text in "[-a-z0-9:{}\\[\\],&*!|>'\"#% \n\t]{0,80}") {
        if let Err(Problems(problems)) = parse(&text) {
            prop_assert!(!problems.is_empty());
        }
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = format!("version: {}1{}", "[".repeat(17), "]".repeat(17));
    assert!(wrong(&nested)[0].2.starts_with("this is nested more than 16 deep"), "{:?}", wrong(&nested));
    // The parser itself gives up before memory does.
    let deep = wrong(&"[".repeat(100_000));
    assert!(deep[0].2.starts_with("this is no YAML: recursion limit"), "{}", deep[0].2);
    assert!(wrong(&" ".repeat(2 << 20))[0].2.starts_with("the text has 2097152 bytes; write at most"));
}
