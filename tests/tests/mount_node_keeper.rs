//! The keeper of a node: servers of many mounts may be killed, and the keeper as well, and whoever uses a mount sees a pause.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{fsi, output, text};
use fsi_tests::mount::{is_mounted, scratch};
use fsi_tests::need::{Need, has};
use fsi_tests::node_keeper::NodeKeeper;
use fsi_tests::stop::Stop;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A node with a keeper and, one after the other, servers of a mount.
struct Node {
    directory: TempDir,
    keeper: NodeKeeper,
}

impl Node {
    fn start() -> Self {
        let directory = scratch();
        for name in ["source", "target"] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        let keeper = NodeKeeper::start(directory.path());
        Self { directory, keeper }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server that serves; `options` are further ones.
    fn serve(&self, options: &[&str]) -> Child {
        let mut server = self.server(options).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("it is text");
        assert_eq!(line, "ready\n");
        server
    }

    fn server(&self, options: &[&str]) -> Command {
        let mut command = fsi(["mount", "--id", "volume", "--keeper"]);
        command.env("FSI_RUN_DIR", self.path("run")).arg(self.keeper.socket()).args(options);
        command.arg(self.path("source")).arg(self.path("target"));
        command
    }

    fn kept(&self) -> String {
        self.keeper.kept()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What a failed test left.
        while is_mounted(&self.path("target")) && unmount(self.path("target"), UnmountFlags::DETACH).is_ok() {}
    }
}

fn kill(mut server: Child) {
    server.kill().expect("it runs");
    server.wait().expect("it ends");
}

fn end(node: &Node, mut server: Child) {
    unmount(node.path("target"), UnmountFlags::empty()).expect("nobody uses it");
    assert!(server.wait().expect("it ends").success());
    eventually("it is forgotten", || node.kept().is_empty());
}

#[test]
fn servers_and_the_keeper_are_killed_and_users_see_a_pause() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mut node = Node::start();
    let first = node.serve(&[]);
    let stop = Stop::default();
    let (named, unnamed) = (node.path("target/named"), node.path("target/unnamed"));
    let last = thread::scope(|scope| {
        let mut server = first;
        let said = stop.at_end();
        let user = scope.spawn(|| {
            let open = |path| OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("it opens");
            let files = [open(&named), open(&unnamed)];
            // Only whoever has it open still knows of it.
            fs::remove_file(&unnamed).expect("it was there");
            let mut rounds = 0_u64;
            while !stop.is_said() {
                for file in &files {
                    file.write_all_at(&rounds.to_le_bytes(), rounds * 8).expect("it is written");
                }
                rounds += 1;
            }
            for file in &files {
                for round in 0..rounds {
                    let mut bytes = [0; 8];
                    file.read_exact_at(&mut bytes, round * 8).expect("it is read");
                    assert_eq!(u64::from_le_bytes(bytes), round);
                }
            }
            rounds
        });
        eventually("the nameless file is held", || node.kept().contains("1 held"));
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(1100));
            kill(server);
            assert!(node.kept().contains("no server for"), "{}", node.kept());
            server = node.serve(&[]);
            node.keeper.kill();
            node.keeper.start_again();
            eventually("the next keeper has everything", || {
                node.kept().starts_with("volume\tserved\t1 held\tfsi.serve ")
            });
        }
        drop(said);
        assert!(user.join().expect("it goes well") > 0);
        server
    });
    assert!(!node.path("source/unnamed").exists());
    end(&node, last);
    let sockets = fs::read_dir(node.path("run/mounts")).expect("a directory").count();
    assert_eq!(sockets, 0, "control sockets");
}

#[test]
fn without_a_server_in_time_users_are_let_go_and_the_bare_directory_never_shows() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let node = Node::start();
    fs::write(node.path("source/file"), "x").expect("a file");
    let server = node.serve(&["--deadline", "1s"]);
    let file = File::open(node.path("target/file")).expect("it opens");
    kill(server);
    eventually("it is let go", || node.kept().is_empty());
    let told = file.metadata().expect_err("nobody serves it");
    assert_eq!(told.kind(), ErrorKind::NotConnected);
    assert_eq!(fs::read_dir(node.path("target")).expect_err("nobody serves it").kind(), ErrorKind::NotConnected);
    assert!(is_mounted(&node.path("target")));
    let refusal = output(&mut node.server(&[]));
    assert!(text(&refusal.stderr).contains("is an fsi mount already"), "{}", text(&refusal.stderr));
    unmount(node.path("target"), UnmountFlags::DETACH).expect("it is there");
    end(&node, node.serve(&[]));
}

#[test]
fn servers_that_are_killed_at_once_with_their_container_cost_no_mount() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let node = Node::start();
    fs::write(node.path("source/file"), "x").expect("a file");
    for _ in 0..8 {
        kill(node.serve(&[]));
    }
    let server = node.serve(&[]);
    assert_eq!(fs::read_to_string(node.path("target/file")).expect("it is served"), "x");
    end(&node, server);
}

#[test]
fn a_server_that_comes_back_has_what_the_next_keeper_lacks() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let mut node = Node::start();
    let server = node.serve(&[]);
    node.keeper.kill();
    // Served all the same, and nobody can take over meanwhile.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(node.path("target/file"));
    let file = file.expect("it opens");
    fs::remove_file(node.path("target/file")).expect("it is there");
    let refusal = output(&mut node.server(&[]));
    assert!(text(&refusal.stderr).contains("the node's keeper at"), "{}", text(&refusal.stderr));
    node.keeper.start_again();
    eventually("it is kept again", || node.kept().starts_with("volume\tserved\t1 held\tfsi.serve "));
    kill(server);
    let server = node.serve(&[]);
    file.write_all_at(b"x", 0).expect("it is written");
    drop(file);
    eventually("nothing is held", || node.kept().starts_with("volume\tserved\t0 held\tfsi.serve "));
    end(&node, server);
}

#[test]
fn what_is_kept_has_one_server_and_a_node_one_keeper() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let node = Node::start();
    let server = node.serve(&[]);
    let second = output(&mut node.server(&[]));
    assert_eq!(text(&second.stderr).trim(), "fsi: the node's keeper says: `volume` has a server");
    let another = output(fsi(["keeper", "--socket"]).arg(node.keeper.socket()));
    assert!(text(&another.stderr).contains("another keeper listens there"), "{}", text(&another.stderr));
    end(&node, server);
}

/// What is over is not begun anew by who was to go on with it.
#[test]
fn who_takes_over_mounts_nothing() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let node = Node::start();
    let refused = output(&mut node.server(&["--take-over"]));
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("`volume`") && said.contains("nothing to take over"), "{said}");
    assert!(!is_mounted(&node.path("target")) && node.kept().is_empty());

    let mut server = node.serve(&[]);
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
    let mut next = node.serve(&["--take-over"]);
    fs::write(node.path("target/file"), "text").expect("it serves");
    unmount(node.path("target"), UnmountFlags::DETACH).expect("it is mounted");
    next.wait().expect("it is ours");
}

/// The kernel gives a request that a server has taken back to nobody, so that who waits for the answer does not even die of SIGKILL.
#[test]
fn a_caller_that_is_killed_ends_while_there_is_no_server() {
    if !has(&[Need::Mounts]) {
        return;
    }
    let node = Node::start();
    let rules = node.path("rules.yaml");
    fs::write(&rules, "version: 1\nrules: [{ name: hangs, match: { ops: [mkdir] }, do: { delay: 1h } }]")
        .expect("a file");
    // One directory takes one new name at a time.
    let mkdirs = ["dies", "lives"].map(|name| {
        fs::create_dir(node.path("source").join(name)).expect("a directory");
        let mut mkdir = Command::new("mkdir");
        mkdir.arg(node.path("target").join(name).join("made"));
        mkdir
    });
    let server = node.serve(&["--rules", rules.to_str().expect("a plain path")]);
    let [mut dies, mut lives] = mkdirs.map(|mut mkdir| mkdir.spawn().expect("it starts"));
    eventually("both are under way", || {
        ["dies/made", "lives/made"].iter().all(|name| node.path("source").join(name).exists())
    });
    // A server that runs would let it go.
    let pid = Pid::from_raw(i32::try_from(server.id()).expect("a pid")).expect("it is not 0");
    kill_process(pid, Signal::STOP).expect("it runs");
    dies.kill().expect("it is ours");
    thread::sleep(Duration::from_millis(300));
    assert!(dies.try_wait().expect("it is ours").is_none(), "it waits for its answer");
    kill(server);
    eventually("it ended", || dies.try_wait().expect("it is ours").is_some());
    assert!(lives.try_wait().expect("it is ours").is_none(), "it waits for the next server");
    let server = node.serve(&[]);
    assert!(lives.try_wait().expect("it is ours").is_none(), "it waits under the same rules");
    lives.kill().expect("it is ours");
    lives.wait().expect("it is ours");
    end(&node, server);
}
