//! A server may be killed at any moment: applications see a pause, and what was acknowledged is there.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{output, text};
use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has};
use fsi_tests::stop::Stop;
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

const KILLS: usize = 100;

/// `concerned` comes to the server with every read and write, everything else does not.
const RULES: &str = "version: 1
rules:
  - name: seen
    match: { ops: [read, write], path: 'concerned*' }
    when: { after: 24h }
    do: { errno: EIO }
";

/// Makes, renames and removes names; what must be there at the end is what was acknowledged.
fn journal(directory: &Path, stop: &Stop) -> io::Result<BTreeSet<String>> {
    let mut there = BTreeSet::new();
    let mut number = 0;
    while !stop.is_said() {
        let (name, other) = (format!("name-{number}"), format!("other-{number}"));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(directory.join(&name))?
            .write_all_at(name.as_bytes(), 0)?;
        match number % 6 {
            0 => drop(there.insert(name)),
            1 => {
                fs::rename(directory.join(&name), directory.join(&other))?;
                there.insert(other);
            }
            2 => fs::remove_file(directory.join(&name))?,
            3 => {
                fs::hard_link(directory.join(&name), directory.join(&other))?;
                fs::remove_file(directory.join(&name))?;
                there.insert(other);
            }
            4 => {
                std::os::unix::fs::symlink(&name, directory.join(&other))?;
                fs::rename(directory.join(&other), directory.join(&name))?;
                there.insert(name);
            }
            _ => {
                fs::create_dir(directory.join(&other))?;
                fs::rename(directory.join(&name), directory.join(&other).join("in"))?;
                fs::remove_file(directory.join(&other).join("in"))?;
                fs::remove_dir(directory.join(&other))?;
            }
        }
        number += 1;
    }
    Ok(there)
}

fn listed(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it can be listed"));
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn verifies(mounted: &Mounted, name: &str) -> Result<(), String> {
    let mut command = Command::new("fio");
    command.args(["--name=job", "--rw=randwrite", "--bs=4k", "--size=8m", "--loops=3", "--ioengine=psync"]);
    command
        .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--filename"])
        .arg(mounted.target().join(name));
    let output = output(command.current_dir("/"));
    let said = || format!("{name}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// How long each of many reads and writes took.
fn probe(directory: &Path, stop: &Stop) -> io::Result<Vec<Duration>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join("concerned-probe"))?;
    let mut took = Vec::new();
    let mut number = 0_u64;
    while !stop.is_said() {
        let begun = Instant::now();
        file.write_all_at(&number.to_le_bytes(), 0)?;
        let mut read = [0; 8];
        file.read_exact_at(&mut read, 0)?;
        took.push(begun.elapsed());
        assert_eq!(u64::from_le_bytes(read), number, "what was written is read");
        number += 1;
        thread::sleep(Duration::from_millis(1));
    }
    took.sort();
    Ok(took)
}

/// Some of everything, and each checks what it did.
fn stress(directory: &Path) -> Result<(), String> {
    let own = directory.join("stress");
    fs::create_dir(&own).map_err(|error| error.to_string())?;
    let mut command = Command::new("stress-ng");
    for stressor in ["--rename", "--link", "--symlink", "--dir", "--dentry", "--flock", "--hdd", "--xattr"] {
        command.args([stressor, "1"]);
    }
    command.args(["--dentries", "64", "--hdd-bytes", "4M", "--verify", "--timeout", "25s", "--temp-path"]).arg(&own);
    let output = output(command.current_dir("/"));
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr) + &text(&output.stdout)) }
}

/// Numbers that are the same for the same seed (Marsaglia's xorshift).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Kills servers after up to a quarter of a second each, some of them as soon as they are there; but one in four gets to answer
/// something, or the keeper would rightly see a crash loop. The longest time that one took to die.
fn kill_servers(mounted: &Mounted, mut seed: u64) -> Duration {
    let mut longest = Duration::ZERO;
    for number in 0..KILLS {
        let life = match number % 4 {
            3 => 100 + random(&mut seed) % 150,
            _ => random(&mut seed) % 5 * (random(&mut seed) % 60),
        };
        thread::sleep(Duration::from_millis(life));
        if number % 4 == 3 {
            let asked = fs::metadata(mounted.target().join(format!("never-there-{number}")));
            assert!(asked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound), "it answers");
        }
        longest = longest.max(mounted.kill_server_timed());
    }
    longest
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what a person wants to know")]
fn killed_servers_under_load() {
    if !has(&[Need::Mounts, Need::Program("fio"), Need::Program("stress-ng")]) {
        return;
    }
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs() | 1);
    println!("seed {seed}");
    let mounted = Mount::with_rules(RULES).mount();
    let names = mounted.target().join("names");
    fs::create_dir(&names).expect("a directory");
    let stop = Stop::default();
    let (journal, took, verified, longest_death) = thread::scope(|scope| {
        let journal = scope.spawn(|| journal(&names, &stop));
        let probe = scope.spawn(|| probe(&mounted.target(), &stop));
        let verifiers = ["concerned", "unconcerned"].map(|name| {
            let (mounted, stop) = (&mounted, &stop);
            scope.spawn(move || {
                while !stop.is_said() {
                    verifies(mounted, name)?;
                }
                Ok::<(), String>(())
            })
        });
        let stress = scope.spawn(|| stress(&mounted.target()));
        let stop_at_end = stop.at_end();
        let longest_death = kill_servers(&mounted, seed);
        let stressed = stress.join().expect("it does not panic");
        drop(stop_at_end);
        let verified = verifiers.map(|verifier| verifier.join().expect("it does not panic"));
        let verified: Vec<_> = verified.into_iter().chain([stressed]).collect();
        let journal = journal.join().expect("it does not panic");
        (journal, probe.join().expect("it does not panic"), verified, longest_death)
    });
    for result in verified {
        result.expect("no error and no corrupt block");
    }
    let there = journal.expect("each operation is done");
    assert_eq!(listed(&names), there, "what was acknowledged is there");
    assert_eq!(listed(&mounted.source().join("names")), there, "and below");
    let took = took.expect("each read and write is done");
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!("{KILLS} kills, {} probes: median {:?}, p99 {:?}, longest {:?}", took.len(), at(50), at(99), at(100));
    // One that waits for the disk when it is killed is there until the disk has answered.
    assert!(at(99) <= Duration::from_secs(1) + longest_death, "p99 {:?}, longest death {longest_death:?}", at(99));
}

/// What is open, locked and unlinked stays so.
#[test]
fn open_files_outlive_their_server() {
    if !has(&[Need::Mounts, Need::Program("flock")]) {
        return;
    }
    let mounted = Mount::with_rules(RULES).mount();
    for name in ["concerned", "unconcerned"] {
        let path = mounted.target().join(name);
        fs::write(&path, "before").expect("a file");
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("it is there");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
        let unlinked = mounted.target().join(format!("{name}-unlinked"));
        fs::write(&unlinked, "unlinked").expect("a file");
        let gone = File::options().read(true).write(true).open(&unlinked).expect("it is there");
        fs::remove_file(&unlinked).expect("it can be");
        for round in 0..3 {
            mounted.kill_server();
            let mut bytes = [0; 8];
            assert_eq!(gone.read_at(&mut bytes, 0).expect("it is open"), 8, "{name} {round}");
            assert_eq!(&bytes, b"unlinked");
            file.write_all_at(b"after!", 0).expect("it is open");
            assert_eq!(fs::read(&path).expect("it is there"), b"after!");
            let locked = Command::new("flock").arg("--nonblock").arg(&path).arg("true").status().expect("flock");
            assert!(!locked.success(), "{name} {round}: it is still locked");
        }
    }
}

#[test]
fn without_a_keeper_nothing_shows_through() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mounted = Mount::plain().mount();
    fs::write(mounted.source().join("file"), "x").expect("a file");
    let (keeper, server) = (mounted.keeper().expect("there is one"), mounted.server().expect("there is one"));
    kill_process(keeper, Signal::KILL).expect("it lives");
    kill_process(server, Signal::KILL).unwrap_or_default();
    eventually("the mount says that it is dead", || {
        let error = fs::read(mounted.target().join("file")).err().and_then(|error| Errno::from_io_error(&error));
        error == Some(Errno::NOTCONN)
    });
}
