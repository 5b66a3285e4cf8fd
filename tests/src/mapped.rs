//! Shared mappings of an open file, made by another process: this crate has no unsafe code, and a mapping takes some.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::fidelity::python;
use crate::fsi::succeed;

/// `stdin` is the file that is mapped: the very descriptor, not the file opened once more.
const READ: &str = "import mmap, sys
at, length = int(sys.argv[1]), int(sys.argv[2])
with mmap.mmap(0, 0, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
    sys.stdout.buffer.write(memory[at:at + length])";

const WRITE: &str = "import mmap, sys
at, text = int(sys.argv[1]), sys.argv[2].encode()
with mmap.mmap(0, 0) as memory:
    memory[at:at + len(text)] = text";

fn run(script: &str, file: &File, arguments: [String; 2]) -> Vec<u8> {
    let file = file.try_clone().expect("a descriptor more");
    let mut command = Command::new(python());
    succeed(command.args(["-c", script]).args(arguments).stdin(Stdio::from(file))).stdout
}

/// Bytes read from a new mapping of all of the file.
#[must_use]
pub fn read(file: &File, at: u64, length: usize) -> Vec<u8> {
    run(READ, file, [at.to_string(), length.to_string()])
}

/// Writes through a new mapping, which is gone when this returns; nothing is synced.
pub fn write(file: &File, at: u64, text: &str) {
    run(WRITE, file, [at.to_string(), text.to_owned()]);
}
