//! Which operation a call is, by the product's own words: one system call on an object of a file system, or on a path.
//!
//! An object is a regular file, a directory, a symbolic link or a block device. What a descriptor is stands in its
//! annotation: pipes, sockets, anonymous inodes and memory files have none that begins with `/`, or one that says `char`. Named
//! pipes cannot be told from files that way: a program that reads one cannot be compared.

use super::call::{Call, Outcome};

/// How the calls of one operation name their object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    /// By the descriptor in that argument.
    Descriptor(usize),
    /// By a path.
    Path,
    /// By a path relative to the descriptor in the first of two arguments, flags in the second: `AT_EMPTY_PATH` with an empty
    /// path is the descriptor.
    PathAt { directory: usize, path: usize, flags: usize },
    /// The same without flags: no path at all is the descriptor.
    NullableAt { directory: usize, path: usize },
    /// Bytes go from the one to the other; one file is enough.
    Between(usize, usize),
    /// Not an object; counted all the same.
    Any,
    /// Cannot be told from the log.
    Unclear,
}

use Object::{Any, Between, Descriptor, NullableAt, Path, PathAt, Unclear};

/// What bytes a call moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    Nothing,
    Read,
    Written,
    Both,
}

/// A call that is an operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) moves: Moves,
}

/// What a call is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Class {
    Operation(Operation),
    Other,
    /// It may be an operation; the log does not say.
    Unclear,
}

fn table(call: &str) -> Option<(&'static str, Object)> {
    Some(match call {
        "open" | "openat" | "openat2" | "creat" | "open_by_handle_at" => ("open", Path),
        "close" => ("close", Descriptor(0)),
        "read" | "pread64" | "readv" | "preadv" | "preadv2" => ("read", Descriptor(0)),
        "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" => ("write", Descriptor(0)),
        "sendfile" => ("sendfile", Between(1, 0)),
        "copy_file_range" => ("copy_file_range", Between(0, 2)),
        "splice" => ("splice", Between(0, 2)),
        "lseek" => ("lseek", Descriptor(0)),
        "fsync" => ("fsync", Descriptor(0)),
        "fdatasync" => ("fdatasync", Descriptor(0)),
        "sync_file_range" => ("sync_file_range", Descriptor(0)),
        "syncfs" => ("syncfs", Descriptor(0)),
        "stat" | "lstat" => ("stat", Path),
        "fstat" => ("stat", Descriptor(0)),
        "newfstatat" => ("stat", PathAt { directory: 0, path: 1, flags: 3 }),
        "statx" => ("stat", PathAt { directory: 0, path: 1, flags: 2 }),
        "access" | "faccessat" => ("access", Path),
        "faccessat2" => ("access", PathAt { directory: 0, path: 1, flags: 3 }),
        "truncate" => ("truncate", Path),
        "ftruncate" => ("truncate", Descriptor(0)),
        "fallocate" => ("fallocate", Descriptor(0)),
        "unlink" | "unlinkat" => ("unlink", Path),
        "rename" | "renameat" | "renameat2" => ("rename", Path),
        "link" => ("link", Path),
        "linkat" => ("link", PathAt { directory: 0, path: 1, flags: 4 }),
        "symlink" | "symlinkat" => ("symlink", Path),
        "readlink" | "readlinkat" => ("readlink", Path),
        "mkdir" | "mkdirat" => ("mkdir", Path),
        "rmdir" => ("rmdir", Path),
        "mknod" | "mknodat" => ("mknod", Path),
        "getdents" | "getdents64" => ("readdir", Descriptor(0)),
        "chmod" | "fchmodat" => ("chmod", Path),
        "fchmod" => ("chmod", Descriptor(0)),
        "fchmodat2" => ("chmod", PathAt { directory: 0, path: 1, flags: 3 }),
        "chown" | "lchown" => ("chown", Path),
        "fchown" => ("chown", Descriptor(0)),
        "fchownat" => ("chown", PathAt { directory: 0, path: 1, flags: 4 }),
        "utime" | "utimes" => ("utimens", Path),
        "futimesat" => ("utimens", NullableAt { directory: 0, path: 1 }),
        "utimensat" => ("utimens", PathAt { directory: 0, path: 1, flags: 3 }),
        "getxattr" | "lgetxattr" => ("getxattr", Path),
        "fgetxattr" => ("getxattr", Descriptor(0)),
        "setxattr" | "lsetxattr" => ("setxattr", Path),
        "fsetxattr" => ("setxattr", Descriptor(0)),
        "listxattr" | "llistxattr" => ("listxattr", Path),
        "flistxattr" => ("listxattr", Descriptor(0)),
        "removexattr" | "lremovexattr" => ("removexattr", Path),
        "fremovexattr" => ("removexattr", Descriptor(0)),
        "statfs" => ("statfs", Path),
        "fstatfs" => ("statfs", Descriptor(0)),
        "flock" => ("flock", Descriptor(0)),
        "fcntl" => ("lock", Descriptor(0)),
        "mmap" => ("mmap", Descriptor(4)),
        // Which file is mapped there does not stand in the log.
        "msync" => ("msync", Unclear),
        "ioctl" => ("ioctl", Descriptor(0)),
        "chdir" => ("chdir", Path),
        "fchdir" => ("chdir", Descriptor(0)),
        "io_submit" => ("io_submit", Any),
        "io_uring_enter" => ("io_uring_enter", Any),
        _ => return None,
    })
}

/// What a call is.
pub(super) fn classify(call: &Call<'_>) -> Class {
    let Some((name, object)) = table(call.name) else { return Class::Other };
    let argument = |index: usize| call.arguments.get(index).copied().unwrap_or("");
    let is_operation = match object {
        Descriptor(index) => is_file(argument(index)) && is_ours(call.name, &argument),
        Path | Any => true,
        PathAt { directory, path, flags } => match names_its_descriptor(argument(path), argument(flags)) {
            true => is_file(argument(directory)),
            false => true,
        },
        NullableAt { directory, path } => argument(path) != "NULL" || is_file(argument(directory)),
        Between(from, to) => is_file(argument(from)) || is_file(argument(to)),
        Unclear => return Class::Unclear,
    };
    if !is_operation {
        return Class::Other;
    }
    let moves = match object {
        Between(from, to) => match (is_file(argument(from)), is_file(argument(to))) {
            (true, true) => Moves::Both,
            (true, false) => Moves::Read,
            (false, _) => Moves::Written,
        },
        Descriptor(_) if name == "read" => Moves::Read,
        Descriptor(_) if name == "write" => Moves::Written,
        _ => Moves::Nothing,
    };
    let removes_directory = call.name == "unlinkat" && argument(2).contains("AT_REMOVEDIR");
    Class::Operation(Operation { name: if removes_directory { "rmdir" } else { name }, moves })
}

/// fcntl is an operation where it locks, mmap where it maps a file.
fn is_ours<'a>(call: &str, argument: &impl Fn(usize) -> &'a str) -> bool {
    match call {
        "fcntl" => {
            ["F_GETLK", "F_SETLK", "F_SETLKW", "F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW"].contains(&argument(1))
        }
        "mmap" => !argument(3).contains("MAP_ANONYMOUS"),
        _ => true,
    }
}

fn names_its_descriptor(path: &str, flags: &str) -> bool {
    path == "NULL" || (path == "\"\"" && flags.contains("AT_EMPTY_PATH"))
}

/// Whether a descriptor's annotation is that of an object of a file system.
fn is_file(argument: &str) -> bool {
    let Some((number, annotation)) = argument.split_once('<') else {
        // The working directory, where strace could not read it.
        return argument == "AT_FDCWD";
    };
    if number == "AT_FDCWD" {
        return true;
    }
    let is_memory = annotation.starts_with("/memfd:") || annotation.starts_with("/secretmem>(deleted)");
    annotation.starts_with('/') && !is_memory && !annotation.contains("<char ")
}

/// Bytes and direction of a result.
pub(super) fn bytes(operation: &Operation, result: &Outcome<'_>) -> (u64, u64) {
    let Outcome::Value(value, _) = result else { return (0, 0) };
    let moved = u64::try_from(*value).unwrap_or(0);
    match operation.moves {
        Moves::Nothing => (0, 0),
        Moves::Read => (moved, 0),
        Moves::Written => (0, moved),
        Moves::Both => (moved, moved),
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::parse;
    use super::*;

    fn class(line: &str) -> Class {
        classify(&parse(line).expect("a call"))
    }

    fn name(line: &str) -> Option<&'static str> {
        match class(line) {
            Class::Operation(operation) => Some(operation.name),
            Class::Other | Class::Unclear => None,
        }
    }

    #[test]
    fn descriptors_of_files_are_operations_others_are_not() {
        assert_eq!(name("read(3</a>, \"\", 1) = 0"), Some("read"));
        assert_eq!(name("read(0</dev/sda<block 8:0>>, \"\", 1) = 0"), Some("read"));
        for other in
            ["pipe:[12]", "/dev/null<char 1:3>", "anon_inode:[eventpoll]", "/memfd:x (deleted)", "UNIX-STREAM:[1->2]"]
        {
            assert_eq!(name(&format!("read(3<{other}>, \"\", 1) = 0")), None, "{other}");
        }
        assert_eq!(name("close(9) = -1 EBADF (Bad file descriptor)"), None);
    }

    #[test]
    fn paths_are_operations_whatever_they_lead_to() {
        assert_eq!(name("openat(AT_FDCWD</>, \"/dev/null\", O_RDONLY) = 3</dev/null<char 1:3>>"), Some("open"));
        assert_eq!(name("access(\"/x\", R_OK) = -1 ENOENT (No such file or directory)"), Some("access"));
        assert_eq!(name("unlinkat(3</a>, \"b\", AT_REMOVEDIR) = 0"), Some("rmdir"));
        assert_eq!(name("unlinkat(3</a>, \"b\", 0) = 0"), Some("unlink"));
    }

    #[test]
    fn an_empty_path_is_its_descriptor() {
        assert_eq!(name("newfstatat(3</a>, \"\", {}, AT_EMPTY_PATH) = 0"), Some("stat"));
        assert_eq!(name("newfstatat(1<pipe:[1]>, \"\", {}, AT_EMPTY_PATH) = 0"), None);
        assert_eq!(name("utimensat(1<pipe:[1]>, NULL, NULL, 0) = 0"), None);
        assert_eq!(name("newfstatat(1<pipe:[1]>, \"x\", 0x7f, AT_EMPTY_PATH) = -1 ENOTDIR (Not)"), Some("stat"));
    }

    #[test]
    fn locks_and_mappings_only_of_files() {
        assert_eq!(name("fcntl(3</a>, F_SETLK, {l_type=F_RDLCK}) = 0"), Some("lock"));
        assert_eq!(name("fcntl(3</a>, F_GETFL) = 0"), None);
        assert_eq!(name("mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3</a>, 0) = 0x7f"), Some("mmap"));
        assert_eq!(name("mmap(NULL, 1, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f"), None);
        assert_eq!(class("msync(0x7f, 4096, MS_SYNC) = 0"), Class::Unclear);
        assert_eq!(name("dup2(3</a>, 1) = 1</a>"), None);
    }

    #[test]
    fn bytes_go_by_what_is_at_both_ends() {
        let Class::Operation(operation) = class("sendfile(1<pipe:[1]>, 3</a>, NULL, 10) = 10") else {
            panic!("no operation")
        };
        assert_eq!(operation.moves, Moves::Read);
        assert_eq!(bytes(&operation, &Outcome::Value(10, "")), (10, 0));
    }
}
