//! What holds for a volume rather than for an operation: throttles, capacity, fake data, profile.

use std::time::Duration;

use crate::rules::model::{Capacity, Fake};
use crate::selection::quantity;
use crate::throttle::profile::Profile;
use crate::throttle::{Scope, ThrottleSpec, WhenEmpty};
use crate::yaml::{Fields, Node, Reader, Value};

const THROTTLE_KEYS: &[&str] = &["scope", "read", "write", "read_iops", "write_iops", "burst", "when_empty"];
const RATES: &[&str] = &["read", "write", "read_iops", "write_iops"];
const DEFAULT_BURST: Duration = Duration::from_secs(1);

pub(super) fn throttle(reader: &mut Reader, node: &Node) -> Option<ThrottleSpec> {
    let fields = Fields::of(reader, node, "a throttle", THROTTLE_KEYS)?;
    let scopes = [("file", Scope::File), ("volume", Scope::Volume), ("pod", Scope::Pod)];
    let scope =
        fields.need(reader, "this throttle", "scope", "volume").and_then(|node| reader.word(node, "scope", &scopes));
    let mut rates = [None; 4];
    for (rate, name) in rates.iter_mut().zip(RATES) {
        let Some(node) = fields.get(name) else { continue };
        *rate = if name.ends_with("_iops") {
            reader.number(node, name, 1..=u64::MAX)
        } else {
            bytes_per_s(reader, node, name)
        };
    }
    if RATES.iter().all(|name| fields.get(name).is_none()) {
        let sentence =
            "this throttle limits nothing; write one or more of `read`, `write`, `read_iops` and `write_iops`";
        reader.wrong(node.at, sentence.to_owned());
    }
    let burst = fields.get("burst").map_or(Some(DEFAULT_BURST), |node| burst(reader, node));
    let words = [("wait", WhenEmpty::Wait), ("eagain", WhenEmpty::Again)];
    let when_empty =
        fields.get("when_empty").map_or(Some(WhenEmpty::Wait), |node| reader.word(node, "when_empty", &words));
    let [read_bytes_per_s, write_bytes_per_s, read_iops, write_iops] = rates;
    Some(ThrottleSpec {
        read_bytes_per_s,
        write_bytes_per_s,
        read_iops,
        write_iops,
        burst: burst?,
        when_empty: when_empty?,
        ..ThrottleSpec::unlimited(scope?)
    })
}

fn burst(reader: &mut Reader, node: &Node) -> Option<Duration> {
    let burst = reader.duration(node, "burst")?;
    if burst.is_zero() || burst > Duration::from_secs(3600) {
        reader.wrong(
            node.at,
            "burst is how long a rate may be saved up; write more than `0s` and at most `1h`".to_owned(),
        );
        return None;
    }
    Some(burst)
}

fn bytes_per_s(reader: &mut Reader, node: &Node, what: &str) -> Option<u64> {
    const RIGHT: &str = "a size per second, for example `20MiB/s`";
    let text = reader.text(node, what, RIGHT)?;
    let Some(size) = text.strip_suffix("/s") else {
        reader.wrong(node.at, format!("{what} is `{text}`; write {RIGHT}"));
        return None;
    };
    let size = reader.quantity(node.at, what, quantity::size(size.trim_end()))?;
    if size == 0 {
        reader.wrong(node.at, format!("{what} is `{text}`, at which nothing ever ends; write at least `1B/s`"));
        return None;
    }
    Some(size)
}

pub(super) fn capacity(reader: &mut Reader, node: &Node) -> Option<Capacity> {
    let (bytes_node, errno) = match &node.value {
        Value::Null => return None,
        Value::Scalar(text) if text == "none" => return None,
        Value::Scalar(_) | Value::List(_) => (node, Some(libc::ENOSPC)),
        Value::Map(_) => {
            let fields = Fields::of(reader, node, "capacity", &["bytes", "errno"])?;
            let words = [("ENOSPC", libc::ENOSPC), ("EDQUOT", libc::EDQUOT)];
            let errno = fields.get("errno").map_or(Some(libc::ENOSPC), |node| reader.word(node, "errno", &words));
            (fields.need(reader, "capacity", "bytes", "1GiB")?, errno)
        }
    };
    let bytes = reader.size(bytes_node, "capacity")?;
    Some(Capacity { bytes, errno: errno? })
}

pub(super) fn fake(reader: &mut Reader, node: &Node) -> Option<Fake> {
    let words = [("none", Fake::None), ("null", Fake::Null), ("memory", Fake::Memory), ("pattern", Fake::Pattern)];
    // `fake: null` is YAML for nothing, and means the fake of that name here.
    if matches!(node.value, Value::Null) {
        return Some(Fake::Null);
    }
    reader.word(node, "fake", &words)
}

pub(super) fn profile(reader: &mut Reader, node: &Node) -> Option<Profile> {
    if matches!(node.value, Value::Null) {
        return None;
    }
    let name = reader.text(node, "profile", "the name of a device, or `none`")?;
    if name == "none" {
        return None;
    }
    let parsed = Profile::parse(name);
    parsed.map_err(|error| reader.wrong(node.at, error.to_string())).ok()
}
