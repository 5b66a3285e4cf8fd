//! What the kubelet waits for: the calls of CSI with which a volume comes to a pod, through the real driver over its socket, with the
//! node's keeper and real mounts.
//!
//! `bench_csi ROUNDS VOLUMES` has in each round so many volumes of each kind come and go, one after the other, and prints for each call
//! `bench_csi ROUND KIND CALL NANOSECONDS`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the numbers are what it is for")]

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fsi_csi::proto::csi::Volume;
use fsi_tests::csi::Driver;
use fsi_tests::csi::requests::{FLAKY, errno_of_write, inline_volume};
use fsi_tests::mount::scratch;
use fsi_tests::node_keeper::NodeKeeper;

/// (name, whether it is written in a pod, whether it is interposed).
const KINDS: [(&str, bool, bool); 4] = [
    ("claim-bind", false, false),
    ("claim-interposed", false, true),
    ("inline-bind", true, false),
    ("inline-interposed", true, true),
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || -> Result<usize> {
        arguments.next().and_then(|text| text.parse().ok()).context("usage: bench_csi ROUNDS VOLUMES")
    };
    let (rounds, volumes) = (number()?, number()?);
    let folder = scratch();
    let keeper = NodeKeeper::start(folder.path());
    let driver = Driver::kept_by(&keeper);
    for round in 0..rounds {
        for turn in 0..KINDS.len() {
            let (kind, is_inline, is_interposed) = KINDS[(turn + round) % KINDS.len()];
            let parameters = if is_interposed { FLAKY } else { &[] };
            for volume in 0..volumes {
                let id = format!("{kind}-{round}-{volume}");
                let tell = |call: &str, start: Instant| {
                    println!("bench_csi {round} {kind} {call} {}", start.elapsed().as_nanos());
                };
                let volume = match is_inline {
                    true => inline_volume(&id, parameters),
                    false => driver.create(&id, parameters).context("create")?,
                };
                come_and_go(&driver, &volume, is_inline, !is_interposed, tell)?;
            }
        }
    }
    driver.nothing_left();
    Ok(())
}

fn come_and_go(
    driver: &Driver,
    volume: &Volume,
    is_inline: bool,
    is_writable: bool,
    tell: impl Fn(&str, Instant),
) -> Result<()> {
    let id = &volume.volume_id;
    if !is_inline {
        let start = Instant::now();
        driver.stage(volume).context("stage")?;
        tell("NodeStageVolume", start);
    }
    let start = Instant::now();
    let target = driver.publish(volume, "pod").context("publish")?;
    tell("NodePublishVolume", start);
    ensure!(errno_of_write(&target).is_none() == is_writable, "{id} does not do as it was asked");
    let start = Instant::now();
    driver.unpublish(id, &target).context("unpublish")?;
    tell("NodeUnpublishVolume", start);
    if !is_inline {
        let start = Instant::now();
        driver.unstage(id).context("unstage")?;
        tell("NodeUnstageVolume", start);
        driver.delete(id).context("delete")?;
    }
    Ok(())
}
