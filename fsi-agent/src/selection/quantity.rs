//! Durations, sizes, sampling rates and operation lists as a person writes them.

use std::num::NonZeroU32;
use std::time::Duration;

use fsi_common::op::OpKind;

/// What is wrong with a quantity, and what would be right. The command line says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("`{0}` is no duration; write a number and a unit (ns, us, ms, s, m, h), for example `1.5ms` or `30s`")]
    Duration(String),
    #[error("`{0}` is longer than a duration can be; write at most `1000000h`")]
    DurationRange(String),
    #[error("`{0}` is no size; write a number and a unit (B, KiB, MiB, GiB, or KB, MB, GB), for example `64KiB`")]
    Size(String),
    #[error("`{0}` is not a size that a ring can have; write a power of two from `4KiB` to `1GiB`, for example `8MiB`")]
    Ring(String),
    #[error("`{0}` is no sampling rate; write `1/N` with N from 1 to 4294967295, for example `1/100`")]
    Sample(String),
    #[error("`{name}` is no operation; the operations are {}", allowed())]
    Operation { name: String },
    #[error("the list of operations is empty; write one or more of {}", allowed())]
    NoOperation,
}

fn allowed() -> String {
    OpKind::ALL.iter().map(|op| op.name()).collect::<Vec<_>>().join(", ")
}

/// Number and unit; the number is not negative.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// `1ms`, `30s`, `1.5us`, `2m`.
///
/// # Errors
/// It is none, has no unit, or is too long.
pub fn duration(text: &str) -> Result<Duration, QuantityError> {
    let malformed = || QuantityError::Duration(text.to_owned());
    let (number, unit) = split(text).ok_or_else(malformed)?;
    let unit_ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return Err(malformed()),
    };
    let seconds = number * unit_ns / 1e9;
    if seconds > 3.6e9 {
        return Err(QuantityError::DurationRange(text.to_owned()));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// `64KiB`, `1MB`, `512`.
///
/// # Errors
/// It is none, or more than a `u64` holds.
pub fn size(text: &str) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Size(text.to_owned());
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok().ok_or_else(malformed)?;
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(malformed()),
    };
    number.checked_mul(factor).ok_or_else(malformed)
}

/// A size that a ring buffer can have.
///
/// # Errors
/// It is no size, no power of two, less than a page or more than the kernel takes.
pub fn ring(text: &str) -> Result<u32, QuantityError> {
    let bytes = size(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) => Ok(bytes),
        Ok(_) | Err(_) => Err(QuantityError::Ring(text.to_owned())),
    }
}

/// `1/N`.
///
/// # Errors
/// It is not of that form.
pub fn sample(text: &str) -> Result<NonZeroU32, QuantityError> {
    let every = text.strip_prefix("1/").and_then(|every| every.parse().ok());
    every.ok_or_else(|| QuantityError::Sample(text.to_owned()))
}

/// Names with commas between them.
///
/// # Errors
/// One is no operation (the message lists all), or there is none.
pub fn operations(text: &str) -> Result<Vec<OpKind>, QuantityError> {
    let mut operations = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let op = OpKind::from_name(name).ok_or_else(|| QuantityError::Operation { name: name.to_owned() })?;
        if !operations.contains(&op) {
            operations.push(op);
        }
    }
    if operations.is_empty() {
        return Err(QuantityError::NoOperation);
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(duration("1.5us"), Ok(Duration::from_nanos(1500)));
        assert_eq!(duration("30 s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "ms", "-1s", "1..2s", "1d", "1e3s", "NaNs", "infs"] {
            assert_eq!(duration(wrong), Err(QuantityError::Duration(wrong.into())), "{wrong}");
        }
        assert!(matches!(duration("99999999999999999999h"), Err(QuantityError::DurationRange(_))));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("512"), Ok(512));
        for wrong in ["", "KiB", "1.5MiB", "-1", "1TiBs", "99999999999GiB"] {
            assert_eq!(size(wrong), Err(QuantityError::Size(wrong.into())), "{wrong}");
        }
        assert_eq!(ring("8MiB"), Ok(8 << 20));
        for wrong in ["0", "1KiB", "5KiB", "2GiB", "8GiB"] {
            assert_eq!(ring(wrong), Err(QuantityError::Ring(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(sample("1/100").map(NonZeroU32::get), Ok(100));
        for wrong in ["", "100", "2/3", "1/0", "1/-1", "1/99999999999"] {
            assert_eq!(sample(wrong), Err(QuantityError::Sample(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn operation_lists() {
        assert_eq!(operations("read, write,read"), Ok(vec![OpKind::Read, OpKind::Write]));
        assert_eq!(operations("getdents"), Ok(vec![OpKind::Readdir]));
        let message = operations("read,reed").unwrap_err().to_string();
        assert!(message.starts_with("`reed` is no operation; the operations are open, close, read,"), "{message}");
        assert_eq!(operations(","), Err(QuantityError::NoOperation));
    }
}
