//! The ways the same load is run: natively, through a mount of ours, through a peer's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::tools;

use super::super::Line;
use super::super::fio;
use super::super::kit::{Kit, Peer};
use super::super::parsers;
use super::super::rounds::{self, Group, Sample};
use crate::mounts::Mounted;

const SECONDS: u32 = 2;
/// Of create, stat, unlink.
const CREATES: u64 = 4000;
const BIG: &str = "big";
const BIG_BYTES: usize = 128 << 20;
/// Of the file that is delayed and fails.
const SLOW: &str = "slow";
const SLOW_BYTES: usize = 16 << 20;
/// fio's own start, and the first of its delayed reads.
const BUSY_STARTS: Duration = Duration::from_millis(500);

/// It concerns every read and write, and never strikes.
const CONCERNED: &str =
    "version: 1\nrules:\n  - { name: later, match: { ops: [read, write] }, when: { after: 1h }, do: { delay: 1ms } }\n";

/// The same of every operation, so that the kernel may remember neither names nor attributes.
const ALL_CONCERNED: &str = "version: 1\nrules:\n  - { name: later, when: { after: 1h }, do: { delay: 1ms } }\n";

const BESIDE: &str = "version: 1
rules:
  - { name: late, match: { ops: [read, write], path: slow }, do: { delay: 10ms } }
  - { name: bad, match: { ops: [read, write], path: slow }, when: { probability: 0.1 }, do: { errno: EIO } }
";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Native,
    /// The same again, for the A/A ratio.
    NativeAgain,
    /// `fsi mount` without rules.
    Plain,
    /// A file that no rule concerns, while another one is delayed and fails.
    Beside,
    /// A rule concerns reads and writes and does not strike.
    Concerned,
    /// A rule concerns everything and does not strike.
    AllConcerned,
    /// libfuse's example, without the kernel's cache, so that every read and write comes to it.
    PassthroughLl,
    Bindfs,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    Read4k,
    Write4k,
    Read128k,
    Write128k,
    /// Past the page cache.
    Direct4k,
    /// Create, stat, unlink.
    Create,
}

impl rounds::Mode for Mode {
    const BARE: Self = Self::Native;
    const BARE_AGAIN: Self = Self::NativeAgain;

    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::NativeAgain => "native_again",
            Self::Plain => "plain",
            Self::Beside => "beside",
            Self::Concerned => "concerned",
            Self::AllConcerned => "all_concerned",
            Self::PassthroughLl => "passthrough_ll",
            Self::Bindfs => "bindfs",
        }
    }

    fn peer(self) -> Option<Peer> {
        match self {
            Self::PassthroughLl => Some(Peer::PassthroughLl),
            Self::Bindfs => Some(Peer::Bindfs),
            Self::Native | Self::NativeAgain | Self::Plain | Self::Beside | Self::Concerned | Self::AllConcerned => {
                None
            }
        }
    }
}

impl Load {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read4k => "read4k",
            Self::Write4k => "write4k",
            Self::Read128k => "read128k",
            Self::Write128k => "write128k",
            Self::Direct4k => "direct4k",
            Self::Create => "create",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Read4k => "4 KiB random read",
            Self::Write4k => "4 KiB random write",
            Self::Read128k => "128 KiB read",
            Self::Write128k => "128 KiB write",
            Self::Direct4k => "O_DIRECT 4 KiB random read",
            Self::Create => "create + stat + unlink",
        }
    }

    fn fio(self) -> &'static [&'static str] {
        match self {
            Self::Read4k => &["--rw=randread", "--bs=4k"],
            Self::Write4k => &["--rw=randwrite", "--bs=4k"],
            Self::Read128k => &["--rw=read", "--bs=128k"],
            Self::Write128k => &["--rw=write", "--bs=128k"],
            Self::Direct4k => &["--rw=randread", "--bs=4k", "--direct=1"],
            Self::Create => &[],
        }
    }

    /// Who is compared under it.
    fn modes(self, line: Line) -> &'static [Mode] {
        use Mode::{AllConcerned, Beside, Bindfs, Concerned, Native, NativeAgain, PassthroughLl, Plain};
        match (line, self) {
            (Line::I1, Self::Read4k) => &[Native, NativeAgain, Plain, PassthroughLl],
            (Line::I1, Self::Write4k) => &[Native, NativeAgain, Plain, PassthroughLl, Bindfs],
            (Line::I1, Self::Read128k | Self::Write128k | Self::Direct4k | Self::Create) => {
                &[Native, NativeAgain, Plain]
            }
            (Line::I4, Self::Read4k | Self::Write4k) => &[Native, NativeAgain, Concerned, PassthroughLl],
            (Line::I4, Self::Create) => &[Native, NativeAgain, Concerned, AllConcerned, PassthroughLl, Bindfs],
            (Line::I5, Self::Read4k | Self::Write4k) => &[Native, NativeAgain, Plain, Beside],
            _not_compared => &[],
        }
    }
}

/// What the lines compare, load by load.
pub(super) fn compared(lines: &BTreeSet<Line>) -> Vec<Group<Load, Mode>> {
    let loads =
        [Load::Read4k, Load::Write4k, Load::Read128k, Load::Write128k, Load::Direct4k, Load::Create].into_iter();
    let group = |load: Load| {
        let modes: BTreeSet<Mode> = lines.iter().flat_map(|line| load.modes(*line)).copied().collect();
        Group { load, modes: modes.into_iter().collect() }
    };
    loads.map(group).filter(|group| !group.modes.is_empty()).collect()
}

/// The backing directory, and what is mounted of it.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    kit: &'a Kit,
    source: PathBuf,
    mounted: BTreeMap<Mode, Mounted>,
}

impl<'a> Stage<'a> {
    pub(super) fn prepare(kit: &'a Kit) -> Result<Self> {
        let source = kit.file("source");
        fs::create_dir(&source).with_context(|| format!("create {}", source.display()))?;
        kit.fill(&source)?;
        let stage = Self { kit, source, mounted: BTreeMap::new() };
        stage.file(BIG, BIG_BYTES)?;
        stage.file(SLOW, SLOW_BYTES)?;
        Ok(stage)
    }

    /// Makes a file in the backing directory.
    pub(super) fn file(&self, name: &str, bytes: usize) -> Result<()> {
        let path = self.source.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        fs::write(&path, vec![0x5a; bytes]).with_context(|| format!("write {}", path.display()))
    }

    /// Mounts it with these rules.
    pub(super) fn mount(&self, name: &str, rules: &str) -> Result<Mounted> {
        let target = self.kit.file(name);
        let mut command = Command::new(&self.kit.fsi);
        command.args(["mount", "--foreground"]);
        if !rules.is_empty() {
            let file = self.kit.file(&format!("{name}.yaml"));
            fs::write(&file, rules).with_context(|| format!("write {}", file.display()))?;
            command.arg("--rules").arg(file);
        }
        command.arg(&self.source).arg(&target);
        Mounted::start(command, &target)
    }

    /// What that mode's load is run on; mounted when it is first asked for.
    pub(super) fn mounted(&mut self, mode: Mode) -> Result<Option<&Mounted>> {
        let name = rounds::Mode::name(mode);
        if !self.mounted.contains_key(&mode) {
            let new = match mode {
                Mode::Native | Mode::NativeAgain => return Ok(None),
                Mode::Plain => self.mount(name, "")?,
                Mode::Beside => self.mount(name, BESIDE)?,
                Mode::Concerned => self.mount(name, CONCERNED)?,
                Mode::AllConcerned => self.mount(name, ALL_CONCERNED)?,
                Mode::PassthroughLl => {
                    let mut command = Command::new(tools::passthrough_ll());
                    command.arg("-f").arg("-o").arg(format!("source={},cache=never", self.source.display()));
                    self.peer(name, command, &[])?
                }
                Mode::Bindfs => self.peer(name, Command::new("bindfs"), &["-f".as_ref(), self.source.as_path()])?,
            };
            self.mounted.insert(mode, new);
        }
        Ok(self.mounted.get(&mode))
    }

    fn peer(&self, name: &str, mut command: Command, words: &[&Path]) -> Result<Mounted> {
        let target = self.kit.file(name);
        command.args(words).arg(&target);
        Mounted::start(command, &target)
    }

    pub(super) fn measure(&mut self, load: Load, mode: Mode) -> Result<Sample> {
        let kit = self.kit;
        let source = self.source.clone();
        let mounted = self.mounted(mode).with_context(|| format!("mount {}", rounds::Mode::name(mode)))?;
        let place = mounted.map_or_else(|| source.clone(), |mounted| mounted.target().to_path_buf());
        // What the load before has left to be written would be written during this one.
        let mut sync = Command::new("sync");
        sync.arg("--file-system").arg(&source);
        kit.lines(sync)?;
        let busy = if mode == Mode::Beside { Some(Busy::start(&place.join(SLOW))?) } else { None };
        let ns = match load {
            Load::Create => {
                let lines = kit.lines(kit.loops_in(&place, &[("create", CREATES)]))?;
                parsers::loops(lines.iter().map(String::as_str)).get("create").copied().context("no time was told")?
            }
            Load::Read4k | Load::Write4k | Load::Read128k | Load::Write128k | Load::Direct4k => {
                let mut command = fio::command(SECONDS, load.fio());
                command.arg(format!("--filename={}", place.join(BIG).display())).arg("--size=128M");
                fio::ns(kit, command)?
            }
        };
        drop(busy);
        Ok(Sample { ns: BTreeMap::from([(load.name().to_owned(), ns)]), seen: None })
    }
}

/// A delayed and failing file in use; the use ends with this.
#[derive(Debug)]
struct Busy {
    fio: Child,
}

impl Busy {
    fn start(file: &Path) -> Result<Self> {
        // Threads, so that they end with the one process that is killed.
        let mut command = fio::command(60, &["--thread", "--numjobs=4", "--rw=randrw", "--bs=4k"]);
        command.args(["--size=16M", "--continue_on_error=io"]).arg(format!("--filename={}", file.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let fio = command.spawn().context("start fio")?;
        thread::sleep(BUSY_STARTS);
        Ok(Self { fio })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.fio.kill().unwrap_or_default();
        self.fio.wait().map(drop).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_compared_is_run() {
        assert!(compared(&BTreeSet::from([Line::I2, Line::I3, Line::I6])).is_empty());
        let both = compared(&BTreeSet::from([Line::I1, Line::I4]));
        let create = both.iter().find(|group| group.load == Load::Create).expect("both compare it");
        let modes = [
            Mode::Native,
            Mode::NativeAgain,
            Mode::Plain,
            Mode::Concerned,
            Mode::AllConcerned,
            Mode::PassthroughLl,
            Mode::Bindfs,
        ];
        assert_eq!(create.modes, modes);
    }
}
