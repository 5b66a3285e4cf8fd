//! What a mount answers, as a person reads it: aligned, escaped, in units.

use crate::fuse::control::{PowerCut, SetOutcome, Status};
use crate::rules::decision::{Effect, Fault, FaultEntry, FaultKind};
use crate::summary::format;
use crate::telemetry::errno;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const SECONDS_A_DAY: u64 = 86_400;

fn path_words(path: &Path) -> String {
    format::escaped(path.as_os_str().as_bytes())
}

/// `1 file`, `2 files`.
fn counted(count: u64, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {one}{plural}", format::count(count))
}

/// The name of an errno.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    u16::try_from(errno).map_or_else(|_| errno.to_string(), |errno| errno::name(errno).into_owned())
}

/// How a mount is doing, and its rules.
#[must_use]
pub fn status(status: &Status) -> String {
    let Status {
        source,
        target,
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
    let rules = match (rules_text.trim().is_empty(), paused) {
        (true, _) => "none",
        (false, true) => "paused: no rule fires and nothing is throttled until `resume`",
        (false, false) => "in force, see below",
    };
    let passthrough = if *passthrough { "on: unconcerned files are read and written in the kernel" } else { "off" };
    let mut rows = vec![
        ("target", path_words(target)),
        ("source", path_words(source)),
        ("device", device.clone()),
        ("version", version.clone()),
        ("rules", rules.to_owned()),
        ("passthrough", passthrough.to_owned()),
        ("server", format!("pid {server_pid}, keeper {keeper_pid}, {} so far", counted(*servers, "server"))),
        ("known", format!("{} files and directories", format::count(*nodes))),
        ("open", format!("{}, {} in passthrough", counted(*open_files, "file"), format::count(*open_passthrough))),
        ("requests", format!("{}, {} waiting", format::count(*requests), format::count(*waiting))),
        ("faults", format!("{} injected", format::count(*faults_injected))),
    ];
    if let Some((limit, used)) = capacity {
        rows.push(("capacity", format!("{} of {} used", format::bytes(*used), format::bytes(*limit))));
    }
    rows.push(("unsynced", format!("{} that a power cut would lose", format::bytes(*unsynced_bytes))));
    if *undelayed > 0 {
        rows.push((
            "not delayed",
            format!("{} passed because as many waited as can", counted(*undelayed, "operation")),
        ));
    }
    if *unlogged > 0 {
        rows.push(("not logged", format!("{} could not be written to the log file", counted(*unlogged, "fault"))));
    }
    let mut lines: Vec<String> = rows.into_iter().map(|(name, value)| format!("{name:<12} {value}")).collect();
    if !rules_text.trim().is_empty() {
        lines.push(String::new());
        lines.push(rules_text.trim_end().to_owned());
    }
    lines.join("\n")
}

/// What new rules met.
#[must_use]
pub fn set(outcome: SetOutcome, summary: &str) -> String {
    // The number of rules is in the summary.
    let SetOutcome { rules: _, out_of_reach } = outcome;
    let mut text = format!("in force: {summary}");
    if out_of_reach > 0 {
        let files = counted(out_of_reach, "file");
        text.push_str(&format!(
            "; {files} that a rule concerns stay out of reach until opened again: they are open in passthrough"
        ));
    }
    text
}

/// What a power cut did.
#[must_use]
pub fn power_cut(outcome: PowerCut) -> String {
    let PowerCut { files, bytes, handles } = outcome;
    let (files, bytes) = (counted(files, "file"), format::bytes(bytes));
    let verb = if handles == 1 { "answers" } else { "answer" };
    format!(
        "the power was cut: {bytes} of {files} lost; {} {verb} EIO until opened again",
        counted(handles, "open file")
    )
}

/// The first line of the fault log.
#[must_use]
pub fn faults_head() -> String {
    line(["seq", "time (UTC)", "rule", "operation", "nth", "fault", "path"])
}

/// A fault on one line.
#[must_use]
pub fn fault(entry: &FaultEntry) -> String {
    let FaultEntry {
        sequence,
        unix_ns,
        fault,
        op,
        path,
        ordinal,
        ino: _,
        pid: _,
        uid: _,
        offset: _,
        asked,
        done,
        effect,
    } = entry;
    let path = if path.is_empty() { "(the mount's root)".to_owned() } else { format::escaped(path) };
    line([
        &sequence.to_string(),
        &utc(*unix_ns),
        &fault.rule,
        op.name(),
        &ordinal.to_string(),
        &what(fault, effect, *asked, *done),
        &path,
    ])
}

fn line(cells: [&str; 7]) -> String {
    let [sequence, time, rule, op, ordinal, fault, path] = cells;
    format!("{sequence:>6}  {time:<24}  {rule:<16}  {op:<10}  {ordinal:>6}  {fault:<28}  {path}")
}

fn what(fault: &Fault, effect: &Effect, asked: u64, done: u64) -> String {
    let Fault { rule: _, kind, errno, delay } = fault;
    let name = errno.map(errno_name).unwrap_or_default();
    let text = match kind {
        FaultKind::Errno => name,
        FaultKind::Delay => {
            format!("delay {}", format::nanoseconds(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
        }
        FaultKind::Short => format!("short: {done} of {asked} B"),
        FaultKind::Torn => match effect {
            Effect::Torn(bytes) => format!("torn: {bytes} of {asked} B"),
            Effect::Done
            | Effect::Fail(_)
            | Effect::Abort
            | Effect::Short(_)
            | Effect::Corrupt(_)
            | Effect::FailFsync(_)
            | Effect::LieFsync => format!("torn, {asked} B asked"),
        },
        FaultKind::FailFsync | FaultKind::Capacity => format!("{} {name}", kind.name()),
        FaultKind::Corrupt
        | FaultKind::LoseUntilFsync
        | FaultKind::LieFsync
        | FaultKind::Abort
        | FaultKind::PowerCut => kind.name().to_owned(),
    };
    text.trim_end().to_owned()
}

/// `2026-01-31T23:59:59.999Z`
fn utc(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (days, of_day) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    // Days are counted from 0000-03-01, so that the leap day is the last of its year; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", unix_ns / 1_000_000 % 1000)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::rules::op::Op;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_ns, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999_999_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_123_000_000, "2025-12-31T23:59:59.123Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(unix_ns), expected);
        }
    }

    #[test]
    fn a_fault_says_what_was_done_to_whom() {
        let mut entry = FaultEntry {
            sequence: 12,
            unix_ns: 0,
            fault: Fault { rule: "flaky".into(), kind: FaultKind::Short, errno: None, delay: Duration::from_millis(5) },
            op: Op::Write,
            path: Arc::from(&b"a/\xff"[..]),
            ordinal: 3,
            ino: 1,
            pid: 2,
            uid: 3,
            offset: 0,
            asked: 100,
            done: 60,
            effect: Effect::Short(60),
        };
        let text = fault(&entry);
        assert!(text.starts_with("    12  1970-01-01T00:00:00.000Z  flaky "), "{text}");
        assert!(text.contains("  short: 60 of 100 B  ") && text.ends_with("  a/\\xff"), "{text}");
        assert_eq!(text.find("short:"), faults_head().find("fault"));
        for (kind, errno, expected) in [
            (FaultKind::Errno, Some(libc::EIO), "EIO"),
            (FaultKind::Delay, None, "delay 5.00 ms"),
            (FaultKind::FailFsync, Some(libc::EIO), "fail_fsync EIO"),
            (FaultKind::Abort, None, "abort"),
        ] {
            entry.fault.kind = kind;
            entry.fault.errno = errno;
            assert_eq!(what(&entry.fault, &entry.effect, 1, 1), expected);
        }
    }

    #[test]
    fn a_status_shows_its_rules_and_its_units() {
        let mut mount = Status { target: "/mnt/x".into(), capacity: Some((1 << 30, 1 << 20)), ..Status::default() };
        let text = status(&mount);
        assert!(text.contains("\nrules        none\n") && text.contains("1.00 MiB of 1.00 GiB used"), "{text}");
        mount.rules_text = "version: 1\n".to_owned();
        mount.paused = true;
        let text = status(&mount);
        assert!(text.contains("rules        paused") && text.ends_with("\n\nversion: 1"), "{text}");
    }
}
