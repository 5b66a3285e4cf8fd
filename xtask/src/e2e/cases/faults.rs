//! What storage classes and inline volumes do on purpose, as the pod sees it and as Jaeger shows it.

use anyhow::{Result, anyhow, bail, ensure};

use super::super::kubectl::eventually;
use super::backends::{jaeger, tag};
use super::{Case, Place, Takes};

pub(super) const EIO: Case = Case {
    name: "faults-eio",
    shows: "a class with faults: the pod gets EIO, and Jaeger shows the operation and its fault in one trace",
    takes: Takes::Interposer,
    check: eio,
};

pub(super) const THROTTLE: Case = Case {
    name: "faults-throttle",
    shows: "a class with a throttle: 8 MiB at 2 MiB/s take their time",
    takes: Takes::Interposer,
    check: throttle,
};

pub(super) const THROTTLE_POD: Case = Case {
    name: "faults-throttle-pod",
    shows: "a throttle of the scope pod: a pod with two volumes gets the rate once, and another pod has its own",
    takes: Takes::Interposer,
    check: throttle_pod,
};

pub(super) const FULL: Case = Case {
    name: "faults-full",
    shows: "a class with a capacity: df agrees, and what is over gets ENOSPC",
    takes: Takes::Interposer,
    check: full,
};

pub(super) const INLINE: Case = Case {
    name: "faults-inline",
    shows: "an inline volume with faults, without class and claim",
    takes: Takes::Interposer,
    check: inline,
};

pub(super) const WRONG_RULES: Case = Case {
    name: "faults-wrong-rules",
    shows: "rules that are wrong: the claim or the pod has an event that says what and where",
    takes: Takes::Interposer,
    check: wrong_rules,
};

pub(super) const FAKE: Case = Case {
    name: "faults-fake",
    shows: "a class of each fake: null swallows, memory keeps while it is mounted, pattern has what its place says",
    takes: Takes::Interposer,
    check: fake,
};

const CLAIM: &str = "persistentVolumeClaim: { claimName: data }";

fn eio(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ faults: \"fsync=EIO\" }")?;
    place.claim("data", &class, "64Mi")?;
    place.pod("victim", "sleep infinity", CLAIM, "")?;
    place.ready("victim")?;
    let (code, said) = place.shell("victim", "dd if=/dev/zero of=/data/log bs=4k count=1 conv=fsync")?;
    ensure!(code != 0 && said.contains("Input/output error"), "dd ends with {code}: {said}");
    let tags = [("k8s.pod.name", "victim"), ("k8s.namespace.name", place.namespace.as_str())];
    eventually(60, "Jaeger has the fault", || {
        let traces = jaeger(place.kubectl(), "fsync", &tags)?;
        let spans = traces.iter().flat_map(|trace| trace["spans"].as_array().into_iter().flatten());
        let failed = spans
            .filter(|span| span["operationName"] == "fsync")
            .find(|span| tag(span, "error.type").as_deref() == Some("EIO"));
        let Some(failed) = failed else { bail!("no fsync failed with EIO: {traces:?}") };
        let events = failed["logs"].as_array().into_iter().flatten();
        let fields = events.flat_map(|event| event["fields"].as_array().into_iter().flatten());
        ensure!(
            fields.into_iter().any(|field| field["value"] == "fsi.fault"),
            "no fault in the span of the operation: {failed}"
        );
        Ok(())
    })
}

fn throttle(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ throttle: \"write=2MiB/s, burst=1s\" }")?;
    place.claim("data", &class, "64Mi")?;
    place.pod("writer", "sleep infinity", CLAIM, "")?;
    place.ready("writer")?;
    // A second's worth is there at once.
    let seconds = seconds_of(place, "writer", "dd if=/dev/zero of=/data/big bs=64k count=128 2> /tmp/said")?;
    ensure!((2..=30).contains(&seconds), "8 MiB at 2 MiB/s with a burst of 2 MiB took {seconds} s");
    Ok(())
}

/// How long a script takes in a pod; seconds of the machine's clock are all that busybox tells.
fn seconds_of(place: &Place<'_>, pod: &str, script: &str) -> Result<u64> {
    let now = "$(grep -o '^[0-9]*' /proc/uptime)";
    let said = place.said(pod, &format!("s={now}; {script}; echo took $(({now} - s))"))?;
    let seconds = said.trim().strip_prefix("took ").and_then(|text| text.parse().ok());
    seconds.ok_or_else(|| anyhow!("it says {said}"))
}

fn throttle_pod(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ throttle: \"scope=pod, write=2MiB/s, burst=1s\" }")?;
    for claim in ["one", "two"] {
        place.claim(claim, &class, "64Mi")?;
    }
    for pod in ["writer", "other"] {
        place.pod_with_two(pod, ["one", "two"])?;
        place.ready(pod)?;
    }
    let write = |file: &str, blocks: u32| format!("dd if=/dev/zero of={file} bs=64k count={blocks} 2> /dev/null");
    let both = format!("{} & {} & wait", write("/one/file", 128), write("/two/file", 128));
    let (writer, other) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| seconds_of(place, "writer", &both));
        let other = seconds_of(place, "other", &write("/one/of-other", 64));
        (writer.join(), other)
    });
    let writer = writer.map_err(|_panic| anyhow!("a thread panicked"))??;
    // A second's worth is there at once.
    ensure!((6..=30).contains(&writer), "16 MiB of one pod at 2 MiB/s with a burst of 2 MiB took {writer} s");
    let other = other?;
    ensure!((1..writer).contains(&other), "4 MiB of another pod took {other} s, the 16 MiB of the first {writer} s");
    Ok(())
}

fn full(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ capacity: 8MiB }")?;
    place.claim("data", &class, "64Mi")?;
    place.pod("hoarder", "sleep infinity", CLAIM, "")?;
    place.ready("hoarder")?;
    let size = place.said("hoarder", "df -k /data | grep -o '[0-9].*' | grep -v '^0$'")?;
    ensure!(size.split_whitespace().any(|word| word == "8192"), "df says {size}");
    let (code, said) = place.shell("hoarder", "dd if=/dev/zero of=/data/big bs=1M count=20")?;
    ensure!(code != 0 && said.contains("No space left on device"), "dd ends with {code}: {said}");
    let size: u64 = place.said("hoarder", "stat -c %s /data/big")?.trim().parse()?;
    ensure!((7 << 20..=8 << 20).contains(&size), "{size} bytes went into 8 MiB");
    place.said("hoarder", "rm /data/big && echo fits > /data/small && grep fits /data/small").map(drop)
}

fn inline(place: &Place<'_>) -> Result<()> {
    let volume = "csi: { driver: interposer.fsi.dev, volumeAttributes: { faults: \"read=EIO\" } }";
    place.pod("reader", "echo text > /data/file; sleep infinity", volume, "")?;
    place.ready("reader")?;
    let (code, said) = place.shell("reader", "cat /data/file")?;
    ensure!(code != 0 && said.contains("Input/output error"), "cat ends with {code}: {said}");
    Ok(())
}

fn wrong_rules(place: &Place<'_>) -> Result<()> {
    let class =
        place.class("{ rules: \"version: 1\\nrules: [{ name: x, match: { ops: [wirte] }, do: { errno: EIO } }]\" }")?;
    place.claim("data", &class, "64Mi")?;
    place.pod("waiting", "sleep infinity", CLAIM, "")?;
    eventually(30, "the claim says why", || {
        let events = place.events("PersistentVolumeClaim", "data")?;
        let says = |event: &String| event.contains("wirte") && event.contains("line");
        ensure!(events.iter().any(says), "its events: {events:?}");
        Ok(())
    })?;
    let volume = "csi: { driver: interposer.fsi.dev, volumeAttributes: { faults: \"read=ENOSUCH\" } }";
    place.pod("refused", "sleep infinity", volume, "")?;
    eventually(30, "the pod says why", || {
        let events = place.events("Pod", "refused")?;
        ensure!(events.iter().any(|event| event.contains("ENOSUCH")), "its events: {events:?}");
        Ok(())
    })
}

fn fake(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ fake: memory }")?;
    place.claim("data", &class, "16Mi")?;
    place.pod("fake-memory", "sleep infinity", CLAIM, "")?;
    for fake in ["null", "pattern"] {
        let volume = format!("csi: {{ driver: interposer.fsi.dev, volumeAttributes: {{ fake: \"{fake}\" }} }}");
        place.pod(&format!("fake-{fake}"), "sleep infinity", &volume, "")?;
    }
    for pod in ["fake-memory", "fake-null", "fake-pattern"] {
        place.ready(pod)?;
        place.said(pod, "printf 12345678 > /data/file")?;
    }
    ensure!(place.said("fake-memory", "cat /data/file")? == "12345678", "memory does not keep what was written");
    let null = place.said("fake-null", "cat /data/file")?;
    ensure!(null == "\0".repeat(8), "null says {null:?}");
    // The same bytes of the same file each time, and others than were written.
    let [once, twice] = [(); 2].map(|()| place.said("fake-pattern", "wc -c < /data/file; cat /data/file"));
    let (once, twice) = (once?, twice?);
    ensure!(once == twice && once.starts_with("8\n") && !once.contains("12345678"), "pattern says {once:?}, {twice:?}");
    Ok(())
}
