//! Names of errno values, for `error.type` and the label `errno`.
//!
//! The numbers come from libc, for the architecture this is built for; those above 511 are the kernel's own and reach user space only
//! through tracing.

use std::borrow::Cow;

/// One list of names; the numbers are libc's.
macro_rules! errno_names {
    ($($name:ident)*) => {
        const fn known(errno: i32) -> Option<&'static str> {
            match errno {
                $(libc::$name => Some(stringify!($name)),)*
                // include/linux/errno.h: the system call was interrupted; the kernel restarts it or gives EINTR.
                512 => Some("ERESTARTSYS"),
                513 => Some("ERESTARTNOINTR"),
                514 => Some("ERESTARTNOHAND"),
                515 => Some("ENOIOCTLCMD"),
                516 => Some("ERESTART_RESTARTBLOCK"),
                // FUSE and NFS servers answer with these.
                521 => Some("EBADHANDLE"),
                524 => Some("ENOTSUPP"),
                _ => None,
            }
        }
    };
}

errno_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY
    EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK
    EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT
    EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME
    ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ
    EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN
    ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE
    EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED
    EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
}

/// The name of an errno, or its number when it has none.
#[must_use]
pub fn name(errno: u16) -> Cow<'static, str> {
    known(i32::from(errno)).map_or_else(|| Cow::Owned(errno.to_string()), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (errno, expected) in [
            (2, "ENOENT"),
            (5, "EIO"),
            (28, "ENOSPC"),
            (11, "EAGAIN"),
            (122, "EDQUOT"),
            (512, "ERESTARTSYS"),
            (999, "999"),
        ] {
            assert_eq!(name(errno), expected);
        }
    }

    #[test]
    fn every_errno_of_this_architecture_has_a_name() {
        for errno in (1..=133).filter(|errno| ![41, 58].contains(errno)) {
            assert!(known(errno).is_some(), "{errno}");
        }
    }
}
