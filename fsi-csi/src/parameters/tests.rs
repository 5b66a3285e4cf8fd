//! What parameters become, and the sentences of those that are wrong.

use std::collections::HashMap;

use fsi_agent::rules::model::Fake;
use fsi_agent::rules::parse::parse;

use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<Parameters, ParameterError> {
    let all: HashMap<String, String> = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Parameters::read(&all)
}

fn set(pairs: &[(&str, &str)]) -> RuleSet {
    let text = read(pairs).unwrap().document(None, Some(1 << 30)).unwrap().expect("it is interposed");
    parse(&text).unwrap()
}

fn sentence(pairs: &[(&str, &str)]) -> String {
    read(pairs).unwrap_err().to_string()
}

#[test]
fn nothing_asked_for_is_a_bind_mount() {
    for pairs in [
        &[][..],
        &[("source", "directory")],
        &[("seed", "7")],
        &[("traces", "enabled"), ("tracesNested", "enabled"), ("metrics", "enabled")],
        &[("faultyIO", "disabled"), ("throttleIO", "disabled"), ("fakeIO", "disabled")],
        &[("fake", "none"), ("profile", "none"), ("capacity", "none")],
        &[("csi.storage.k8s.io/pvc/name", "c"), ("storage.kubernetes.io/csiProvisionerIdentity", "x")],
    ] {
        let parameters = read(pairs).unwrap();
        assert!(!parameters.is_interposed(), "{pairs:?}");
        assert_eq!(parameters.document(None, Some(5)), Ok(None));
    }
}

#[test]
fn the_common_cases_need_no_yaml() {
    let all = set(&[
        ("faults", "write=EIO@0.5, fsync+fdatasync=ENOSPC, read=5ms@0.1, write=short"),
        ("throttle", "read=20MiB/s, write_iops=100; scope=file, write=1MiB/s, burst=2s"),
        ("fake", "memory"),
        ("capacity", "64MiB"),
        ("seed", "42"),
    ]);
    assert_eq!(all.rules.len(), 4);
    assert_eq!(&*all.rules[0].name, "faults-1");
    assert_eq!(all.throttle.len(), 2);
    assert_eq!(all.throttle[0].read_bytes_per_s, Some(20 << 20));
    assert_eq!((all.fake, all.seed), (Fake::Memory, 42));
    assert_eq!(all.capacity.map(|capacity| capacity.bytes), Some(64 << 20));
    assert_eq!(set(&[("profile", "gp2:500GiB")]).profile.unwrap().name, "gp2");
    assert_eq!(set(&[("fake", "null")]).fake, Fake::Null);
}

#[test]
fn the_older_names_have_defaults() {
    assert_eq!(set(&[("faultyIO", "enabled")]).rules.len(), 1);
    assert_eq!(set(&[("throttleIO", "enabled")]).throttle[0].write_bytes_per_s, Some(32 << 10));
    assert_eq!(set(&[("fakeIO", "enabled")]).fake, Fake::Null);
    let detailed = set(&[("faultyIO", "enabled"), ("faults", "read=ENOENT")]);
    assert_eq!(&*detailed.rules[0].name, "faults-1");
}

#[test]
fn what_was_asked_for_is_the_capacity() {
    let rules = "version: 1\nrules: []\n";
    assert_eq!(set(&[("rules", rules)]).capacity.map(|capacity| capacity.bytes), Some(1 << 30));
    let own = "{version: 1, capacity: 1MiB}";
    assert_eq!(set(&[("rules", own)]).capacity.map(|capacity| capacity.bytes), Some(1 << 20));
}

#[test]
fn a_map_brings_rules_later() {
    let parameters = read(&[("rulesConfigMap", "flaky"), ("seed", "5")]).unwrap();
    let text = parameters.document(Some("version: 1\nfake: pattern"), None).unwrap().unwrap();
    assert_eq!(parse(&text).unwrap().seed, 5);
    let wrong = parameters.document(Some("version: 1\nrulez: []"), None).unwrap_err().to_string();
    assert!(wrong.starts_with("ConfigMap `flaky`: line 2, column 1: "), "{wrong}");
}

#[test]
fn wrong_ones_are_told_in_one_sentence() {
    let unknown = sentence(&[("fautls", "x")]);
    assert!(unknown.starts_with("parameter `fautls` is not known; known are: source, "), "{unknown}");
    let rules = sentence(&[("rules", "version: 1\nrules:\n  - do: { errno: EWRONG }\n")]);
    assert!(rules.starts_with("parameter `rules`: line 3, column "), "{rules}");
    let faults = sentence(&[("faults", "wriet=EIO")]);
    assert!(faults.starts_with("parameter `faults`: ") && faults.contains("wriet"), "{faults}");
    assert!(sentence(&[("faults", "write")]).contains("for example `write=EIO@0.001, read=5ms`"));
    assert!(sentence(&[("faults", "write=EIO@2")]).starts_with("parameter `faults`: "));
    assert!(sentence(&[("throttle", "read=fast")]).contains("for example `20MiB/s`"));
    assert!(sentence(&[("throttle", "read=1MiB/s}]")]).starts_with("parameter `throttle`: "));
    assert!(sentence(&[("profile", "floppy")]).contains("allowed: gp2, "));
    assert!(sentence(&[("capacity", "much")]).starts_with("parameter `capacity`: "));
    assert!(sentence(&[("seed", "-1")]).starts_with("parameter `seed`: "));
    assert_eq!(sentence(&[("traces", "yes")]), "parameter `traces` is `yes`; write `enabled` or `disabled`");
    assert!(sentence(&[("rules", "version: 1"), ("rulesConfigMap", "x")]).contains("contradict"));
    assert!(sentence(&[("rules", "{version: 1, capacity: 1MiB}"), ("capacity", "2MiB")]).contains("both say it"));
    assert!(sentence(&[("faultyIO", "disabled"), ("faults", "read=EIO")]).contains("switches off"));
    assert!(sentence(&[("source", "nfs")]).contains("`storageClass:NAME`"));
    assert!(sentence(&[("source", "pvc")]).contains("`persistentVolumeClaimName` is missing"));
    assert!(sentence(&[("source", "directory"), ("persistentVolumeClaimName", "x")]).contains("wraps no claim"));
    assert!(sentence(&[("rulesConfigMap", "a/b")]).contains("the name of a ConfigMap"));
}

#[test]
fn sources_are_told_apart() {
    assert_eq!(read(&[("persistentVolumeClaimName", "c")]).unwrap().source, Source::Claim { name: "c".to_owned() });
    let class = read(&[("source", "storageClass:fast")]).unwrap().source;
    assert_eq!(class, Source::Class { name: "fast".to_owned() });
    let refused = class.for_pods().unwrap_err().to_string();
    assert!(refused.contains("write it in a StorageClass"), "{refused}");
}

#[test]
fn the_older_json_is_held_to_the_size_too() {
    let keys = r#""file_fail_rate": 10, "use_seednum": true, "seed": 3"#;
    for json in [format!("{{{keys}}}"), format!("{{ \"faultyIO\": {{{keys}}}, \"other\": {{}} }}\n")] {
        let parameters = read(&[("rules", &json)]).unwrap();
        let text = parameters.document(None, Some(1 << 20)).unwrap().unwrap();
        let set = parse(&text).unwrap();
        assert_eq!((set.capacity.map(|capacity| capacity.bytes), set.seed), (Some(1 << 20), 3), "{text}");
        let larger = parse(&raised(&text, None, 2 << 20).unwrap()).unwrap();
        assert_eq!(larger.capacity.map(|capacity| capacity.bytes), Some(2 << 20));
        let parameters = read(&[("rules", &json), ("capacity", "3MiB")]).unwrap();
        let set = parse(&parameters.document(None, Some(1 << 20)).unwrap().unwrap()).unwrap();
        assert_eq!(set.capacity.map(|capacity| capacity.bytes), Some(3 << 20), "the user's own");
        assert!(sentence(&[("rules", &json), ("fake", "null")]).contains("takes a `capacity` alone"));
    }
}

#[test]
fn a_capacity_grows_with_the_claim_and_the_users_own_does_not() {
    let capacity = |text: &str| parse(text).unwrap().capacity.unwrap().bytes;
    for rules in ["version: 1", "{version: 1}", "  version: 1\n  rules: []\n", "{\"version\": 1, \"rules\": []}\n"] {
        let text = read(&[("rules", rules)]).unwrap().document(None, Some(1 << 20)).unwrap().unwrap();
        // Whatever the volume's file says by now.
        for before in [None, Some(1 << 20), Some(2 << 20), Some(4 << 20)] {
            let larger = raised(&text, before, 4 << 20).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(capacity(&larger), 4 << 20);
            assert_eq!(capacity(&raised(&larger, before, 8 << 20).unwrap()), 8 << 20, "and again");
            assert_eq!(raised(&larger, before, 2 << 20), None, "never smaller");
            assert_eq!(raised(&larger, before, 4 << 20), None);
        }
    }
    for own in ["version: 1\ncapacity: 1048576\n", "{version: 1, capacity: 1048576}", "version: 1\ncapacity: 1MiB\n"] {
        let text = read(&[("rules", own)]).unwrap().document(None, Some(2 << 20)).unwrap().unwrap();
        assert_eq!(raised(&text, Some(2 << 20), 4 << 20), None, "{text}");
    }
    let earlier = "version: 1\ncapacity: 1048576\n";
    assert_eq!(capacity(&raised(earlier, Some(1 << 20), 4 << 20).unwrap()), 4 << 20);
}
