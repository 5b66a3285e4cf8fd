//! What FSI counts is what strace sees, to the last call: operations, errnos, bytes.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::path::Path;
use std::process::Command;

use fsi_tests::fidelity::{compare, python};
use fsi_tests::fsi::{load, succeed};
use fsi_tests::need::{Need, has};
use tempfile::{TempDir, tempdir};

const NEEDS: [Need<'_>; 2] = [Need::Probes, Need::Program("strace")];

/// A directory with a tree of small files, links and a larger file.
fn tree() -> TempDir {
    let directory = tempdir().expect("a directory");
    shell(
        directory.path(),
        "mkdir -p tree/a/b tree/c && for i in $(seq 30); do seq $i 400 >tree/a/f$i; done
         ln -s ../a/f1 tree/c/link && ln tree/a/f2 tree/a/b/hard && : >tree/c/empty
         head -c 300000 /dev/zero >tree/c/large",
    );
    directory
}

fn shell(directory: &Path, script: &str) {
    succeed(Command::new("sh").args(["-ec", script]).current_dir(directory));
}

#[test]
fn git_clone_and_gc() {
    if !has(&NEEDS) || !has(&[Need::Program("git")]) {
        return;
    }
    let directory = tree();
    shell(
        directory.path(),
        "cd tree && git init -q . && git config user.email a@b && git config user.name a
         for i in 1 2 3; do echo $i >n; git add -A; git commit -qm $i; done",
    );
    compare(directory.path(), &["sh", "-ec", "git clone -q --no-local tree copy; git -C copy gc -q"]);
}

#[test]
fn tar() {
    if !has(&NEEDS) {
        return;
    }
    let directory = tree();
    compare(directory.path(), &["sh", "-ec", "tar czf t.tgz tree; mkdir out; tar xzf t.tgz -C out"]);
}

#[test]
fn sqlite_load() {
    if !has(&NEEDS) {
        return;
    }
    let script = "
import sqlite3
db = sqlite3.connect('load.db')
db.execute('create table t(i integer primary key, s text)')
for base in range(0, 1000, 100):
    with db:
        db.executemany('insert into t values(?, ?)', ((i, 'x' * (i % 700)) for i in range(base, base + 100)))
assert db.execute('select count(*) from t').fetchone() == (1000,)
db.execute('delete from t where i % 3 = 0'); db.commit(); db.execute('vacuum'); db.close()
";
    compare(tempdir().expect("a directory").path(), &[&python(), "-c", script]);
}

#[test]
fn python_imports() {
    if !has(&NEEDS) {
        return;
    }
    let script = "import json, ssl, asyncio, sqlite3, email, http.client, unittest";
    compare(tempdir().expect("a directory").path(), &[&python(), "-c", script]);
}

#[test]
fn dd() {
    if !has(&NEEDS) {
        return;
    }
    let script = "dd if=/dev/zero of=plain bs=4k count=300; dd if=plain of=copy bs=1000 conv=fsync
                  dd if=/dev/zero of=direct bs=64k count=8 oflag=direct; dd if=direct of=/dev/null bs=64k iflag=direct";
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    compare(directory.path(), &["sh", "-ec", script]);
}

#[test]
fn cp_recursive() {
    if !has(&NEEDS) {
        return;
    }
    compare(tree().path(), &["cp", "-r", "-p", "tree", "copy"]);
}

#[test]
fn find() {
    if !has(&NEEDS) {
        return;
    }
    compare(tree().path(), &["find", "tree", "-type", "f", "-size", "+1k", "-printf", "%p %l %s\n"]);
}

#[test]
fn rm_recursive() {
    if !has(&NEEDS) {
        return;
    }
    compare(tree().path(), &["rm", "-r", "tree"]);
}

#[test]
fn fifty_threads_that_write() {
    if !has(&NEEDS) {
        return;
    }
    let program = load();
    let program = program.to_str().expect("a plain path");
    compare(tempdir().expect("a directory").path(), &[program, "threads", ".", "50", "40"]);
}

#[test]
fn a_storm_of_forks() {
    if !has(&NEEDS) {
        return;
    }
    let program = load();
    compare(tempdir().expect("a directory").path(), &[program.to_str().expect("a plain path"), "forks", "150"]);
}

#[test]
fn pipes_sockets_and_devices_are_no_files() {
    if !has(&NEEDS) {
        return;
    }
    let script = "
import os, socket, select
r, w = os.pipe(); os.write(w, b'x' * 10); os.read(r, 10)
a, b = socket.socketpair(); a.send(b'x'); b.recv(1); os.write(a.fileno(), b'y'); os.read(b.fileno(), 1)
m = os.memfd_create('m'); os.write(m, b'x'); os.lseek(m, 0, 0); os.fstat(m); os.ftruncate(m, 7)
e = os.eventfd(0); os.write(e, (1).to_bytes(8, 'little')); os.read(e, 8)
n = os.open('/dev/null', os.O_RDWR); os.write(n, b'x'); os.read(n, 1); os.fstat(n); os.close(n)
f = os.open('f', os.O_RDWR | os.O_CREAT); os.write(f, b'0123456789'); os.lseek(f, 0, 0)
os.sendfile(w, f, 0, 4); os.read(r, 4); os.splice(f, w, 5, 0); os.splice(r, f, 3, None, 2)
g = os.open('g', os.O_RDWR | os.O_CREAT); os.copy_file_range(f, g, 6, 0); os.sendfile(g, f, 0, 5)
os.mkfifo('p')
s = socket.socket(socket.AF_UNIX); s.bind('s'); os.stat('s'); os.fstat(s.fileno()); s.close(); os.stat('p')
";
    compare(tempdir().expect("a directory").path(), &[&python(), "-c", script]);
}

#[test]
fn every_call_in_every_form() {
    if !has(&NEEDS) {
        return;
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/every_call.py");
    let program = ["sh", "-c", "\"$0\" -S \"$1\" 2>/dev/null; true", &python(), program];
    compare(tempdir().expect("a directory").path(), &program);
}
