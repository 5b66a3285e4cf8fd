//! Client and service over a real socket, with a mount that only remembers.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::MAX_RULES_BYTES;
use super::client::{Client, ClientError};
use super::service::{ControlServer, serve};
use crate::fuse::control::{ControlError, Controlled, FaultPage, PowerCut, SetOutcome, Status};
use crate::rules::decision::{Corrupt, Corruption, Effect, Fault, FaultEntry, FaultKind};
use crate::rules::op::Op;

const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps what it was told.
#[derive(Debug, Default)]
struct Remembering {
    told: Mutex<Vec<String>>,
    status: Status,
    faults: Vec<FaultEntry>,
}

impl Remembering {
    fn note(&self, what: impl Into<String>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }
}

impl Controlled for Remembering {
    fn status(&self) -> Status {
        self.status.clone()
    }
    fn set(&self, text: &str) -> Result<SetOutcome, ControlError> {
        self.note(format!("set {} bytes", text.len()));
        match text.strip_prefix("bad") {
            Some(sentence) => Err(ControlError::Invalid(sentence.to_owned())),
            None => Ok(SetOutcome { rules: 3, out_of_reach: 2 }),
        }
    }
    fn pause(&self) {
        self.note("pause");
    }
    fn resume(&self) {
        self.note("resume");
    }
    fn clear(&self) -> Result<(), ControlError> {
        Err(ControlError::Failed("the state cannot be written: no space left on device".to_owned()))
    }
    fn faults(&self, after: u64, limit: usize) -> FaultPage {
        let entries = self.faults.iter().filter(|entry| entry.sequence > after).take(limit).cloned().collect();
        FaultPage { entries, forgotten: 7 }
    }
    fn power_cut(&self) -> Result<PowerCut, ControlError> {
        Ok(PowerCut { files: 1, bytes: 2, handles: 3 })
    }
    fn upgrade(&self, binary: Option<PathBuf>) -> Result<(), ControlError> {
        self.note(format!("upgrade {binary:?}"));
        match binary {
            Some(binary) => Err(ControlError::Unavailable(format!("{} is no fsi", binary.display()))),
            None => Ok(()),
        }
    }
}

fn entry(sequence: u64, path: &[u8], effect: Effect) -> FaultEntry {
    let fault = Fault { rule: "r".into(), kind: FaultKind::Short, errno: Some(5), delay: Duration::from_millis(3) };
    FaultEntry {
        sequence,
        unix_ns: 1_700_000_000_000_000_000,
        fault,
        op: Op::Write,
        path: Arc::from(path),
        ordinal: 9,
        ino: 99,
        pid: 42,
        uid: 1000,
        offset: 4096,
        asked: 100,
        done: 60,
        effect,
    }
}

struct Served {
    directory: tempfile::TempDir,
    mount: Arc<Remembering>,
    server: Option<ControlServer>,
}

impl Served {
    fn new(mount: Remembering) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mount = Arc::new(mount);
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let server = serve(listener, Arc::<Remembering>::clone(&mount)).unwrap();
        Self { directory, mount, server: Some(server) }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket(), PATIENCE).unwrap()
    }

    fn told(&self) -> Vec<String> {
        self.mount.told.lock().unwrap().clone()
    }
}

#[test]
fn a_status_arrives_as_it_was() {
    use std::os::unix::ffi::OsStrExt as _;
    let status = Status {
        source: Path::new(std::ffi::OsStr::from_bytes(b"/da\xffta")).to_owned(),
        target: "/mnt/x".into(),
        device: "0:52".into(),
        version: "0.1.0".into(),
        rules_text: "version: 1\n".repeat(90_000),
        paused: true,
        passthrough: true,
        servers: 3,
        server_pid: 4,
        keeper_pid: 5,
        nodes: 6,
        open_files: 7,
        open_passthrough: 8,
        waiting: 9,
        requests: u64::MAX,
        faults_injected: 10,
        capacity: Some((1 << 30, 5)),
        unsynced_bytes: 11,
        undelayed: 12,
        unlogged: 13,
    };
    let served = Served::new(Remembering { status: status.clone(), ..Remembering::default() });
    assert_eq!(served.client().show().unwrap(), status);
}

#[test]
fn orders_arrive_and_are_answered() {
    let served = Served::new(Remembering::default());
    let mut client = served.client();
    client.pause().unwrap();
    client.resume().unwrap();
    assert_eq!(client.power_cut().unwrap(), PowerCut { files: 1, bytes: 2, handles: 3 });
    client.upgrade(None).unwrap();
    assert!(matches!(client.upgrade(Some(Path::new("/x"))), Err(ClientError::Refused(s)) if s == "/x is no fsi"));
    let failed = client.clear().unwrap_err();
    assert!(matches!(&failed, ClientError::Failed(_)));
    assert_eq!(failed.to_string(), "the state cannot be written: no space left on device");
    assert_eq!(served.told(), ["pause", "resume", "upgrade None", "upgrade Some(\"/x\")"]);
}

#[test]
fn rules_may_have_a_mebibyte_and_no_more() {
    let served = Served::new(Remembering::default());
    let mut client = served.client();
    let outcome = client.set("#".repeat(MAX_RULES_BYTES)).unwrap();
    assert_eq!(outcome, SetOutcome { rules: 3, out_of_reach: 2 });
    assert!(matches!(client.set("#".repeat(MAX_RULES_BYTES + 1)), Err(ClientError::TooLarge(_))));
    assert_eq!(served.told(), [format!("set {MAX_RULES_BYTES} bytes")]);
}

#[test]
fn refusals_keep_their_lines_however_many() {
    let served = Served::new(Remembering::default());
    let mut client = served.client();
    let lines = "line 3, column 9: unknown operation `wirte`\n\tallowed: \u{201e}read\u{201c}, write".to_owned();
    for sentence in [lines.clone(), format!("{lines}\n").repeat(400)] {
        let refused = client.set(format!("bad{sentence}")).unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(_)), "{refused:?}");
        assert_eq!(refused.to_string(), sentence);
    }
    let refused = client.set(format!("bad{}", "\u{e4}".repeat(100_000))).unwrap_err().to_string();
    assert!(refused.len() > 30_000 && refused.ends_with("(and more)"), "{}", refused.len());
}

#[test]
fn faults_come_back_as_they_were() {
    let corrupt = |how| Effect::Corrupt(Corruption { how, seed: u64::MAX });
    let effects = [
        Effect::Done,
        Effect::Fail(28),
        Effect::Abort,
        Effect::Short(5),
        Effect::Torn(6),
        corrupt(Corrupt::BitFlip { bits: 7 }),
        corrupt(Corrupt::Zero { bytes: 8 }),
        corrupt(Corrupt::Random { bytes: 9 }),
        corrupt(Corrupt::Pattern { bytes: 10, pattern: vec![0, 255] }),
        Effect::FailFsync(5),
        Effect::LieFsync,
    ];
    let faults: Vec<_> =
        effects.into_iter().zip(1..).map(|(effect, sequence)| entry(sequence, b"a/\xff", effect)).collect();
    let served = Served::new(Remembering { faults: faults.clone(), ..Remembering::default() });
    let mut client = served.client();
    assert_eq!(client.faults(0, 0).unwrap(), FaultPage { entries: faults.clone(), forgotten: 7 });
    assert_eq!(client.faults(3, 2).unwrap().entries, faults[3..5]);
}

#[test]
fn a_long_log_comes_in_pages_that_fit() {
    let faults: Vec<_> = (1..=3000).map(|sequence| entry(sequence, &[b'x'; 4000], Effect::Done)).collect();
    let served = Served::new(Remembering { faults: faults.clone(), ..Remembering::default() });
    let mut client = served.client();
    let mut all = Vec::new();
    let mut pages = 0;
    loop {
        let page = client.faults(all.last().map_or(0, |entry: &FaultEntry| entry.sequence), 0).unwrap();
        if page.entries.is_empty() {
            break;
        }
        pages += 1;
        all.extend(page.entries);
    }
    assert!(pages > 5, "{pages}");
    assert_eq!(all, faults);
}

#[test]
fn a_server_that_ends_closes_its_connections() {
    let mut served = Served::new(Remembering::default());
    let mut client = served.client();
    client.show().unwrap();
    served.server.take().unwrap().stop();
    assert!(matches!(client.show(), Err(ClientError::WentAway(_))));
    assert!(matches!(Client::connect(&served.socket(), PATIENCE), Err(ClientError::NobodyListens(_))));
}

#[test]
fn who_is_not_there_is_told_apart_from_who_is_silent() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    assert!(matches!(Client::connect(&socket, PATIENCE), Err(ClientError::NoSocket(_))));
    // It listens, and nobody ever accepts: as when a server is stopped.
    let listener = UnixListener::bind(&socket).unwrap();
    let short = Duration::from_millis(20);
    let outcome = Client::connect(&socket, short).and_then(|mut client| client.show());
    let silent = outcome.unwrap_err();
    assert!(matches!(silent, ClientError::Deadline { .. }), "{silent:?}");
    assert!(silent.to_string().ends_with("within 20ms"), "{silent}");
    // The connections of clients that went away do not keep a server from answering the next.
    let server = serve(listener, Arc::new(Remembering::default())).unwrap();
    assert_eq!(Client::connect(&socket, PATIENCE).unwrap().show().unwrap(), Status::default());
    server.stop();
    assert_eq!(std::os::unix::net::UnixStream::connect(&socket).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
