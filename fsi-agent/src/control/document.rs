//! What a mount answers, as JSON documents; their fields are a contract.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::words::errno_name;
use crate::fuse::control::{PowerCut, SetOutcome, Status};
use crate::rules::decision::{Corrupt, Corruption, Effect, Fault, FaultEntry};

/// A document of `fsi ctl`: what was asked of which mount, and the answer's fields.
#[must_use]
pub fn document(command: &str, target: &Path, answer: Map<String, Value>) -> Value {
    let mut fields = Map::new();
    fields.insert("schema".into(), format!("fsi.ctl.{command}/1").into());
    path_fields(&mut fields, "target", target.as_os_str().as_bytes());
    fields.extend(answer);
    Value::Object(fields)
}

/// The path as text; where it is none, also its bytes, escaped.
fn path_fields(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    fields.insert(name.into(), String::from_utf8_lossy(bytes).into());
    if str::from_utf8(bytes).is_err() {
        fields.insert(format!("{name}_bytes"), bytes.escape_ascii().to_string().into());
    }
}

/// Fields of an object literal.
fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// How a mount is doing.
#[must_use]
pub fn status(status: &Status) -> Map<String, Value> {
    let Status {
        source,
        target: _, // Every document has it.
        device,
        version,
        rules_text,
        paused,
        passthrough,
        servers,
        server_pid,
        keeper_pid,
        nodes,
        open_files,
        open_passthrough,
        waiting,
        requests,
        faults_injected,
        capacity,
        unsynced_bytes,
        undelayed,
        unlogged,
    } = status;
    let mut all = Map::new();
    path_fields(&mut all, "source", source.as_os_str().as_bytes());
    let capacity = capacity.map(|(limit, used)| json!({ "limit_bytes": limit, "used_bytes": used }));
    all.extend(fields(json!({
        "device": device,
        "version": version,
        "rules": rules_text,
        "paused": paused,
        "passthrough": passthrough,
        "servers": servers,
        "server_pid": server_pid,
        "keeper_pid": keeper_pid,
        "nodes": nodes,
        "open_files": open_files,
        "open_passthrough": open_passthrough,
        "waiting": waiting,
        "requests": requests,
        "faults_injected": faults_injected,
        "capacity": capacity,
        "unsynced_bytes": unsynced_bytes,
        "undelayed": undelayed,
        "unlogged": unlogged,
    })));
    all
}

/// What new rules met.
#[must_use]
pub fn set(outcome: SetOutcome) -> Map<String, Value> {
    let SetOutcome { rules, out_of_reach } = outcome;
    fields(json!({ "rules": rules, "out_of_reach": out_of_reach }))
}

/// What a power cut did.
#[must_use]
pub fn power_cut(outcome: PowerCut) -> Map<String, Value> {
    let PowerCut { files, bytes, handles } = outcome;
    fields(json!({ "files": files, "bytes": bytes, "handles": handles }))
}

/// A stretch of the fault log; `last` is what to go on after.
#[must_use]
pub fn faults(entries: &[FaultEntry], forgotten: u64, last: u64) -> Map<String, Value> {
    let faults: Vec<_> = entries.iter().map(fault).collect();
    fields(json!({ "forgotten": forgotten, "last": last, "faults": faults }))
}

/// One fault.
#[must_use]
pub fn fault(entry: &FaultEntry) -> Value {
    let FaultEntry { sequence, unix_ns, fault, op, path, ordinal, ino, pid, uid, offset, asked, done, effect } = entry;
    let Fault { rule, kind, errno, delay } = fault;
    let mut all = fields(json!({
        "sequence": sequence,
        "unix_ns": unix_ns,
        "rule": rule.as_ref(),
        "kind": kind.name(),
        "errno": errno.map(errno_name),
        "delay_ns": u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
        "op": op.name(),
        "ordinal": ordinal,
        "inode": ino,
        "pid": pid,
        "uid": uid,
        "offset": offset,
        "asked": asked,
        "done": done,
        "effect": effect_value(effect),
    }));
    path_fields(&mut all, "path", path);
    Value::Object(all)
}

fn effect_value(effect: &Effect) -> Value {
    match effect {
        Effect::Done => json!("done"),
        Effect::Fail(errno) => json!({ "fail": errno_name(*errno) }),
        Effect::Abort => json!("abort"),
        Effect::Short(bytes) => json!({ "short": bytes }),
        Effect::Torn(bytes) => json!({ "torn": bytes }),
        Effect::Corrupt(Corruption { how, seed }) => {
            let how = match how {
                Corrupt::BitFlip { bits } => json!({ "bit_flip": { "bits": bits } }),
                Corrupt::Zero { bytes } => json!({ "zero": { "bytes": bytes } }),
                Corrupt::Random { bytes } => json!({ "random": { "bytes": bytes } }),
                Corrupt::Pattern { bytes, pattern } => json!({ "pattern": { "bytes": bytes, "pattern": pattern } }),
            };
            json!({ "corrupt": how, "seed": seed })
        }
        Effect::FailFsync(errno) => json!({ "fail_fsync": errno_name(*errno) }),
        Effect::LieFsync => json!("lie_fsync"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::rules::decision::FaultKind;
    use crate::rules::op::Op;

    #[test]
    fn a_fault_has_all_its_fields() {
        let entry = FaultEntry {
            sequence: 1,
            unix_ns: 2,
            fault: Fault {
                rule: "r".into(),
                kind: FaultKind::Errno,
                errno: Some(libc::ENOSPC),
                delay: Duration::from_nanos(7),
            },
            op: Op::Create,
            path: Arc::from(&b"\xff"[..]),
            ordinal: 3,
            ino: 4,
            pid: 5,
            uid: 6,
            offset: 7,
            asked: 8,
            done: 9,
            effect: Effect::Fail(libc::ENOSPC),
        };
        let expected = json!({
            "sequence": 1, "unix_ns": 2, "rule": "r", "kind": "errno", "errno": "ENOSPC", "delay_ns": 7,
            "op": "create", "path": "\u{fffd}", "path_bytes": "\\xff", "ordinal": 3, "inode": 4, "pid": 5, "uid": 6,
            "offset": 7, "asked": 8, "done": 9, "effect": { "fail": "ENOSPC" },
        });
        assert_eq!(fault(&entry), expected);
        let whole = document("faults", Path::new("/m"), faults(&[entry], 2, 1));
        let expected = json!({
            "schema": "fsi.ctl.faults/1", "target": "/m", "forgotten": 2, "last": 1, "faults": [expected],
        });
        assert_eq!(whole, expected);
    }
}
