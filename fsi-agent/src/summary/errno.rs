//! What an errno is called, and what it says.

use std::borrow::Cow;

use crate::telemetry::errno;

/// Codes that the kernel keeps to itself: the call was interrupted, and restarted or given to the caller as EINTR.
const RESTARTED: std::ops::RangeInclusive<u16> = 512..=516;

/// The name, the same as in metrics and spans.
pub(super) fn name(errno: u16) -> Cow<'static, str> {
    errno::name(errno)
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
        assert_eq!((name(2).as_ref(), message(2).as_str()), ("ENOENT", "No such file or directory"));
        assert_eq!(message(513), "Interrupted by a signal");
    }
}
