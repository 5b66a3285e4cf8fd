//! Both ends over a real socket.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::queue::MAX_QUEUED;
use super::*;
use crate::fuse::report::FanOut;
use crate::fuse::state::Word;
use crate::reports::wire::tests::operation;
use crate::reports::{FromMount, Gone, Lost, ReportsServer};

const DEV: u32 = 52;
/// Of what is sure to come.
const PATIENCE: Duration = Duration::from_secs(30);

fn state() -> (Arc<State>, OwnedFd) {
    let file = State::create().unwrap();
    (State::open(file.as_fd()).unwrap(), file)
}

fn config(socket: &Path) -> AgentLinkConfig {
    let mount = MountInfo {
        dev: DEV,
        device_minor: DEV,
        target: "/mnt".into(),
        source: "/data".into(),
        version: "1".to_owned(),
        ..MountInfo::default()
    };
    AgentLinkConfig { socket: socket.to_owned(), mount }
}

fn listen(socket: &Path, bound: usize) -> (ReportsServer, Receiver<FromMount>) {
    let (sender, receiver) = crossbeam_channel::bounded(bound);
    (ReportsServer::listen(socket, sender).unwrap(), receiver)
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What an agent makes of what it gets.
#[derive(Debug, Default)]
struct Heard {
    hellos: Vec<MountInfo>,
    operations: Vec<u64>,
    full: u64,
    unsent: u64,
    gone: Vec<Gone>,
}

impl Heard {
    fn add(&mut self, message: FromMount) {
        match message {
            FromMount::Hello(info) => self.hellos.push(info),
            FromMount::Operations { dev, operations } => {
                assert!(operations.iter().all(|report| *report == operation(dev, report.unique)));
                self.operations.extend(operations.iter().map(|report| report.unique));
            }
            FromMount::Lost { count, why: Lost::QueueFull, .. } => self.full += count,
            FromMount::Lost { count, why: Lost::Unsent, .. } => self.unsent += count,
            FromMount::Gone { why, .. } => self.gone.push(why),
        }
    }

    fn all(receiver: &Receiver<FromMount>) -> Self {
        let mut heard = Self::default();
        receiver.try_iter().for_each(|message| heard.add(message));
        heard
    }

    /// Until a mount is gone.
    fn one_mount(receiver: &Receiver<FromMount>) -> Self {
        let mut heard = Self::default();
        while heard.gone.is_empty() {
            heard.add(receiver.recv_timeout(PATIENCE).unwrap());
        }
        heard
    }

    fn sum(&self) -> u64 {
        self.operations.len() as u64 + self.full + self.unsent
    }
}

#[test]
fn everything_arrives_in_order() {
    const EACH: u64 = 5_000;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let (_server, receiver) = listen(&socket, 1 << 16);
    let (state, _file) = state();
    let link = AgentLink::start(config(&socket), Arc::clone(&state)).unwrap();
    eventually("the agent is there", || link.wants_operations());
    thread::scope(|scope| {
        for thread in 0..4 {
            let link = &link;
            scope.spawn(move || {
                for number in 0..EACH {
                    link.operation(operation(DEV, thread << 32 | number));
                }
            });
        }
    });
    let counts = link.finish();
    let made = 4 * EACH;
    assert_eq!(counts, LinkCounts { made, taken: made, full: 0, waiting: 0 });
    let heard = Heard::one_mount(&receiver);
    assert_eq!((heard.sum(), heard.full), (made, 0));
    assert_eq!(heard.gone, [Gone::Ended]);
    assert_eq!(heard.hellos, [config(&socket).mount]);
    let mut next = BTreeMap::new();
    for unique in heard.operations {
        let (thread, number) = (unique >> 32, unique & 0xffff_ffff);
        let next = next.entry(thread).or_insert(0);
        assert_eq!(number, *next);
        *next += 1;
    }
    // Nothing is taken after the end, and all that is counted.
    link.operation(operation(DEV, 1));
    assert!(!link.wants_operations());
    assert_eq!(link.counts().unsent(), 1);
    assert_eq!(state.word(Word::ReportsTaken).load(std::sync::atomic::Ordering::Relaxed), made);
}

#[test]
fn an_agent_may_go_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let (state, _file) = state();
    let link = AgentLink::start(config(&socket), state).unwrap();
    thread::sleep(Duration::from_millis(50));
    assert!(!link.wants_operations());
    let (server, receiver) = listen(&socket, 1024);
    eventually("the first agent is found", || link.wants_operations());
    (0..1000).for_each(|unique| link.operation(operation(DEV, unique)));
    eventually("the first agent took all", || link.counts().taken == 1000);
    server.stop();
    eventually("it is gone", || !link.wants_operations());
    assert_eq!(Heard::all(&receiver).operations.len(), 1000);
    // Operations that had begun before.
    (0..10).for_each(|unique| link.operation(operation(DEV, unique)));
    let (_server, receiver) = listen(&socket, 1024);
    eventually("the second agent is found", || link.wants_operations());
    (0..500).for_each(|unique| link.operation(operation(DEV, unique)));
    let counts = link.finish();
    assert_eq!(counts, LinkCounts { made: 1510, taken: 1500, full: 0, waiting: 0 });
    let heard = Heard::one_mount(&receiver);
    assert_eq!((heard.operations.len(), heard.sum()), (500, 500));
    assert_eq!(heard.hellos[0].dropped, 10);
}

#[test]
fn a_slow_agent_holds_up_nobody_and_the_sum_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let (_server, receiver) = listen(&socket, 1);
    let (state, _file) = state();
    let link = AgentLink::start(config(&socket), state).unwrap();
    eventually("the agent is there", || link.wants_operations());
    let made = 4 * MAX_QUEUED as u64;
    let begun = Instant::now();
    (0..made).for_each(|unique| link.operation(operation(DEV, unique)));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let counts = link.counts();
    assert!(counts.waiting <= MAX_QUEUED as u64 && counts.full > made / 2, "{counts:?}");
    let heard = thread::scope(|scope| {
        let heard = scope.spawn(|| Heard::one_mount(&receiver));
        eventually("all that waited was taken", || link.counts().waiting == 0);
        link.finish();
        heard.join().unwrap()
    });
    let counts = link.counts();
    assert_eq!((counts.made, counts.unsent(), counts.waiting), (made, 0, 0));
    assert_eq!((heard.operations.len() as u64, heard.full), (counts.taken, counts.full));
    assert_eq!(heard.sum(), made);
    assert!(heard.operations.is_sorted());
}

#[test]
fn an_agent_that_takes_nothing_delays_the_end_by_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let (_server, _receiver) = listen(&socket, 1);
    let (state, _file) = state();
    let link = AgentLink::start(config(&socket), state).unwrap();
    eventually("the agent is there", || link.wants_operations());
    (0..1000).for_each(|unique| link.operation(operation(DEV, unique)));
    let begun = Instant::now();
    let counts = link.finish();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!((counts.made, counts.waiting), (1000, 0));
    assert!(counts.unsent() > 0);
}

/// Where the child finds the agent's socket and the state.
const CHILD: &str = "FSI_TEST_LINK_CHILD";

/// Not a test of its own: the server that the test below kills.
#[test]
fn child_that_is_killed() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let (socket, state) = child.split_once('\n').unwrap();
    let file = std::fs::File::options().read(true).write(true).open(state).unwrap();
    let link = AgentLink::start(config(Path::new(socket)), State::open(file.as_fd()).unwrap()).unwrap();
    eventually("the agent is there", || link.wants_operations());
    for unique in 0.. {
        link.operation(operation(DEV, unique));
        if unique % 64 == 0 {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

#[test]
fn what_a_killed_server_had_not_told_shows_when_its_successor_says_hello() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let (server, receiver) = listen(&socket, 1 << 16);
    let (state, file) = state();
    let file = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fuse::agent_link::tests::child_that_is_killed"])
        .env(CHILD, format!("{}\n{file}", socket.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the server tells", || server.counts().operations > 5_000);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut heard = Heard::one_mount(&receiver);
    assert_eq!((&heard.gone[..], heard.unsent), (&[Gone::Broken][..], 0));
    let reported = || state.word(Word::Reported).load(std::sync::atomic::Ordering::Relaxed);
    let made_before = reported();
    let link = AgentLink::start(config(&socket), Arc::clone(&state)).unwrap();
    eventually("the agent is there again", || link.wants_operations());
    (0..100).for_each(|unique| link.operation(operation(DEV, unique)));
    assert_eq!(link.finish().taken, 100);
    let rest = Heard::one_mount(&receiver);
    heard.unsent += rest.unsent;
    assert_eq!((rest.full, rest.operations.len()), (0, 100));
    assert_eq!(heard.sum(), made_before, "the killed server's");
    assert_eq!(heard.sum() + 100, reported());
    assert!(heard.unsent > 0 && rest.hellos[0].dropped >= heard.unsent, "{}", heard.unsent);
}

#[test]
fn only_those_who_want_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let (there, away) = (directory.path().join("agent.sock"), directory.path().join("nobody.sock"));
    let (_server, receiver) = listen(&there, 1024);
    let links = [&there, &away].map(|socket| Arc::new(AgentLink::start(config(socket), state().0).unwrap()));
    let all = FanOut(links.iter().map(|link| -> Arc<dyn Reports> { Arc::<AgentLink>::clone(link) }).collect());
    eventually("the agent is there", || all.wants_operations());
    all.operation(operation(DEV, 1));
    assert!(!all.wants_files());
    let [told, untold] = links.map(|link| link.finish().made);
    assert_eq!((told, untold), (1, 0));
    assert_eq!(Heard::one_mount(&receiver).sum(), 1);
    assert!(!all.wants_operations());
}
