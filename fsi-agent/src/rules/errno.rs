//! Errnos by name, as rules write them.

use crate::telemetry::errno;

/// The highest that errno(3) has.
const LAST: u16 = 133;
/// Second names of the same number.
const ALIASES: &[(&str, i32)] =
    &[("ENOTSUP", libc::ENOTSUP), ("EWOULDBLOCK", libc::EWOULDBLOCK), ("EDEADLOCK", libc::EDEADLOCK)];
/// What file systems answer, for sentences.
const COMMON: [&str; 22] = [
    "EIO",
    "ENOSPC",
    "EDQUOT",
    "EACCES",
    "EPERM",
    "ENOENT",
    "EEXIST",
    "EROFS",
    "EBUSY",
    "EINTR",
    "EAGAIN",
    "EINVAL",
    "EFBIG",
    "EMFILE",
    "ENFILE",
    "ENOMEM",
    "ENODEV",
    "ENXIO",
    "ESTALE",
    "ETIMEDOUT",
    "EUCLEAN",
    "ENOTSUP",
];

/// The number of that name.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    let alias = ALIASES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    alias.or_else(|| (1..=LAST).find(|number| is_named(*number, name)).map(i32::from))
}

fn is_named(number: u16, name: &str) -> bool {
    name.starts_with('E') && errno::name(number) == name
}

/// The name of that number, or the number.
#[must_use]
pub fn name(number: i32) -> String {
    u16::try_from(number).map_or_else(|_| number.to_string(), |number| errno::name(number).into_owned())
}

/// The names that are most often meant.
#[must_use]
pub fn common() -> &'static [&'static str] {
    &COMMON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for known in common() {
            assert!(number(known).is_some(), "{known}");
        }
        assert_eq!(number("EIO"), Some(libc::EIO));
        assert_eq!(name(libc::EDQUOT), "EDQUOT");
        for wrong in ["", "eio", "EI0", "5", "ERESTARTSYS", "EBADHANDLE"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
