//! Named devices: what they limit, and how long they take. Where each figure is from: docs/PROFILES.md.

use std::time::Duration;

use thiserror::Error;

use super::spec::{Scope, ThrottleSpec};

const MIB: u64 = 1 << 20;
const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Requests up to this size count as one operation on a volume of solid state disks.
const EBS_OPERATION_BYTES: u64 = 256 << 10;
/// What a `gp2` volume may save up.
const GP2_CREDITS: u64 = 5_400_000;
/// Size of a volume when none is given.
const DEFAULT_GIB: u64 = 100;
/// Limits without a credit of their own are held over this time.
const SMOOTHING: Duration = Duration::from_millis(10);

/// Every name a profile can have; those whose limits depend on a size take one: `gp2:500GiB`.
pub const NAMES: [&str; 6] = ["gp2", "gp3", "io2", "hdd-7200", "sd-card", "nfs-wan"];

/// Why there is no such profile.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProfileError {
    #[error("unknown profile `{name}`; allowed: {}", NAMES.join(", "))]
    Unknown { name: String },
    #[error("profile `{name}` has no size; only gp2 and io2 have one")]
    NoSize { name: String },
    #[error("`{size}` is no size of a `{name}` volume; give whole GiB from {least} to {most}, like {name}:500GiB")]
    Size { name: String, size: String, least: u64, most: u64 },
}

/// What is delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceOp {
    Read,
    Write,
    Fsync,
}

/// How long an operation takes: four points of the distribution, straight lines between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub least_ns: u64,
    pub median_ns: u64,
    pub p99_ns: u64,
    pub most_ns: u64,
}

impl Latency {
    const fn new(least_ns: u64, median_ns: u64, p99_ns: u64, most_ns: u64) -> Self {
        Self { least_ns, median_ns, p99_ns, most_ns }
    }

    /// The latency at a uniformly drawn number.
    #[must_use]
    pub fn at(&self, draw: u64) -> u64 {
        const HALF: u64 = u64::MAX / 2;
        const P99: u64 = u64::MAX / 100 * 99;
        let between = |from: u64, to: u64, start: u64, end: u64| {
            let (span, part) = (u128::from(to.saturating_sub(from)), u128::from(draw - start));
            from + u64::try_from(span * part / u128::from(end - start)).unwrap_or(0)
        };
        match draw {
            0..HALF => between(self.least_ns, self.median_ns, 0, HALF),
            HALF..P99 => between(self.median_ns, self.p99_ns, HALF, P99),
            P99.. => between(self.p99_ns, self.most_ns, P99, u64::MAX),
        }
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    pub throttle: Vec<ThrottleSpec>,
    pub read: Latency,
    pub write: Latency,
    pub fsync: Latency,
}

impl Profile {
    /// The profile of that name, with a size after a colon where the device has one.
    ///
    /// # Errors
    /// When the name is not one of [`NAMES`], or the size not one the device can have.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let (name, size) = text.split_once(':').map_or((text, None), |(name, size)| (name, Some(size)));
        let sized = |least: u64, most: u64| match size {
            None => Ok(DEFAULT_GIB),
            Some(size) => size
                .strip_suffix("GiB")
                .and_then(|gib| gib.parse().ok())
                .filter(|gib| (least..=most).contains(gib))
                .ok_or_else(|| ProfileError::Size { name: name.to_owned(), size: size.to_owned(), least, most }),
        };
        let profile = match name {
            "gp2" => return Ok(gp2(sized(1, 16_384)?)),
            "io2" => return Ok(io2(sized(4, 65_536)?)),
            "gp3" => gp3(),
            "hdd-7200" => hdd_7200(),
            "sd-card" => sd_card(),
            "nfs-wan" => nfs_wan(),
            _ => return Err(ProfileError::Unknown { name: name.to_owned() }),
        };
        match size {
            None => Ok(profile),
            Some(_) => Err(ProfileError::NoSize { name: name.to_owned() }),
        }
    }

    /// How long an operation takes on the device, for a uniformly drawn number; the same number gives the same time.
    #[must_use]
    pub fn latency_ns(&self, op: DeviceOp, draw: u64) -> u64 {
        match op {
            DeviceOp::Read => self.read.at(draw),
            DeviceOp::Write => self.write.at(draw),
            DeviceOp::Fsync => self.fsync.at(draw),
        }
    }
}

/// A limit on reads and writes together.
fn total(bytes_per_s: Option<u64>, iops: Option<u64>, burst: Duration) -> ThrottleSpec {
    ThrottleSpec {
        total_bytes_per_s: bytes_per_s,
        total_iops: iops,
        bytes_per_operation: Some(EBS_OPERATION_BYTES),
        burst,
        ..ThrottleSpec::unlimited(Scope::Volume)
    }
}

/// "Single-digit millisecond".
const SINGLE_DIGIT: Latency = Latency::new(500 * US, MS, 5 * MS, 9 * MS);

fn gp2(gib: u64) -> Profile {
    let baseline = (3 * gib).clamp(100, 16_000);
    let bandwidth = if gib <= 170 { 128 * MIB } else { 250 * MIB };
    let mut throttle = vec![total(Some(bandwidth), Some(baseline.max(3_000)), SMOOTHING)];
    if baseline < 3_000 {
        let full = Duration::from_nanos(GP2_CREDITS * 1_000_000_000 / baseline);
        throttle.push(total(None, Some(baseline), full));
    }
    Profile { name: "gp2", throttle, read: SINGLE_DIGIT, write: SINGLE_DIGIT, fsync: SINGLE_DIGIT }
}

fn gp3() -> Profile {
    let throttle = vec![total(Some(125 * MIB), Some(3_000), SMOOTHING)];
    Profile { name: "gp3", throttle, read: SINGLE_DIGIT, write: SINGLE_DIGIT, fsync: SINGLE_DIGIT }
}

fn io2(gib: u64) -> Profile {
    let iops = (1_000 * gib).min(256_000);
    // 0.256 MiB/s for each operation per second, up to 4,000 MiB/s.
    let bandwidth = (iops * MIB / 1_000 * 256).min(4_000 * MIB);
    let latency = Latency::new(200 * US, 400 * US, 800 * US, MS);
    let throttle = vec![total(Some(bandwidth), Some(iops), SMOOTHING)];
    Profile { name: "io2", throttle, read: latency, write: latency, fsync: latency }
}

fn hdd_7200() -> Profile {
    // A seek and, on average, half a turn: the throttle holds one arm's pace, the latency its spread.
    let read = Latency::new(230 * US, 11_560 * US, 18_330 * US, 18_330 * US);
    let write = Latency::new(320 * US, 12_360 * US, 19_330 * US, 19_330 * US);
    let throttle = vec![ThrottleSpec { bytes_per_operation: None, ..total(Some(64_800_000), Some(86), SMOOTHING) }];
    Profile { name: "hdd-7200", throttle, read, write, fsync: write }
}

fn sd_card() -> Profile {
    let throttle = vec![ThrottleSpec {
        total_bytes_per_s: Some(10_000_000),
        read_iops: Some(1_500),
        write_iops: Some(500),
        burst: SMOOTHING,
        ..ThrottleSpec::unlimited(Scope::Volume)
    }];
    let read = Latency::new(300 * US, 667 * US, 5 * MS, 100 * MS);
    let write = Latency::new(500 * US, 2 * MS, 50 * MS, 250 * MS);
    Profile { name: "sd-card", throttle, read, write, fsync: write }
}

fn nfs_wan() -> Profile {
    let throttle = vec![ThrottleSpec {
        read_bytes_per_s: Some(12_500_000),
        write_bytes_per_s: Some(12_500_000),
        burst: SMOOTHING,
        ..ThrottleSpec::unlimited(Scope::Volume)
    }];
    let round_trip = Latency::new(10 * MS, 50 * MS, 90 * MS, 90 * MS);
    Profile { name: "nfs-wan", throttle, read: round_trip, write: round_trip, fsync: round_trip }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::{Admission, Direction, Lane, Throttle};

    #[test]
    fn every_name_is_known_and_aliases_are_refused_with_the_names() {
        for name in NAMES {
            let profile = Profile::parse(name).unwrap();
            assert_eq!(profile.name, name);
            for op in [DeviceOp::Read, DeviceOp::Write, DeviceOp::Fsync] {
                let at = |draw| profile.latency_ns(op, draw);
                let times: Vec<u64> = (0..=1000).map(|step| at(u64::MAX / 1000 * step)).collect();
                assert!(times[0] > 0 && times.is_sorted(), "{name}: {times:?}");
            }
        }
        for name in ["ebs-gp2", "GP2", "hdd", "", "none", "gp2 "] {
            let error = Profile::parse(name).unwrap_err().to_string();
            assert!(NAMES.iter().all(|name| error.contains(name)), "{error}");
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert!(matches!(Profile::parse("gp3:5GiB"), Err(ProfileError::NoSize { .. })));
        for size in ["gp2:", "gp2:0GiB", "gp2:500", "gp2:16385GiB", "io2:3GiB", "gp2:-1GiB"] {
            assert!(matches!(Profile::parse(size), Err(ProfileError::Size { .. })), "{size}");
        }
    }

    #[test]
    fn the_latency_goes_through_its_points() {
        let latency = Latency::new(1, 1_000, 5_000, 9_000);
        assert_eq!(
            [0, u64::MAX / 2, u64::MAX / 100 * 99, u64::MAX].map(|draw| latency.at(draw)),
            [1, 1_000, 5_000, 9_000]
        );
    }

    /// 3,000 operations a second until the credits are gone, then the baseline.
    #[test]
    fn gp2_spends_its_credits() {
        // Requests of sixteen operations each, to get there sooner; the bandwidth would hold them up.
        let mut specs = Profile::parse("gp2:100GiB").unwrap().throttle;
        specs[0].total_bytes_per_s = None;
        let mut throttle = Throttle::new(&specs, None, 0);
        let lane = Lane { flow: 1, file: 1, pod: 0, direction: Direction::Read };
        let (mut now, mut passed, mut released, mut ticket) = (0, Vec::new(), Vec::new(), 0_u64);
        while now < 2_400_000_000_000 {
            ticket += 1;
            if throttle.submit(now, ticket, lane, 4 << 20, false) == Admission::Wait {
                while released.is_empty() {
                    if let Some(next) = throttle.advance(now, &mut released) {
                        now = next;
                    }
                }
                released.clear();
            }
            passed.push(now);
        }
        let within = |from: u64, to: u64| {
            passed.partition_point(|at| *at < to * 1_000_000_000)
                - passed.partition_point(|at| *at < from * 1_000_000_000)
        };
        // 5.4 million credits, refilled by 300 a second while 3,000 are spent: 2,000 seconds.
        assert!((2_990..=3_010).contains(&(within(1_000, 1_010) * 16 / 10)), "{}", within(1_000, 1_010));
        assert!((299..=301).contains(&(within(2_100, 2_200) * 16 / 100)), "{}", within(2_100, 2_200));
    }
}
