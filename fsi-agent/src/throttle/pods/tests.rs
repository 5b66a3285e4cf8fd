//! However many servers take, a pod gets each limit once.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::throttle::{Admission, Lane, Throttle};

const SECOND: u64 = 1_000_000_000;

fn limit(write_bytes_per_s: u64, burst: Duration) -> ThrottleSpec {
    ThrottleSpec { write_bytes_per_s: Some(write_bytes_per_s), burst, ..ThrottleSpec::unlimited(Scope::Pod) }
}

fn server(specs: &[ThrottleSpec], table: &Arc<Table>) -> Throttle {
    Throttle::new(specs, Pods::of(specs, table), 0)
}

const fn lane(pod: u64, flow: u64) -> Lane {
    Lane { flow, file: 1, pod, direction: Direction::Write }
}

/// Two servers with waiting writers each, woken in turn at the times they ask for; gives what passed, as (when, server, bytes).
fn race(servers: &mut [Throttle], pods: &[u64], bytes: &[u64], until_ns: u64) -> Vec<(u64, usize, u64)> {
    let mut passed = Vec::new();
    let mut wakes = vec![0; servers.len()];
    let mut waits = vec![false; servers.len()];
    let mut ticket = 0;
    // Whoever wakes at the same time is looked at in another order each time.
    for round in 0.. {
        let now = *wakes.iter().min().unwrap();
        if now > until_ns {
            break;
        }
        for step in 0..servers.len() {
            let index = (step + round) % servers.len();
            if wakes[index] > now {
                continue;
            }
            let server = &mut servers[index];
            let mut released = Vec::new();
            let mut next = server.advance(now, &mut released);
            if !released.is_empty() {
                passed.push((now, index, bytes[index]));
                waits[index] = false;
            }
            while !waits[index] {
                ticket += 1;
                match server.submit(now, ticket, lane(pods[index], 1), bytes[index], false) {
                    Admission::Now => passed.push((now, index, bytes[index])),
                    Admission::Wait => {
                        waits[index] = true;
                        next = server.advance(now, &mut released);
                    }
                    Admission::Again => unreachable!("nobody asked for it"),
                }
            }
            wakes[index] = next.expect("one waits").max(now + 1);
        }
    }
    passed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn all_servers_together_let_a_pod_have_its_limit_once(
        rate in 1_000_u64..50_000_000,
        burst_ms in 1_u64..2_000,
        sizes in prop::array::uniform3(1_u64..300_000),
    ) {
        let table = Arc::new(Table::private().unwrap());
        let specs = [limit(rate, Duration::from_millis(burst_ms))];
        let mut servers = [(); 3].map(|()| server(&specs, &table));
        let largest = *sizes.iter().max().unwrap();
        let time = u64::try_from(u128::from(largest) * 40 * NS / u128::from(rate)).unwrap();
        let passed = race(&mut servers, &[9; 3], &sizes, time);
        let mut sum = 0;
        for (at, _, bytes) in &passed {
            sum += u128::from(*bytes);
            let saved = u128::from(rate) * u128::from(at + burst_ms * 1_000_000) / NS;
            prop_assert!(sum <= saved + u128::from(largest) + 1, "{sum} by {at}, {saved} was there");
        }
        let least = u128::from(rate) * u128::from(time) / NS;
        prop_assert!(sum + 4 * u128::from(largest) >= least, "the limit is used: {sum} of {least}");
    }
}

#[test]
fn servers_take_turns() {
    let table = Arc::new(Table::private().unwrap());
    let specs = [limit(1_000_000, Duration::from_millis(1))];
    let mut servers = [(); 2].map(|()| server(&specs, &table));
    let passed = race(&mut servers, &[9; 2], &[4096; 2], 10 * SECOND);
    let [one, other] = [0, 1].map(|server| passed.iter().filter(|(_, of, _)| *of == server).count());
    assert!(one > 1_000 && one.abs_diff(other) * 5 < one, "{one} and {other}");
}

#[test]
fn other_pods_and_other_limits_have_buckets_of_their_own() {
    let table = Arc::new(Table::private().unwrap());
    let (slow, fast) = ([limit(1_000, Duration::from_secs(1))], [limit(2_000, Duration::from_secs(1))]);
    let [mut one, mut same, mut other] = [&slow, &slow, &fast].map(|specs| server(specs, &table));
    let mut ticket = 0;
    let mut pass = |server: &mut Throttle, pod| {
        ticket += 1;
        server.submit(0, ticket, lane(pod, ticket), 5_000, false)
    };
    assert_eq!(pass(&mut one, 9), Admission::Now);
    assert_eq!(pass(&mut same, 9), Admission::Wait, "the pod has had it");
    assert_eq!(pass(&mut same, 10), Admission::Now, "one that waits holds up no other pod");
    assert_eq!(pass(&mut other, 9), Admission::Now, "this volume says another limit");
    assert_eq!(pass(&mut other, 9), Admission::Wait);
}

#[test]
fn a_limit_that_is_stated_twice_counts_once() {
    let table = Arc::new(Table::private().unwrap());
    let specs = [limit(1_000, Duration::from_secs(9)), limit(1_000, Duration::from_secs(2))];
    let mut server = server(&specs, &table);
    for (ticket, expected) in [(1, Admission::Now), (2, Admission::Now), (3, Admission::Wait)] {
        assert_eq!(server.submit(0, ticket, lane(9, 1), 1_000, false), expected);
    }
}

/// What was not moved is given back, to all.
#[test]
fn what_was_given_back_is_there_for_others() {
    let table = Arc::new(Table::private().unwrap());
    let specs = [limit(1_000, Duration::from_secs(1))];
    let [mut one, mut other] = [(); 2].map(|()| server(&specs, &table));
    assert_eq!(one.submit(0, 1, lane(9, 1), 100_000, false), Admission::Now);
    one.give_back(lane(9, 1), 99_500, 0);
    assert_eq!(other.submit(0, 1, lane(9, 1), 1, false), Admission::Now);
}

/// Rates that take no whole number of nanoseconds are kept all the same.
#[test]
fn parts_of_nanoseconds_are_owed() {
    let table = Arc::new(Table::private().unwrap());
    let rate = 7_000_000_000;
    let mut server = server(&[limit(rate, Duration::from_millis(1))], &table);
    let mut passed = 0;
    for ticket in 0.. {
        match server.submit(SECOND, ticket, lane(9, 1), 10, false) {
            Admission::Now => passed += 10,
            _ => break,
        }
    }
    assert!((6_999_000..=7_000_100).contains(&passed), "{passed} of a millisecond's worth");
}
