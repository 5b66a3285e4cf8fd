//! One server after another: what goes on over the change, who may ask for it, and the end of it.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Error, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{binary, fsi, output, text};
use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has};
use fsi_tests::stop::Stop;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process};
use serde_json::Value;

/// Reads and writes of `concerned*` come to the server, those of other files do not.
const RULES: &str = "version: 1
rules:
  - { name: seen, match: { ops: [read, write], path: 'concerned*' }, when: { after: 24h }, do: { errno: EIO } }
";

fn mounted() -> Option<Mounted> {
    has(&[Need::Mounts]).then(|| Mount::with_rules(RULES).mount())
}

fn errno(error: &Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn opened(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("it can be opened")
}

/// Gone, or dead and not yet waited for by whoever has to.
fn has_ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_name, rest)| rest.starts_with('Z')))
}

/// Servers that crash at once, each of them: whoever waits is let go, and the directory below does not show.
#[test]
fn a_crash_loop_ends_in_an_error() {
    let Some(mounted) = mounted() else { return };
    fs::write(mounted.target().join("concerned"), "x").expect("a file");
    let keeper = mounted.keeper().expect("there is one");
    let stop = Stop::default();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.is_said() {
                if let Err(error) = fs::read(mounted.target().join("concerned")) {
                    return errno(&error);
                }
            }
            None
        });
        let _stop_at_end = stop.at_end();
        eventually("the keeper gives up", || {
            if let Some(server) = mounted.server() {
                // It may be gone by now.
                kill_process(server, Signal::ABORT).unwrap_or_default();
            }
            has_ended(keeper)
        });
        let seen = reader.join().expect("it does not panic");
        assert!(matches!(seen, Some(Errno::NOTCONN | Errno::CONNABORTED)), "{seen:?}");
    });
    let error = fs::read_dir(mounted.target()).expect_err("nothing shows");
    assert_eq!(errno(&error), Some(Errno::NOTCONN));
}

/// Servers of a mount that nobody uses answer nothing, and may be killed every day of the year.
#[test]
fn idle_servers_that_are_killed_now_and_then_are_no_crash_loop() {
    let Some(mounted) = mounted() else { return };
    for _ in 0..7 {
        thread::sleep(Duration::from_millis(1_300));
        mounted.kill_server();
    }
    fs::write(mounted.target().join("concerned"), "x").expect("it is served");
}

#[test]
fn a_server_goes_on_without_its_keeper() {
    let Some(mounted) = mounted() else { return };
    let path = mounted.target().join("concerned");
    let file = opened(&path);
    kill_process(mounted.keeper().expect("there is one"), Signal::KILL).expect("it lives");
    file.write_all_at(b"still here", 0).expect("it is served");
    fs::remove_file(&path).expect("it can be removed while it is open");
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).expect("it is open");
    assert_eq!(&bytes, b"still here");
    assert!(mounted.ctl(["show"]).contains("rules        in force"));
    // Dropping it unmounts, and looks for what is left.
}

#[test]
fn an_upgrade_is_not_noticed() {
    let Some(mounted) = mounted() else { return };
    let copy = tempfile::tempdir().expect("a directory");
    let newer = copy.path().join("fsi");
    fs::copy(binary(), &newer).expect("a copy");
    let stop = Stop::default();
    let before = mounted.server();
    thread::scope(|scope| {
        let writers = ["concerned", "unconcerned"].map(|name| {
            let (mounted, stop) = (&mounted, &stop);
            scope.spawn(move || {
                let file = opened(&mounted.target().join(name));
                for number in 0_u64.. {
                    file.write_all_at(&number.to_le_bytes(), number % 1000 * 8).expect("no error");
                    let mut read = [0; 8];
                    file.read_exact_at(&mut read, number % 1000 * 8).expect("no error");
                    assert_eq!(u64::from_le_bytes(read), number);
                    if stop.is_said() {
                        break;
                    }
                }
            })
        });
        let stop_at_end = stop.at_end();
        for _ in 0..5 {
            mounted.ctl(["upgrade".as_ref(), newer.as_os_str()]);
        }
        drop(stop_at_end);
        writers.into_iter().for_each(|writer| writer.join().expect("no error"));
    });
    let after = mounted.server();
    assert_ne!(after, before);
    for (wrong, why) in [("/bin/true", "is no `fsi` that can serve a mount"), ("/no/such", "No such file or directory")]
    {
        let refused = output(fsi(["ctl"]).arg(mounted.target()).args(["upgrade", wrong]));
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
    }
    assert_eq!(mounted.server(), after, "the old one serves on");
}

#[test]
fn what_is_under_way_goes_on() {
    let Some(mounted) = mounted() else { return };
    let directory = mounted.target().join("many");
    fs::create_dir(&directory).expect("a directory");
    for name in 0..2_000 {
        File::create(directory.join(name.to_string())).expect("a file");
    }
    let mut entries = fs::read_dir(&directory).expect("it can be listed");
    let first: Vec<_> = entries.by_ref().take(100).map(|entry| entry.expect("an entry").file_name()).collect();
    let mut appender =
        OpenOptions::new().append(true).create(true).open(mounted.target().join("concerned-log")).expect("a file");
    appender.write_all(b"before ").expect("it can be appended to");
    mounted.kill_server();
    appender.write_all(b"after").expect("and still");
    assert_eq!(fs::read(mounted.target().join("concerned-log")).expect("it is there"), b"before after");
    let rest: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    let all: std::collections::BTreeSet<_> = first.iter().chain(&rest).collect();
    assert_eq!((first.len() + rest.len(), all.len()), (2_000, 2_000), "each name once");
}

/// A page that is changed after the server it was mapped under is gone reaches the file.
#[test]
fn a_mapping_outlives_its_server() {
    if !has(&[Need::Program("python3")]) {
        return;
    }
    let Some(mounted) = mounted() else { return };
    let path = mounted.target().join("concerned-mapped");
    fs::write(&path, vec![b'.'; 10_000]).expect("a file");
    let script = "import mmap, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\nm = mmap.mmap(fd, 0)\nm[0] = 65\nprint('mapped', flush=True)\n\
                  sys.stdin.readline()\nm[1] = 66\nm[9000] = 67\nm.flush()\nprint(bytes(m[:3]), flush=True)";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
    let mut python = python.spawn().expect("python3 starts");
    let mut said = BufReader::new(python.stdout.take().expect("it is piped")).lines();
    assert_eq!(said.next().expect("a line").expect("text"), "mapped");
    mounted.kill_server();
    python.stdin.take().expect("it is piped").write_all(b"\n").expect("it listens");
    assert_eq!(said.next().expect("a line").expect("text"), "b'AB.'");
    assert!(python.wait().expect("it ends").success());
    let below = fs::read(mounted.source().join("concerned-mapped")).expect("it is there");
    assert_eq!((&below[..3], below[9_000]), (&b"AB."[..], b'C'));
}

/// A delayed answer is given by the successor; an operation is not done twice over it.
#[test]
fn a_delay_outlives_its_server() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let rules = "version: 1\nrules: [{ name: slow, match: { ops: [mkdir], path: slow }, do: { delay: 2s } }]\n";
    let mounted = Mount::with_rules(rules).logged().mount();
    thread::scope(|scope| {
        let maker = scope.spawn(|| fs::create_dir(mounted.target().join("slow")));
        eventually("it waits", || mounted.ctl(["show"]).contains(", 1 waiting"));
        mounted.kill_server();
        maker.join().expect("it does not panic").expect("it was made, once");
    });
    assert!(mounted.target().join("slow").is_dir());
    assert_eq!(mounted.fault_log().lines().count(), 1, "it is told once: {}", mounted.fault_log());
    let status: Value = serde_json::from_str(&mounted.ctl(["show", "--json"])).expect("JSON");
    assert_eq!(status["faults_injected"], 1);
    mounted.kill_server();
    let faults: Value = serde_json::from_str(&mounted.ctl(["faults", "--json"])).expect("JSON");
    assert_eq!(
        (&faults["faults"][0]["sequence"], &faults["faults"][0]["rule"]),
        (&1.into(), &"slow".into()),
        "{faults}"
    );
}

/// As many as this machine lets a process have: the server has one descriptor for each file, and a second one for each whose reads
/// and writes come to it.
#[test]
#[expect(clippy::print_stdout, reason = "how many they were depends on the machine")]
fn many_open_files_outlive_their_server() {
    let Some(mounted) = mounted() else { return };
    let limit = rustix::process::getrlimit(Resource::Nofile).maximum;
    let all = Rlimit { current: limit, maximum: limit };
    rustix::process::setrlimit(Resource::Nofile, all).expect("as many as it may");
    let count = limit.map_or(100_000, |limit| (limit / 10 * 6).min(100_000)) / 2 * 2;
    println!("{count} files");
    let name = |number: u64| {
        if number.is_multiple_of(2) { format!("concerned-{number}") } else { format!("other-{number}") }
    };
    let files: Vec<_> = (0..count).map(|number| opened(&mounted.target().join(name(number)))).collect();
    let status: Value = serde_json::from_str(&mounted.ctl(["show", "--json"])).expect("JSON");
    assert_eq!((&status["open_files"], &status["open_passthrough"]), (&count.into(), &(count / 2).into()));
    mounted.kill_server();
    for (number, file) in (0..count).zip(&files) {
        file.write_all_at(&number.to_le_bytes(), 0).expect("it is open");
        let mut read = [0; 8];
        file.read_exact_at(&mut read, 0).expect("it is open");
        assert_eq!(u64::from_le_bytes(read), number);
    }
    drop(files);
    eventually("all are closed", || mounted.ctl(["show"]).contains("open         0 files"));
}
