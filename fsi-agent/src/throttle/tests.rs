//! What passes never exceeds what the limits allow, and those who wait share it evenly.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn spec(scope: Scope, read_bytes_per_s: Option<u64>, read_iops: Option<u64>, burst_ms: u64) -> ThrottleSpec {
    ThrottleSpec {
        read_bytes_per_s,
        read_iops,
        burst: Duration::from_millis(burst_ms),
        ..ThrottleSpec::unlimited(scope)
    }
}

fn lane(flow: u64, file: u64, direction: Direction) -> Lane {
    Lane { flow, file, pod: 0, direction }
}

/// Closed loops: each flow keeps `depth` requests waiting; gives `(time, flow, file, bytes)` of each that passed.
fn run(throttle: &mut Throttle, flows: &[(u64, usize, u64, u64)], until_ns: u64) -> Vec<(u64, u64, u64, u64)> {
    let mut passed = Vec::new();
    let mut owners = HashMap::new();
    let mut ticket = 0;
    let mut now = 0;
    let mut to_submit: Vec<(u64, u64, u64)> =
        flows.iter().flat_map(|&(flow, depth, file, bytes)| std::iter::repeat_n((flow, file, bytes), depth)).collect();
    loop {
        while let Some((flow, file, bytes)) = to_submit.pop() {
            ticket += 1;
            match throttle.submit(now, ticket, lane(flow, file, Direction::Read), bytes, false) {
                Admission::Now => {
                    passed.push((now, flow, file, bytes));
                    to_submit.push((flow, file, bytes));
                }
                Admission::Wait => drop(owners.insert(ticket, (flow, file, bytes))),
                Admission::Again => unreachable!("nobody asked for it"),
            }
        }
        let mut released = Vec::new();
        let next = throttle.advance(now, &mut released);
        for ticket in &released {
            let (flow, file, bytes) = owners.remove(ticket).unwrap();
            passed.push((now, flow, file, bytes));
            to_submit.push((flow, file, bytes));
        }
        if released.is_empty() {
            let next = next.expect("somebody waits, so there is a next time");
            assert!(next > now, "time passes");
            now = next;
            if now > until_ns {
                return passed;
            }
        }
    }
}

fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// Over every window that begins and ends with a request: at most burst + rate * t + one request.
fn conforms(passed: &[(u64, u64)], rate: u64, burst_ns: u64, one: u64) -> Result<(), TestCaseError> {
    for first in (0..passed.len()).step_by(7) {
        let mut sum = 0_u128;
        for &(at, amount) in &passed[first..] {
            sum += u128::from(amount);
            let time = u128::from(at - passed[first].0 + burst_ns);
            let most = u128::from(rate) * time / u128::from(SECOND) + u128::from(one);
            prop_assert!(sum <= most + 1, "{sum} of at most {most} passed in {} ns", at - passed[first].0);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_burst_and_rate_and_one_request(
        rate in 10_000_u64..5_000_000,
        iops in 5_u64..500,
        burst_ms in 0_u64..2_000,
        requests in prop::collection::vec((0_u64..40_000_000, 1_u64..300_000, 0_u64..3, 0_u64..4, any::<bool>()), 1..300),
    ) {
        let specs = [spec(Scope::Volume, Some(rate), None, burst_ms), spec(Scope::File, None, Some(iops), burst_ms)];
        let mut throttle = Throttle::new(&specs, None, 0);
        let (mut now, mut sizes, mut passed, mut released) = (0, HashMap::new(), Vec::new(), Vec::new());
        let largest = requests.iter().map(|request| request.1).max().unwrap();
        for (ticket, (gap, bytes, file, flow, cancelled)) in (1_u64..).zip(requests) {
            now += gap;
            sizes.insert(ticket, (bytes, file));
            match throttle.submit(now, ticket, lane(flow, file, Direction::Read), bytes, false) {
                Admission::Now => passed.push((now, bytes, file)),
                Admission::Wait if cancelled => prop_assert!(throttle.cancel(ticket)),
                Admission::Wait => {}
                Admission::Again => prop_assert!(false),
            }
            let _next = throttle.advance(now, &mut released);
            passed.extend(released.drain(..).map(|ticket| (now, sizes[&ticket].0, sizes[&ticket].1)));
        }
        while throttle.waiting() > 0 {
            let next = throttle.advance(now, &mut released);
            passed.extend(released.drain(..).map(|ticket| (now, sizes[&ticket].0, sizes[&ticket].1)));
            let Some(next) = next else { break };
            prop_assert!(next > now);
            now = next;
        }
        prop_assert_eq!(throttle.waiting(), 0, "everyone gets through");
        let bytes: Vec<_> = passed.iter().map(|one| (one.0, one.1)).collect();
        conforms(&bytes, rate, burst_ms * 1_000_000, largest)?;
        for file in 0..3 {
            let operations: Vec<_> = passed.iter().filter(|one| one.2 == file).map(|one| (one.0, 1)).collect();
            conforms(&operations, iops, burst_ms * 1_000_000, 1)?;
        }
    }

    #[test]
    fn equal_flows_get_equal_shares_whatever_their_depth(
        depths in prop::array::uniform4(1_usize..64),
        bytes in prop::sample::select(vec![4096_u64, 65_536, 1 << 20]),
        one_file in any::<bool>(),
        scope in prop::sample::select(vec![Scope::File, Scope::Volume]),
    ) {
        let mut throttle = Throttle::new(&[spec(scope, Some(bytes * 200), None, 10)], None, 0);
        let file = |flow: u64| if one_file || scope == Scope::File { 1 } else { flow };
        let flows: Vec<_> = (0..4_u64).zip(depths).map(|(flow, depth)| (flow, depth, file(flow), bytes)).collect();
        let passed = run(&mut throttle, &flows, 5 * SECOND);
        let shares: Vec<u64> = (0..4).map(|flow| passed.iter().filter(|one| one.1 == flow).map(|one| one.3).sum()).collect();
        prop_assert!(jain(&shares) >= 0.95, "{shares:?}");
        let total: u64 = shares.iter().sum();
        prop_assert!(total >= bytes * 200 * 49 / 10, "the limit is used: {total}");
    }
}

#[test]
fn a_flow_of_large_requests_gets_as_many_bytes_as_one_of_small_ones() {
    let mut throttle = Throttle::new(&[spec(Scope::Volume, Some(10 << 20), None, 20)], None, 0);
    let passed = run(&mut throttle, &[(1, 16, 1, 4096), (2, 1, 2, 1 << 20)], 20 * SECOND);
    let of = |flow| passed.iter().filter(|one| one.1 == flow).map(|one| one.3).sum::<u64>();
    assert!(jain(&[of(1), of(2)]) > 0.98, "{} and {}", of(1), of(2));
}

#[test]
fn an_empty_file_bucket_holds_up_no_other_file() {
    let mut throttle = Throttle::new(&[spec(Scope::File, None, Some(1), 1_000)], None, 0);
    let mut submit = |ticket, file| throttle.submit(0, ticket, lane(9, file, Direction::Read), 1, false);
    assert_eq!(submit(1, 1), Admission::Now);
    assert_eq!(submit(2, 1), Admission::Wait);
    assert_eq!(submit(3, 2), Admission::Now);
    let mut released = Vec::new();
    assert_eq!(throttle.advance(0, &mut released), Some(SECOND));
    assert_eq!(throttle.advance(SECOND, &mut released), None);
    assert_eq!(released, [2]);
}

#[test]
fn nonblocking_gets_again_only_where_a_limit_says_so() {
    for (when_empty, expected) in [(WhenEmpty::Again, Admission::Again), (WhenEmpty::Wait, Admission::Wait)] {
        let spec = ThrottleSpec { when_empty, ..spec(Scope::Volume, None, Some(1), 1_000) };
        let mut throttle = Throttle::new(&[spec], None, 0);
        assert_eq!(throttle.submit(0, 1, lane(1, 1, Direction::Read), 1, true), Admission::Now);
        assert_eq!(throttle.submit(0, 2, lane(1, 1, Direction::Read), 1, true), expected);
        assert_eq!(throttle.submit(0, 3, lane(1, 1, Direction::Read), 1, false), Admission::Wait);
        assert_eq!(
            throttle.submit(0, 4, lane(1, 1, Direction::Write), 1, true),
            Admission::Now,
            "writes are not limited"
        );
    }
}

#[test]
fn a_shared_limit_counts_both_directions() {
    let spec = ThrottleSpec {
        total_iops: Some(10),
        bytes_per_operation: Some(256 << 10),
        burst: Duration::from_secs(1),
        ..ThrottleSpec::unlimited(Scope::Volume)
    };
    let mut throttle = Throttle::new(&[spec], None, 0);
    for ticket in 0..4 {
        assert_eq!(throttle.submit(0, ticket, lane(1, 1, Direction::Read), 512 << 10, false), Admission::Now);
    }
    assert_eq!(throttle.submit(0, 4, lane(1, 1, Direction::Write), 1, false), Admission::Now);
    assert_eq!(throttle.submit(0, 5, lane(1, 1, Direction::Write), 1, false), Admission::Now);
    assert_eq!(throttle.submit(0, 6, lane(1, 1, Direction::Write), 1, false), Admission::Wait);
    assert_eq!(throttle.advance(0, &mut Vec::new()), Some(SECOND / 10));
}

#[test]
fn who_is_too_many_passes_and_is_counted() {
    let mut throttle = Throttle::new(&[spec(Scope::Volume, None, Some(1), 1_000)], None, 0);
    for ticket in 0..=MAX_WAITING as u64 {
        let expected = if ticket == 0 { Admission::Now } else { Admission::Wait };
        assert_eq!(throttle.submit(0, ticket, lane(ticket, 1, Direction::Read), 1, false), expected);
    }
    assert_eq!(throttle.submit(0, 1 << 40, lane(1, 1, Direction::Read), 1, false), Admission::Now);
    assert_eq!((throttle.overflowed(), throttle.waiting()), (1, MAX_WAITING));
    let mut released = Vec::new();
    throttle.release_all(&mut released);
    assert_eq!((released.len(), throttle.waiting()), (MAX_WAITING, 0));
}

#[test]
fn files_at_rest_are_forgotten_first() {
    let mut throttle = Throttle::new(&[spec(Scope::File, None, Some(1_000), 1_000)], None, 0);
    for file in 0..MAX_FILES as u64 {
        assert_eq!(throttle.submit(0, file, lane(1, file, Direction::Read), 1, false), Admission::Now);
    }
    assert_eq!(throttle.submit(1, 1, lane(1, 1 << 40, Direction::Read), 1, false), Admission::Now);
    assert_eq!(throttle.overflowed(), 1, "all are in use");
    assert_eq!(throttle.submit(SECOND, 1, lane(1, 1 << 40, Direction::Read), 1, false), Admission::Now);
    assert_eq!((throttle.overflowed(), throttle.files.len()), (1, 1));
}

/// A server that is replaced again and again lets no more pass than one that lives.
#[test]
fn a_successor_goes_on_where_the_buckets_were() {
    let specs = [spec(Scope::Volume, Some(1_000), None, 1_000), spec(Scope::File, None, Some(10), 1_000)];
    let mut throttle = Throttle::new(&specs, None, 0);
    let mut passed = 0;
    for step in 0..100_u64 {
        let now = step * SECOND / 10;
        if throttle.submit(now, step, lane(1, 1, Direction::Read), 500, false) == Admission::Now {
            passed += 500;
        }
        let levels: Vec<_> = throttle.levels().collect();
        throttle = Throttle::resume(&specs, None, now, &levels);
    }
    assert!((9_000..=1_000 + 10_000 + 500).contains(&passed), "{passed}");
}

#[test]
fn what_was_not_moved_is_given_back() {
    let mut throttle = Throttle::new(&[spec(Scope::Volume, Some(1_000), None, 1_000)], None, 0);
    assert_eq!(throttle.submit(0, 1, lane(1, 1, Direction::Read), 100_000, false), Admission::Now);
    throttle.give_back(lane(1, 1, Direction::Read), 99_500, 0);
    assert_eq!(throttle.submit(0, 2, lane(1, 1, Direction::Read), 1, false), Admission::Now);
}
