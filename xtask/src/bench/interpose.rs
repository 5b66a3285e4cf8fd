//! `cargo xtask bench interpose`: what a mount costs, and whether it keeps to what its rules say.

mod faults;
mod modes;
mod pace;
mod requests;
mod throttle;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};

pub(super) use self::pace::percentile;

use self::modes::{Load, Mode, Stage};
use super::kit::{Kit, Peer};
use super::report::{Row, Target};
use super::rounds;
use super::{Line, Measured};
use crate::setup;

type Rounds = rounds::Rounds<Mode>;

pub(super) fn may_run() -> Result<()> {
    may_mount()?;
    if !Peer::Fio.is_here() {
        bail!("fio, which makes the load, is not on this machine");
    }
    Ok(())
}

pub(super) fn may_mount() -> Result<()> {
    if !setup::is_root() {
        bail!("mounting needs root: run the benchmarks as root");
    }
    if !Path::new("/dev/fuse").exists() {
        bail!("/dev/fuse is not there: load the module fuse, and let this container have the device");
    }
    Ok(())
}

pub(super) fn measure(kit: &Kit, lines: &BTreeSet<Line>, count: usize, say: impl Fn(&str)) -> Result<Measured> {
    let mut stage = Stage::prepare(kit)?;
    let mut rows = Vec::new();
    if lines.contains(&Line::I2) || lines.contains(&Line::I3) {
        say("counts: FUSE requests by operation");
        rows.extend(requests::rows(kit, &mut stage, lines)?);
    }
    let rounds = Rounds::run(&modes::compared(lines), count, &say, |load, mode| stage.measure(load, mode))?;
    if lines.contains(&Line::I1) {
        rows.extend(unconcerned(&rounds));
    }
    if lines.contains(&Line::I4) {
        rows.extend(concerned(&rounds));
    }
    if lines.contains(&Line::I5) {
        say("delays and errors");
        rows.extend(faults::rows(kit, &stage)?);
        rows.extend(beside(&rounds));
    }
    if lines.contains(&Line::I6) {
        say("throttles, some of them at once (three minutes)");
        rows.extend(throttle::rows(kit, &stage)?);
    }
    drop(stage);
    Ok(Measured { rows, counted_rounds: rounds.rounds.len(), raw: rounds.raw() })
}

/// Speed of `ours` as a multiple of `other`'s under the same load.
fn against(rounds: &Rounds, line: Line, load: Load, [ours, other]: [Mode; 2], what: &str, target: Target) -> Row {
    let what = format!("{}: {what}", load.words());
    if let Some(why) = rounds.why_missing(other) {
        return Row::open(line, what, target, &format!("skipped, {why}"));
    }
    let name = load.name();
    let row = Row::of_rounds(line, what, (rounds.times(other, ours, name), rounds.a_a(name)), "x", target);
    // Nothing can be faster than native, so that a peer that is near it leaves no room.
    match rounds.times(other, Mode::Native, name) {
        Some((times, _)) if rounds::Mode::peer(other).is_some() => row.noted(format!("native / the peer: {times:.1}")),
        Some(_) | None => row,
    }
}

fn unconcerned(rounds: &Rounds) -> Vec<Row> {
    const OF_NATIVE: [(Load, Target); 6] = [
        (Load::Read4k, Target::AtLeast(0.85)),
        (Load::Write4k, Target::AtLeast(0.85)),
        (Load::Read128k, Target::AtLeast(0.95)),
        (Load::Write128k, Target::AtLeast(0.95)),
        (Load::Direct4k, Target::None),
        (Load::Create, Target::None),
    ];
    const OF_PEERS: [(Load, Mode, &str, f64); 3] = [
        (Load::Read4k, Mode::PassthroughLl, "plain mount / passthrough_ll (cache=never)", 10.0),
        (Load::Write4k, Mode::PassthroughLl, "plain mount / passthrough_ll (cache=never)", 10.0),
        (Load::Write4k, Mode::Bindfs, "plain mount / bindfs", 40.0),
    ];
    let native = OF_NATIVE.map(|(load, target)| {
        against(rounds, Line::I1, load, [Mode::Plain, Mode::Native], "plain mount / native", target)
    });
    let peers = OF_PEERS.map(|(load, peer, what, least)| {
        against(rounds, Line::I1, load, [Mode::Plain, peer], what, Target::AtLeast(least))
    });
    native.into_iter().chain(peers).collect()
}

fn concerned(rounds: &Rounds) -> Vec<Row> {
    let of = |load: Load, other: Mode, what: &str, target: Target| {
        against(rounds, Line::I4, load, [Mode::Concerned, other], &format!("concerned / {what}"), target)
    };
    let passthrough_ll = "passthrough_ll (cache=never)";
    let all = [Mode::AllConcerned, Mode::Bindfs];
    vec![
        of(Load::Read4k, Mode::PassthroughLl, passthrough_ll, Target::AtLeast(0.8)),
        of(Load::Write4k, Mode::PassthroughLl, passthrough_ll, Target::AtLeast(0.8)),
        of(Load::Create, Mode::Bindfs, "bindfs", Target::AtLeast(1.0)),
        of(Load::Create, Mode::PassthroughLl, passthrough_ll, Target::None),
        against(rounds, Line::I4, Load::Create, all, "every operation concerned / bindfs", Target::None),
        of(Load::Read4k, Mode::Native, "native", Target::None),
        of(Load::Write4k, Mode::Native, "native", Target::None),
    ]
}

fn beside(rounds: &Rounds) -> Vec<Row> {
    let what = "a plain file beside a delayed and failing one / on a plain mount";
    let of = |load| against(rounds, Line::I5, load, [Mode::Beside, Mode::Plain], what, Target::AtLeast(0.9));
    vec![of(Load::Read4k), of(Load::Write4k)]
}
