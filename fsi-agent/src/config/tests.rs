//! What is read, what is refused and where, and that the documentation says the same.

use std::collections::BTreeSet;

use super::endpoints;
use super::read::{
    CONTROL_KEYS, KEYS, KUBERNETES_KEYS, LOG_KEYS, METRICS_KEYS, MOUNTS_KEYS, NAMESPACE_KEYS, OBSERVE_KEYS,
    POLICY_KEYS, PRIVACY_KEYS, SPANS_KEYS, SPOOL_KEYS,
};
use super::*;

const DOCUMENT: &str = include_str!("../../../docs/CONFIGURATION.md");

fn wrong(text: &str) -> Vec<(usize, usize, String)> {
    let Err(Problems(problems)) = Config::parse(text) else { panic!("this is right:\n{text}") };
    problems.into_iter().map(|problem| (problem.at.line, problem.at.column, problem.sentence)).collect()
}

fn blocks() -> Vec<&'static str> {
    DOCUMENT.split("```yaml").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_key_is_documented_and_no_other() {
    let sections = [
        ("", KEYS),
        ("observe.", OBSERVE_KEYS),
        ("observe.default.", POLICY_KEYS),
        ("observe.namespaces[].", NAMESPACE_KEYS),
        ("spans.", SPANS_KEYS),
        ("otlp[].", endpoints::KEYS),
        ("otlp[].tls.", endpoints::TLS_KEYS),
        ("spool.", SPOOL_KEYS),
        ("metrics.", METRICS_KEYS),
        ("kubernetes.", KUBERNETES_KEYS),
        ("mounts.", MOUNTS_KEYS),
        ("control.", CONTROL_KEYS),
        ("privacy.", PRIVACY_KEYS),
        ("log.", LOG_KEYS),
    ];
    let keys: BTreeSet<String> =
        sections.iter().flat_map(|(prefix, keys)| keys.iter().map(move |key| format!("{prefix}{key}"))).collect();
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert_eq!(documented, keys);
}

/// The default of a key as its row of the documentation has it, in backquotes.
fn documented_default(key: &str) -> &'static str {
    let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| `{key}` |"))).unwrap();
    let cell = row.split('|').nth(2).unwrap().trim();
    cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap_or_else(|| panic!("{key}: {cell}"))
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(Config::parse("version: 1").unwrap(), Config::default());
    assert_eq!(Config::parse(blocks()[0]).unwrap(), Config::default());
    let rows = [
        "observe.scope",
        "observe.default.observe",
        "observe.default.slower",
        "observe.default.failed",
        "observe.default.sample",
        "observe.annotations",
        "observe.ring",
        "spans.grouping",
        "spans.window",
        "spans.max_open",
        "spool",
        "metrics.listen",
        "metrics.max_series",
        "metrics.keep_ended",
        "metrics.exemplars",
        "kubernetes.enabled",
        "kubernetes.kubelet_root",
        "mounts.socket",
        "control.socket",
        "privacy.paths",
        "privacy.components",
        "log.level",
        "log.format",
        "drain",
    ];
    for key in rows {
        let mut text = String::from("version: 1");
        for (depth, part) in key.split('.').enumerate() {
            text += &format!("\n{}{part}:", "  ".repeat(depth));
        }
        let text = format!("{text} {}", documented_default(key));
        assert_eq!(Config::parse(&text).as_ref(), Ok(&Config::default()), "{text}");
    }
    let endpoint = |key: &str| format!("{key}: {}", documented_default(&format!("otlp[].{key}")));
    let keys = ["spans", "metrics", "queue", "batch", "interval", "deadline"].map(endpoint).join(", ");
    let config = Config::parse(&format!("version: 1\notlp: [{{ url: grpc://h, {keys} }}]")).unwrap();
    assert_eq!(config.otlp, vec![Endpoint::at("grpc://h")]);
    let spool = Config::parse("version: 1\nspool: { directory: /s }").unwrap().spool.unwrap();
    assert_eq!(documented_default("spool.size"), "1GiB");
    assert_eq!(spool, Spool { directory: "/s".into(), max_bytes: 1 << 30 });
}

#[test]
fn the_example_means_what_it_says() {
    let config = Config::parse(blocks()[1]).unwrap();
    assert_eq!(config.cluster.as_deref(), Some("production"));
    let policy = |namespace: &str| config.observe.policy(namespace);
    assert_eq!(policy("default"), Policy::default());
    assert_eq!(policy("kube-system"), Policy { level: Level::Metrics, ..Policy::default() });
    assert!(policy("kube-system").events().is_off());
    let (slower, sample) = (Some(Duration::from_millis(1)), NonZeroU32::new(1000));
    assert_eq!(policy("team-a-long-name-of-a-namespace"), Policy { slower, sample, ..Policy::default() });
    assert_eq!(policy("team-a").events(), EventPolicy { every: false, slower, failed: true, sample });
    assert_eq!(config.spans.grouping, Grouping::Workload);
    let [endpoint] = config.otlp.as_slice() else { panic!("{:?}", config.otlp) };
    assert_eq!(endpoint.headers, [("authorization".to_owned(), Secret::Env("OTLP_TOKEN".to_owned()))]);
    assert_eq!(endpoint.metrics, Some(Duration::from_secs(60)));
    assert_eq!(endpoint.tls.identity, Some(("/etc/fsi/tls.crt".into(), "/etc/fsi/tls.key".into())));
    assert_eq!(config.privacy.paths, PathPrivacy::Hash);
}

#[test]
fn everything_can_be_said() {
    let text = "
version: 1
node: n1
observe:
  scope: node
  cgroups: [/sys/fs/cgroup/a, /sys/fs/cgroup/b]
  process: [postgres, 'java*']
  not_process: sh
  paths: ['/data/**']
  operations: [read, 'write,fsync']
  ring: 64KiB
  default: { observe: 'off', slower: none, failed: false }
metrics: { listen: 'off', exemplars: true }
privacy: { paths: cut, components: 3 }
kubernetes: { enabled: false, kubeconfig: /k }
";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.node_name(), "n1");
    assert_eq!(config.observe.cgroups.len(), 2);
    let process = GlobList { include: vec!["postgres".into(), "java*".into()], exclude: vec!["sh".into()] };
    assert_eq!(config.observe.process, process);
    assert_eq!(config.observe.operations, [OpKind::Read, OpKind::Write, OpKind::Fsync]);
    assert_eq!(config.observe.ring_bytes, 65_536);
    let none = Policy { level: Level::Off, slower: None, failed: false, sample: None };
    assert_eq!(config.observe.default, none);
    assert_eq!((config.metrics.listen, config.metrics.exemplars), (None, true));
    assert_eq!(config.privacy.paths, PathPrivacy::Cut { components: 3 });
    assert_eq!(config.kubernetes.enabled, Enabled::No);
}

#[test]
fn mistakes_are_named_where_they_are() {
    let cases: &[(&str, usize, usize, &str)] = &[
        ("", 1, 1, "the text is empty; write at least `version: 1`"),
        ("node: a", 1, 1, "`version` is missing; write `version: 1`"),
        ("version: 2", 1, 10, "version `2` is not known; write `version: 1`"),
        (
            "version: 1\nobserv: {}",
            2,
            1,
            "`observ` is no key of the configuration (did you mean `observe`?); write `version`, `node`,",
        ),
        ("version: 1\nobserve: yes", 2, 10, "observe is `yes`; write a map with `scope`,"),
        (
            "version: 1\nobserve: { scope: pods }",
            2,
            19,
            "scope is `pods` (did you mean `node`?); write `containers` or `node`",
        ),
        ("version: 1\nobserve: { default: { slower: 10 } }", 2, 31, "slower: `10` is no duration; write a number and"),
        ("version: 1\nobserve: { default: { sample: 5 } }", 2, 31, "sample: `5` is no sampling rate; write `1/N`"),
        ("version: 1\nobserve: { default: { name: a } }", 2, 23, "`name` is no key of default"),
        ("version: 1\nobserve: { namespaces: [{ slower: 1s }] }", 2, 25, "this namespace has no `name`; write `name:"),
        ("version: 1\nobserve: { namespaces: [{ name: '[' }] }", 2, 33, "glob `[`, column 1:"),
        ("version: 1\nobserve: { process: a-command-with-a-long-name }", 2, 21, "glob `a-command-with-a-long-name`:"),
        ("version: 1\nobserve: { operations: [reed] }", 2, 25, "operations: `reed` is no operation; the operations"),
        ("version: 1\nobserve: { ring: 5KiB }", 2, 18, "ring: `5KiB` is not a size that a ring can have;"),
        ("version: 1\nobserve: { annotations: maybe }", 2, 25, "annotations is `maybe`; write `true` or `false`"),
        ("version: 1\nspans: { grouping: pods }", 2, 20, "grouping is `pods` (did you mean `pod`?); write `file`,"),
        ("version: 1\nspans: { window: 1s }", 2, 18, "window is 1s; write a duration from 60s to 86400s"),
        ("version: 1\notlp: [{ spans: true }]", 2, 8, "this endpoint has no `url`; write `url: grpc://localhost:4317`"),
        ("version: 1\notlp: [{ url: ftp://h }]", 2, 15, "otlp url `ftp://h`: the scheme is none of http,"),
        (
            "version: 1\notlp: [{ url: http://h/x, metrics: 10s }]",
            2,
            15,
            "otlp url `http://h/x`: where metrics go does not follow",
        ),
        ("version: 1\notlp: [{ url: grpc://h }, { url: grpc://h }]", 2, 27, "an endpoint before this one has the url"),
        ("version: 1\notlp: [{ url: grpc://h, headers: { 'a b': c } }]", 2, 36, "`a b` cannot be a header; write"),
        ("version: 1\notlp: [{ url: grpc://h, headers: { a: { en: C } } }]", 2, 41, "`en` is no key of the header `a`"),
        ("version: 1\notlp: [{ url: grpc://h, headers: { a: {} } }]", 2, 39, "the header `a` takes exactly one of"),
        ("version: 1\notlp: [{ url: grpc://h, tls: { cert_file: /c } }]", 2, 30, "a certificate takes its key; write"),
        ("version: 1\notlp: [{ url: grpc://h, queue: 0 }]", 2, 32, "queue is `0`; write a whole number from 1 to"),
        ("version: 1\nspool: { size: 1GiB }", 2, 8, "spool has no `directory`; write `directory: /var/lib/fsi/spool`"),
        ("version: 1\nspool: { directory: /s, size: 1MiB }", 2, 31, "size is too small for a spool; write at least"),
        ("version: 1\nmetrics: { listen: 9464 }", 2, 20, "listen is `9464`; write an address and a port, for"),
        ("version: 1\nmounts: { socket: agent.sock }", 2, 19, "socket is `agent.sock`; write a path from the root,"),
        ("version: 1\nprivacy: { paths: hashed }", 2, 19, "paths is `hashed` (did you mean `hash`?); write `full`,"),
        ("version: 1\nlog: { level: loud }", 2, 15, "level is `loud`; write `error`, `warn`, `info`, `debug` or"),
        ("version: 1\ndrain: 1h", 2, 8, "drain is 3600s; write a duration from 0ns to 300s"),
    ];
    let mut others = Vec::new();
    for (text, line, column, sentence) in cases {
        let found = wrong(text);
        let right = matches!(found.as_slice(), [(found_line, found_column, found_sentence)]
            if (found_line, found_column) == (line, column) && found_sentence.starts_with(sentence));
        if !right {
            others.push((text, found));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn all_mistakes_are_told_and_nothing_is_applied() {
    let found = wrong("version: 1\nspans: { window: 1s }\nlog: { level: loud }\nextra: 1");
    assert_eq!(found.iter().map(|(line, ..)| *line).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn a_file_is_read_or_named_in_the_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "version: 1\ncluster: c\n").unwrap();
    assert_eq!(Config::read(file.path()).unwrap().cluster.as_deref(), Some("c"));
    fs::write(file.path(), "version: 1\nlog: 1\nx: 1\n").unwrap();
    let error = Config::read(file.path()).unwrap_err().to_string();
    assert!(error.lines().all(|line| line.starts_with(&file.path().display().to_string())), "{error}");
    assert!(error.contains(": line 2, column 6: log is `1`"), "{error}");
    let missing = Config::read(Path::new("/no/such/file")).unwrap_err().to_string();
    assert!(missing.starts_with("read /no/such/file: "), "{missing}");
}

#[test]
fn secrets_are_had_at_the_start_and_never_shown() {
    let text = "version: 1\notlp: [{ url: grpc://h, headers: { A: very-secret } }]";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.otlp[0].headers[0].1.get().unwrap(), "very-secret");
    assert!(!format!("{config:?}").contains("very-secret"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "from a file\n").unwrap();
    assert_eq!(Secret::File(file.path().to_owned()).get().unwrap(), "from a file");
    assert!(Secret::Env("FSI_NO_SUCH_VARIABLE".to_owned()).get().is_err());
}
