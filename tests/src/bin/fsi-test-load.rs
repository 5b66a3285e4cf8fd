//! Loads that the tests observe: many threads, many processes, many operations. What it does is counted by others, so it
//! does each thing exactly as often as it is told, and nothing else to files.
#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a load that cannot be made fails the test")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

const USAGE: &str =
    "fsi-test-load threads DIR THREADS WRITES | forks COUNT | reads FILE COUNT | served FILE | serve [--layout]";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["threads", directory, threads, writes] => {
            write_in_threads(Path::new(directory), number(threads), number(writes))
        }
        ["forks", count] => forks(number(count)),
        ["reads", file, count] => reads(Path::new(file), number(count)),
        ["served", file] => served(Path::new(file)),
        ["serve", ref options @ ..] => serve(options),
        _ => panic!("{USAGE}"),
    }
}

/// What a mount is told to upgrade to. With `--layout` it says what the file beside it says; without that file, or without the
/// option, it hangs.
fn serve(options: &[&str]) {
    let own = std::env::current_exe().expect("it has a path");
    match std::fs::read(own.with_extension("layout")) {
        Ok(layout) if options == ["--layout"] => std::io::stdout().write_all(&layout).expect("somebody listens"),
        Ok(_) | Err(_) => loop {
            thread::park();
        },
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Every thread writes and syncs a file of its own and appends to one that all share.
fn write_in_threads(directory: &Path, threads: usize, writes: usize) {
    let shared = directory.join("shared");
    let begin = |thread: usize| -> (PathBuf, PathBuf) { (directory.join(format!("file-{thread}")), shared.clone()) };
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            let (own, shared) = begin(thread);
            thread::spawn(move || write_one(&own, &shared, writes))
        })
        .collect();
    for handle in handles {
        handle.join().expect("the writer ends well");
    }
}

fn write_one(own: &Path, shared: &Path, writes: usize) {
    let mut own = File::create(own).expect("create");
    let mut shared = OpenOptions::new().append(true).create(true).open(shared).expect("open");
    for round in 0..writes {
        let block = vec![b'x'; 1 + round * 37 % 5000];
        own.write_all(&block).expect("write");
        shared.write_all(&block[..block.len().min(100)]).expect("append");
    }
    own.sync_data().expect("sync");
}

/// So many processes, eight at a time.
fn forks(count: usize) {
    let mut left = count;
    while left > 0 {
        let batch = left.min(8);
        let children: Vec<_> = (0..batch).map(|_| Command::new("true").spawn().expect("start true")).collect();
        for mut child in children {
            assert!(child.wait().expect("wait").success(), "true succeeds");
        }
        left -= batch;
    }
}

/// So many reads of one byte from an open file.
fn reads(file: &Path, count: usize) {
    let file = File::open(file).expect("open");
    let mut byte = [0];
    for _ in 0..count {
        file.read_exact_at(&mut byte, 0).expect("read");
    }
}

/// For each line on stdin: a read by a thread that was there before, one by a new thread, one by a child process. Says when
/// it is ready and when it is done, by a line on stdout each.
fn served(file: &Path) {
    let open = File::open(file).expect("open");
    let (order, orders) = std::sync::mpsc::sync_channel::<()>(0);
    let (done, is_done) = std::sync::mpsc::sync_channel::<()>(0);
    let old = open.try_clone().expect("dup");
    let worker = thread::spawn(move || {
        for () in orders {
            old.read_exact_at(&mut [0], 0).expect("read");
            done.send(()).expect("the main thread waits");
        }
    });
    println_now("ready");
    let mut line = [0];
    while std::io::stdin().read(&mut line).expect("stdin") == 1 {
        order.send(()).expect("the worker waits");
        is_done.recv().expect("the worker answers");
        let new = open.try_clone().expect("dup");
        thread::spawn(move || new.read_exact_at(&mut [0], 0).expect("read")).join().expect("the thread ends well");
        assert!(Command::new("cat").arg(file).stdout(std::process::Stdio::null()).status().expect("cat").success());
        println_now("done");
    }
    drop(order);
    worker.join().expect("the worker ends well");
}

#[expect(clippy::print_stdout, reason = "the line is the answer")]
fn println_now(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("stdout");
}
