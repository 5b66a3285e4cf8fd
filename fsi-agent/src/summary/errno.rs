//! What an errno is called, and what it says.

/// Codes that the kernel keeps to itself: the call was interrupted, and restarted or given to the caller as EINTR.
const RESTARTED: std::ops::RangeInclusive<u16> = 512..=516;

macro_rules! names {
    ($($name:ident)*) => {
        /// The symbolic name; the number where there is none.
        pub(super) fn name(errno: u16) -> String {
            if RESTARTED.contains(&errno) {
                return "EINTR".to_owned();
            }
            match i32::from(errno) {
                $(libc::$name => stringify!($name).to_owned(),)*
                other => other.to_string(),
            }
        }
    };
}

names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
    ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENODATA ETIME EREMOTE EPROTO EOVERFLOW EUSERS EOPNOTSUPP ENOTCONN ETIMEDOUT
    ECONNREFUSED ECONNABORTED EHOSTDOWN EALREADY EINPROGRESS ESTALE EUCLEAN EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED
    ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EHWPOISON EBADMSG
}

/// The text of the C library.
pub(super) fn message(errno: u16) -> String {
    if RESTARTED.contains(&errno) {
        return "Interrupted by a signal".to_owned();
    }
    let text = std::io::Error::from_raw_os_error(i32::from(errno)).to_string();
    // The standard library puts the number behind it.
    text.rsplit_once(" (os error").map_or(text.as_str(), |(message, _)| message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_messages() {
        assert_eq!((name(2).as_str(), message(2).as_str()), ("ENOENT", "No such file or directory"));
        assert_eq!((name(95).as_str(), name(61).as_str()), ("EOPNOTSUPP", "ENODATA"));
        assert_eq!((name(513).as_str(), name(4000).as_str()), ("EINTR", "4000"));
    }
}
