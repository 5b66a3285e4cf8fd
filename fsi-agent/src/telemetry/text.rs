//! The kernel's numbers as people write them: devices, file types, open flags.

use std::borrow::Cow;

/// `major:minor` of a device as the kernel has it.
#[must_use]
pub fn device(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

/// What kind of file `i_mode` says it is.
#[must_use]
pub fn file_type(mode: u16) -> &'static str {
    match u32::from(mode) & libc::S_IFMT {
        libc::S_IFREG => "regular",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "symlink",
        libc::S_IFBLK => "block",
        libc::S_IFCHR => "character",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        _ => "other",
    }
}

/// Flags that are several bits come before those they contain.
const OPEN_FLAGS: [(i32, &str); 16] = [
    (libc::O_CREAT, "O_CREAT"),
    (libc::O_EXCL, "O_EXCL"),
    (libc::O_NOCTTY, "O_NOCTTY"),
    (libc::O_TRUNC, "O_TRUNC"),
    (libc::O_APPEND, "O_APPEND"),
    (libc::O_NONBLOCK, "O_NONBLOCK"),
    (libc::O_SYNC, "O_SYNC"),
    (libc::O_DSYNC, "O_DSYNC"),
    (libc::O_ASYNC, "O_ASYNC"),
    (libc::O_DIRECT, "O_DIRECT"),
    // What the kernel sets on 64-bit processes; libc's own O_LARGEFILE is 0 there.
    (0o100_000, "O_LARGEFILE"),
    (libc::O_TMPFILE, "O_TMPFILE"),
    (libc::O_DIRECTORY, "O_DIRECTORY"),
    (libc::O_NOFOLLOW, "O_NOFOLLOW"),
    (libc::O_NOATIME, "O_NOATIME"),
    (libc::O_CLOEXEC, "O_CLOEXEC"),
];

/// `O_RDWR|O_CREAT|...`; bits without a name stand at the end as a number.
#[must_use]
pub fn open_flags(flags: u32) -> Cow<'static, str> {
    let bits = flags.cast_signed();
    let access = match bits & libc::O_ACCMODE {
        _ if bits & libc::O_PATH != 0 => "O_PATH",
        libc::O_RDONLY => "O_RDONLY",
        libc::O_WRONLY => "O_WRONLY",
        libc::O_RDWR => "O_RDWR",
        _ => "O_ACCMODE",
    };
    let mut rest = bits & !(libc::O_ACCMODE | libc::O_PATH);
    if rest == 0 {
        return Cow::Borrowed(access);
    }
    let mut text = access.to_owned();
    for (flag, name) in OPEN_FLAGS {
        if rest & flag == flag {
            text.push('|');
            text.push_str(name);
            rest &= !flag;
        }
    }
    if rest != 0 {
        text.push_str(&format!("|{rest:#x}"));
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        assert_eq!((device(8 << 20 | 1), device(259 << 20 | 0xf_ffff)), ("8:1".into(), "259:1048575".into()));
        assert_eq!((file_type(0o100_644), file_type(0o040_755), file_type(0)), ("regular", "directory", "other"));
        let flags = |bits: i32| open_flags(bits.cast_unsigned());
        assert_eq!(flags(libc::O_RDONLY), "O_RDONLY");
        assert_eq!(flags(libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC), "O_WRONLY|O_CREAT|O_TRUNC");
        assert_eq!(flags(libc::O_RDWR | libc::O_SYNC), "O_RDWR|O_SYNC");
        assert_eq!(flags(libc::O_RDWR | libc::O_TMPFILE), "O_RDWR|O_TMPFILE");
        assert_eq!(flags(libc::O_PATH | libc::O_CLOEXEC), "O_PATH|O_CLOEXEC");
        assert_eq!(flags(0x4000_0000), "O_RDONLY|0x40000000");
    }
}
