//! How many requests of an operation reach a FUSE server: counted at the kernel's tracepoint, for one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::super::Line;
use super::super::kit::Kit;
use super::super::report::{Row, Target};
use super::super::rounds::Mode as _;
use super::modes::{Mode, Stage};

/// The kernel closes files behind the caller's back.
const SETTLE: Duration = Duration::from_millis(200);
/// Of each CPU; a record takes some 40 bytes.
const BUFFER_KIB: &str = "8192";
const EVENT: &str = "events/fuse/fuse_request_send";

/// A loop of `bench_loop`, and how many operations one iteration has.
#[derive(Debug, Clone, Copy)]
struct Counted {
    line: Line,
    name: &'static str,
    iterations: u64,
    operations: f64,
    what: &'static str,
    target: Target,
}

const COUNTED: [Counted; 4] = [
    Counted {
        line: Line::I2,
        name: "rewrite",
        iterations: 5000,
        operations: 2.0,
        what: "requests per 4 KiB read or write of one open file",
        target: Target::Exactly(0.0),
    },
    Counted {
        line: Line::I3,
        name: "open",
        iterations: 1000,
        operations: 1.0,
        what: "requests per open + read + close",
        target: Target::AtMost(2.0),
    },
    Counted {
        line: Line::I3,
        name: "stat",
        iterations: 1000,
        operations: 1.0,
        what: "requests per stat of a file that was looked at before",
        target: Target::Exactly(0.0),
    },
    Counted {
        line: Line::I3,
        name: "lifetime",
        iterations: 1000,
        operations: 1.0,
        what: "requests per create + write + stat + unlink",
        target: Target::AtMost(8.0),
    },
];

pub(super) fn rows(kit: &Kit, stage: &mut Stage<'_>, lines: &BTreeSet<Line>) -> Result<Vec<Row>> {
    let counted = COUNTED.iter().filter(|counted| lines.contains(&counted.line));
    let trace = match Trace::start(kit) {
        Ok(trace) => trace,
        Err(error) => {
            let open = |counted: &Counted| Row::open(counted.line, counted.what, counted.target, &format!("{error:#}"));
            return Ok(counted.map(open).collect());
        }
    };
    counted.map(|counted| row(kit, stage, &trace, counted)).collect()
}

fn row(kit: &Kit, stage: &mut Stage<'_>, trace: &Trace, counted: &Counted) -> Result<Row> {
    let ours = per_operation(kit, stage, trace, counted, Mode::Plain)?;
    let mut notes = vec![match ours.is_empty() {
        true => "none".to_owned(),
        false => ours.iter().map(|(name, count)| format!("{name} {count:.3}")).collect::<Vec<_>>().join(", "),
    }];
    for mode in [Mode::Concerned, Mode::AllConcerned, Mode::PassthroughLl, Mode::Bindfs] {
        if mode.peer().is_none_or(|peer| peer.is_here()) {
            let sum = sum(&per_operation(kit, stage, trace, counted, mode)?);
            notes.push(format!("{} {sum:.2}", mode.name()));
        }
    }
    Ok(Row::counted(counted.line, counted.what, sum(&ours), "requests", counted.target).noted(notes.join("; ")))
}

/// Not `Iterator::sum`, whose nothing is a negative zero.
fn sum(counts: &BTreeMap<String, f64>) -> f64 {
    counts.values().fold(0.0, |sum, count| sum + count)
}

/// Requests of one operation by their kind. What a loop needs to begin and to end is taken off: the same of one iteration.
fn per_operation(
    kit: &Kit,
    stage: &mut Stage<'_>,
    trace: &Trace,
    counted: &Counted,
    mode: Mode,
) -> Result<BTreeMap<String, f64>> {
    let mounted = stage.mounted(mode)?.context("it is a mount")?;
    let run = |iterations: u64| {
        let command = kit.loops_in(mounted.target(), &[(counted.name, iterations)]);
        trace.count(mounted.connection()?, || kit.lines(command).map(drop))
    };
    // The first look at a file is one that is remembered.
    run(1)?;
    let (one, many) = (run(1)?, run(1 + counted.iterations)?);
    #[expect(clippy::cast_precision_loss, reason = "counts of a few thousand")]
    let each = |(name, count): (String, u64)| {
        let more = count as f64 - one.get(&name).copied().unwrap_or(0) as f64;
        (name, more / counted.iterations as f64 / counted.operations)
    };
    Ok(many.into_iter().map(each).filter(|(_, each)| *each != 0.0).collect())
}

/// Tracing of our own: a tracefs that nobody else sees mounted, and a buffer in it that is only ours.
#[derive(Debug)]
struct Trace {
    mount: PathBuf,
    instance: PathBuf,
}

impl Trace {
    fn start(kit: &Kit) -> Result<Self> {
        let mount = kit.file("tracefs");
        fs::create_dir_all(&mount).with_context(|| format!("create {}", mount.display()))?;
        let status = Command::new("mount").args(["-t", "tracefs", "nodev"]).arg(&mount).status();
        if !status.context("start mount")?.success() {
            bail!("the kernel's tracefs cannot be mounted");
        }
        let instance = mount.join("instances/fsi-bench");
        let trace = Self { mount, instance };
        if !trace.instance.exists() {
            fs::create_dir(&trace.instance).context("make a buffer in tracefs")?;
        }
        trace.write("buffer_size_kb", BUFFER_KIB)?;
        if !trace.instance.join(EVENT).exists() {
            bail!("this kernel does not trace FUSE requests (fuse:fuse_request_send)");
        }
        Ok(trace)
    }

    /// Requests that `run` causes on that connection, by name.
    fn count(&self, connection: u32, run: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, u64>> {
        self.write(&format!("{EVENT}/filter"), &format!("connection == {connection}"))?;
        // Opening it for writing empties it.
        self.write("trace", "")?;
        self.write(&format!("{EVENT}/enable"), "1")?;
        let ran = run();
        thread::sleep(SETTLE);
        self.write(&format!("{EVENT}/enable"), "0")?;
        ran?;
        let text = fs::read_to_string(self.instance.join("trace")).context("read the trace")?;
        let (counts, lost) = (requests(&text), overrun(&text));
        if lost { bail!("the trace's buffer was too small") } else { Ok(counts) }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path: &Path = &self.instance.join(name);
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // As much as can be undone.
        fs::remove_dir(&self.instance).unwrap_or_default();
        Command::new("umount").arg(&self.mount).status().map(drop).unwrap_or_default();
    }
}

fn requests(trace: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let name =
            line.split_once("fuse_request_send:").and_then(|(_, rest)| rest.split_once("(FUSE_")?.1.split_once(')'));
        if let Some((name, _)) = name {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// `# entries-in-buffer/entries-written: 12/12   #P:2`: whether some were written over.
fn overrun(trace: &str) -> bool {
    let head = trace.lines().find_map(|line| line.strip_prefix("# entries-in-buffer/entries-written: "));
    let counts = head.and_then(|counts| counts.split_whitespace().next()?.split_once('/'));
    counts.is_none_or(|(kept, written)| kept != written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_name() {
        let text = "# entries-in-buffer/entries-written: 3/3   #P:2\n\
            a-1 [000] ..... 1.0: fuse_request_send: connection 58 req 2 opcode 14 (FUSE_OPEN) len 48 \n\
            a-1 [000] ..... 1.0: fuse_request_send: connection 58 req 4 opcode 18 (FUSE_RELEASE) len 64 \n\
            a-1 [001] ..... 1.1: fuse_request_send: connection 58 req 6 opcode 14 (FUSE_OPEN) len 48 \n";
        assert_eq!(requests(text), BTreeMap::from([("OPEN".to_owned(), 2), ("RELEASE".to_owned(), 1)]));
        assert!(!overrun(text));
        assert!(overrun("# entries-in-buffer/entries-written: 3/5   #P:2\n"));
        assert!(overrun(""), "a trace that cannot be read is not to be relied on");
    }
}
