//! Each fault as an application sees it, and the file beside it untouched.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{Error, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::thread;

use fsi_tests::mount::{Mount, Mounted, scratch};
use fsi_tests::need::{Need, has};
use fsi_tests::prom::Metrics;
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;

/// A mount with one rule, which is for the file `bad`; and a file `good` beside it, both with the same content.
fn mounted(rule: &str) -> Option<Mounted> {
    if !has(&[Need::Mounts]) {
        return None;
    }
    let rules = format!("version: 1\nseed: 42\nrules:\n  - {{ name: the-rule, {rule} }}\n");
    let mount = Mount::with_rules(&rules).logged();
    for name in ["bad", "good"] {
        fs::write(mount.source().join(name), content()).expect("a file");
    }
    Some(mount.mount())
}

fn content() -> Vec<u8> {
    (0_u8..=250).cycle().take(100_000).collect()
}

fn errno(error: &Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// What may be done to a file goes on working on the neighbour.
fn neighbour_is_untouched(mounted: &Mounted) {
    let path = mounted.target().join("good");
    assert!(fs::read(&path).expect("it can be read") == content(), "the neighbour has its content");
    let mut file = OpenOptions::new().append(true).open(&path).expect("it can be opened");
    file.write_all(b"more").expect("it can be written");
    file.sync_all().expect("it can be synced");
    assert!(fs::read(&path).expect("it can be read").ends_with(b"more"), "and what was written");
    assert!(log(mounted).iter().all(|fault| fault["path"] != "good"), "the log says nothing of it");
}

fn log(mounted: &Mounted) -> Vec<Value> {
    mounted.fault_log().lines().map(|line| serde_json::from_str(line).expect("a JSON document a line")).collect()
}

#[test]
fn a_read_fails() {
    let Some(mounted) = mounted("match: { ops: [read], path: bad }, do: { errno: EIO }") else { return };
    let error = fs::read(mounted.target().join("bad")).expect_err("it cannot be read");
    assert_eq!(errno(&error), Some(Errno::IO));
    neighbour_is_untouched(&mounted);
    assert!(!log(&mounted).is_empty());
}

#[test]
fn each_operation_fails_by_its_name() {
    for (op, errno_name, code) in [
        ("open", "EACCES", Errno::ACCESS),
        ("write", "ENOSPC", Errno::NOSPC),
        ("fsync", "EIO", Errno::IO),
        ("truncate", "EDQUOT", Errno::DQUOT),
        ("unlink", "EBUSY", Errno::BUSY),
        ("rename", "EXDEV", Errno::XDEV),
    ] {
        let rule = format!("match: {{ ops: [{op}], path: bad }}, do: {{ errno: {errno_name} }}");
        let Some(mounted) = mounted(&rule) else { return };
        let path = mounted.target().join("bad");
        let writer = || OpenOptions::new().write(true).open(&path);
        let result = match op {
            "open" => fs::read(&path).map(|_| ()),
            "write" => writer().expect("it can be opened").write_all(b"x"),
            "fsync" => writer().expect("it can be opened").sync_all(),
            "truncate" => writer().expect("it can be opened").set_len(5),
            "unlink" => fs::remove_file(&path),
            _ => fs::rename(&path, mounted.target().join("moved")),
        };
        assert_eq!(errno(&result.expect_err(op)), Some(code), "{op}");
        neighbour_is_untouched(&mounted);
    }
}

#[test]
fn a_limit_ends_it() {
    let Some(mounted) = mounted("match: { ops: [write], path: bad }, when: { skip: 2, limit: 3 }, do: { errno: EIO }")
    else {
        return;
    };
    let file = OpenOptions::new().write(true).open(mounted.target().join("bad")).expect("it can be opened");
    let results: Vec<bool> = (0..10).map(|at| file.write_at(b"x", at).is_ok()).collect();
    assert_eq!(results, [true, true, false, false, false, true, true, true, true, true]);
    assert_eq!(log(&mounted).len(), 3);
}

#[test]
fn a_short_write_and_a_short_read() {
    for op in ["read", "write"] {
        let Some(mounted) = mounted(&format!("match: {{ ops: [{op}], path: bad }}, do: {{ short: 0.5 }}")) else {
            return;
        };
        let path = mounted.target().join("bad");
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("it can be opened");
        let mut bytes = [0; 1000];
        let done = if op == "read" { file.read_at(&mut bytes, 0) } else { file.write_at(&[7; 1000], 0) };
        assert_eq!(done.expect("it is done in part"), 500, "{op}");
        let written = fs::read(mounted.source().join("bad")).expect("it is there");
        let expected = if op == "write" { [vec![7; 500], content()[500..].to_vec()].concat() } else { content() };
        assert!(written == expected, "{op}: as much as was said");
        neighbour_is_untouched(&mounted);
    }
}

#[test]
fn corruption() {
    for (op, how) in [("read", "{ bitflip: 1 }"), ("write", "zero"), ("read", "random")] {
        let rule = format!("match: {{ ops: [{op}], path: bad }}, do: {{ corrupt: {how} }}");
        let Some(mounted) = mounted(&rule) else { return };
        let path = mounted.target().join("bad");
        let backing = || fs::read(mounted.source().join("bad")).expect("it is there");
        match op {
            "read" => {
                let mut bytes = [0; 4096];
                let file = File::open(&path).expect("it can be opened");
                (&file).read_exact(&mut bytes).expect("it can be read");
                let flipped: u32 = bytes.iter().zip(content()).map(|(ours, right)| (ours ^ right).count_ones()).sum();
                assert!(flipped > 0 && (how == "random" || flipped == 1), "{how}: {flipped} bits");
                assert!(backing() == content(), "the file itself is as it was");
            }
            _ => {
                let file = OpenOptions::new().write(true).open(&path).expect("it can be opened");
                file.write_all_at(&[7; 100], 0).expect("it says that it is written");
                assert!(backing()[..100] != [7; 100], "and it is not");
                assert!(backing()[100..] == content()[100..], "and nothing else is");
            }
        }
        neighbour_is_untouched(&mounted);
    }
}

/// The log tells how long it was; no clock is asked whether it was so.
#[test]
fn a_delay_is_what_the_log_says_and_holds_nobody_else_up() {
    let Some(mounted) = mounted("match: { ops: [read], path: bad }, do: { delay: 300s }") else { return };
    let path = mounted.target().join("bad");
    let mut reader =
        std::process::Command::new("cat").arg(&path).stdout(std::process::Stdio::null()).spawn().expect("cat");
    fsi_tests::eventually::eventually("the delay has begun", || !log(&mounted).is_empty());
    neighbour_is_untouched(&mounted);
    assert!(reader.try_wait().expect("it is ours").is_none(), "it waits");
    reader.kill().expect("it lives");
    // Not in five minutes: the request can be interrupted.
    reader.wait().expect("it ends");
}

/// The kernel closes and forgets what it was told of; nobody else would.
#[test]
fn callers_that_are_killed_leave_nothing_open() {
    let Some(mounted) = mounted("match: { ops: [open, create], path: '{bad,new}' }, do: { delay: 300s }") else {
        return;
    };
    let bad = mounted.target().join("bad");
    let program = |program: &str, path: &std::path::Path| {
        let mut command = std::process::Command::new(program);
        command.arg(path).stdout(std::process::Stdio::null()).spawn().expect("it starts")
    };
    let callers = [program("cat", &bad), program("touch", &mounted.target().join("new"))];
    let open = || {
        let shown: Value = serde_json::from_str(&mounted.ctl(["show", "--json"])).expect("JSON");
        shown["open_files"].as_u64().expect("a number")
    };
    fsi_tests::eventually::eventually("both are open", || open() == 2);
    for mut caller in callers {
        caller.kill().expect("it lives");
        caller.wait().expect("it ends");
    }
    fsi_tests::eventually::eventually("neither is open", || open() == 0);
}

#[test]
fn the_same_seed_is_the_same_log_on_one_and_on_eight_threads() {
    let log_of = |threads: usize| -> Option<Vec<String>> {
        let mounted =
            mounted("match: { ops: [write], path: 'many/*' }, when: { probability: 0.2 }, do: { errno: EIO }")?;
        let place = mounted.target().join("many");
        fs::create_dir(&place).expect("a directory");
        let write = |thread: usize| {
            for number in (0..16).filter(|number| number % threads == thread) {
                let file = File::create(place.join(number.to_string())).expect("a file");
                for at in 0..100 {
                    // Whether it failed is what the log says.
                    file.write_at(b"x", at).unwrap_or_default();
                }
            }
        };
        thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || write(thread));
            }
        });
        let entry = |fault: &Value| format!("{} {} {} {}", fault["path"], fault["op"], fault["ordinal"], fault["rule"]);
        let mut entries: Vec<_> = log(&mounted).iter().map(entry).collect();
        entries.sort();
        Some(entries)
    };
    let Some(one) = log_of(1) else { return };
    assert!(one.len() > 200 && one.len() < 450, "a fifth of 1,600: {}", one.len());
    assert_eq!(log_of(1), Some(one.clone()), "the same again");
    assert_eq!(log_of(8), Some(one), "on eight threads");
}

#[test]
fn a_torn_write_says_that_all_is_written() {
    let Some(mounted) = mounted("match: { ops: [write], path: bad }, do: { torn: 512B }") else { return };
    let file = OpenOptions::new().write(true).open(mounted.target().join("bad")).expect("it can be opened");
    assert_eq!(file.write_at(&[7; 4096], 0).expect("it says so"), 4096);
    let written = fs::read(mounted.source().join("bad")).expect("it is there");
    assert!(written[..512] == [7; 512] && written[512..] == content()[512..], "only a part is");
    neighbour_is_untouched(&mounted);
}

#[test]
fn a_mapped_read_fails_as_from_a_disk() {
    if !has(&[Need::Program("python3")]) {
        return;
    }
    let Some(mounted) = mounted("match: { ops: [read], path: bad }, do: { errno: EIO }") else { return };
    let script = "import mmap, sys\nwith open(sys.argv[1], 'rb') as f:\n  \
                  print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[5000])";
    let run = |name: &str| {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", script]).arg(mounted.target().join(name)).current_dir("/").output().expect("python3 starts")
    };
    let signal = std::os::unix::process::ExitStatusExt::signal(&run("bad").status);
    assert_eq!(signal, Some(Signal::BUS.as_raw()), "a page that cannot be read");
    let good = run("good");
    assert_eq!(String::from_utf8_lossy(&good.stdout).trim(), content()[5000].to_string());
    neighbour_is_untouched(&mounted);
}

#[test]
fn directory_operations_fail_too() {
    for (op, errno_name, code) in [
        ("lookup", "EIO", Errno::IO),
        ("mkdir", "EDQUOT", Errno::DQUOT),
        ("rmdir", "EBUSY", Errno::BUSY),
        ("opendir", "EACCES", Errno::ACCESS),
        ("readdir", "EIO", Errno::IO),
        ("symlink", "EROFS", Errno::ROFS),
        ("create", "ENOSPC", Errno::NOSPC),
    ] {
        let Some(mounted) = mounted(&format!("match: {{ ops: [{op}], path: 'bad*' }}, do: {{ errno: {errno_name} }}"))
        else {
            return;
        };
        for below in [mounted.source(), mounted.source().join("bad.d")] {
            fs::create_dir_all(below.join("bad.empty")).expect("a directory");
        }
        let path = mounted.target().join("bad.d");
        let result = match op {
            "lookup" => fs::metadata(&path).map(drop),
            "mkdir" => fs::create_dir(mounted.target().join("bad.new")),
            "rmdir" => fs::remove_dir(mounted.target().join("bad.empty")),
            "symlink" => std::os::unix::fs::symlink("x", mounted.target().join("bad.link")),
            "create" => File::create(mounted.target().join("bad.file")).map(drop),
            _ => fs::read_dir(&path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()).map(drop),
        };
        assert_eq!(errno(&result.expect_err(op)), Some(code), "{op}");
        fs::create_dir(mounted.target().join("other")).expect("another name");
        neighbour_is_untouched(&mounted);
    }
}

/// The mount is gone for everybody, and what lies below does not show.
#[test]
fn an_abort_ends_the_connection() {
    let Some(mounted) = mounted("match: { ops: [read], path: bad }, do: { abort: true }") else { return };
    let path = mounted.target().join("bad");
    let gone = |error: Error| {
        assert!(matches!(errno(&error), Some(Errno::NOTCONN | Errno::CONNABORTED)), "{error}");
    };
    gone(fs::read(&path).expect_err("it cannot be read"));
    gone(fs::read(mounted.target().join("good")).expect_err("nor can the neighbour"));
    gone(fs::write(mounted.target().join("new"), "x").expect_err("nor is anything written below"));
    assert_eq!(log(&mounted)[0]["kind"], "abort");
}

#[test]
fn a_log_is_replayed_without_its_rules() {
    let Some(mounted) =
        mounted("match: { ops: [write], path: 'b*' }, when: { probability: 0.3 }, do: { errno: EIO, delay: 1ms }")
    else {
        return;
    };
    let write = |mounted: &Mounted| -> Vec<bool> {
        let file = OpenOptions::new().write(true).open(mounted.target().join("bad")).expect("it can be opened");
        (0..200).map(|at| file.write_at(b"x", at).is_ok()).collect()
    };
    let first = write(&mounted);
    let kept = tempfile::NamedTempFile::new().expect("a file");
    fs::write(kept.path(), mounted.fault_log()).expect("it can be written");
    drop(mounted);
    let again = Mount::plain().logged().option("--replay").option(kept.path().to_str().expect("a plain path"));
    fs::write(again.source().join("bad"), content()).expect("a file");
    let again = again.mount();
    assert_eq!(write(&again), first, "the same writes fail");
    let of = |text: &str| -> Vec<(Value, Value, Value)> {
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        all.map(|fault| (fault["ordinal"].clone(), fault["kind"].clone(), fault["delay_ns"].clone())).collect()
    };
    let kept = fs::read_to_string(kept.path()).expect("it is there");
    assert_eq!(of(&again.fault_log()), of(&kept), "and the log is the same");
}

/// A driver that is asked for one in two does what it always did.
#[test]
fn the_older_json_is_in_force() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let rules = r#"{ "file_fail_rate": 2, "directory_fail_rate": 0, "use_seednum": true, "seed": 7, "delay_time": 0 }"#;
    let mounted = Mount::with_rules(rules).logged().mount();
    let results: Vec<_> = (0..200).map(|name| fs::write(mounted.target().join(name.to_string()), "x")).collect();
    let failed: Vec<_> = results.iter().filter_map(|result| errno(result.as_ref().err()?)).collect();
    assert!((40..200).contains(&failed.len()), "{}", failed.len());
    assert!(failed.iter().all(|errno| [Errno::IO, Errno::NOSPC, Errno::NOENT].contains(errno)), "{failed:?}");
}

/// A log that cannot be written fails nothing, and says how much is missing.
#[test]
fn faults_that_are_not_in_the_log_are_counted() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let rules = "version: 1\nrules:\n  - { name: bad, match: { ops: [mkdir] }, do: { errno: EIO } }\n";
    let outputs = scratch();
    let metrics = outputs.path().join("metrics");
    let mount = Mount::with_rules(rules).option("--fault-log").option("/dev/full");
    let mounted = mount.option("--metrics").option(metrics.to_str().expect("a plain path")).mount();
    for _ in 0..3 {
        let error = fs::create_dir(mounted.target().join("d")).expect_err("a rule says so");
        assert_eq!(errno(&error), Some(Errno::IO));
    }
    let status: Value = serde_json::from_str(&mounted.ctl(["show", "--json"])).expect("JSON");
    assert_eq!((&status["faults_injected"], &status["unlogged"]), (&3.into(), &3.into()), "{status}");
    assert!(mounted.ctl(["show"]).contains("not logged   3 faults could not be written to the log file"));
    drop(mounted);
    assert_eq!(Metrics::read(&metrics).lost("fault_log", "write"), 3);
}
