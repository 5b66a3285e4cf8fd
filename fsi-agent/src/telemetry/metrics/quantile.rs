//! Quantiles from the kernel's latency buckets.

use fsi_common::aggregate::bucket_start_ns;

/// The duration in nanoseconds below which the share `q` (0 to 1) of all operations lies, from `(bucket, count)` in any order, a bucket
/// more than once if need be. It is the middle of the bucket in which that operation lies: at most 6.3 % off. 0 without operations.
#[must_use]
pub fn quantile(buckets: &[(u16, u64)], q: f64) -> u64 {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return 0;
    }
    let mut sorted: Vec<_> = buckets.to_vec();
    sorted.sort_unstable();
    let rank = rank(total, q);
    let mut before = 0;
    for (bucket, count) in sorted {
        before += count;
        if before >= rank {
            return middle_ns(bucket);
        }
    }
    0
}

/// Which operation it is, counted from 1 in the order of durations.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count: between 0 and the count, and rounding moves it by less than one in 2^53"
)]
fn rank(total: u64, q: f64) -> u64 {
    let share = (total as f64 * q.clamp(0.0, 1.0)).ceil();
    (share as u64).clamp(1, total)
}

fn middle_ns(bucket: u16) -> u64 {
    let start = bucket_start_ns(bucket);
    let width = bucket_start_ns(bucket.saturating_add(1)).saturating_sub(start);
    // A bucket of one value is that value.
    start + (width.saturating_sub(1)) / 2
}

#[cfg(test)]
mod tests {
    use fsi_common::aggregate::bucket_of;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_nothing_and_of_one() {
        assert_eq!(quantile(&[], 0.5), 0);
        assert_eq!(quantile(&[(bucket_of(5), 1)], 0.99), 5);
        assert_eq!(quantile(&[(bucket_of(5), 0)], 0.99), 0);
        // The last bucket of all has no end to be exceeded.
        assert!(quantile(&[(bucket_of(u64::MAX), 1)], 1.0) > u64::MAX / 10 * 9);
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let [fast, slow] = [bucket_of(100), bucket_of(1_000_000)];
        let buckets = [(slow, 1), (fast, 50), (fast, 49)];
        assert!(quantile(&buckets, 0.5).abs_diff(100) < 10 && quantile(&buckets, 0.99).abs_diff(100) < 10);
        assert!(quantile(&buckets, 1.0).abs_diff(1_000_000) < 100_000);
    }

    proptest! {
        #[test]
        fn within_a_tenth_of_the_true_one(
            mut durations in proptest::collection::vec(0u64..10_000_000_000, 1..300),
            q in 0.0..=1.0f64,
        ) {
            let buckets: Vec<_> = durations.iter().map(|ns| (bucket_of(*ns), 1)).collect();
            durations.sort_unstable();
            let total = durations.len() as u64;
            let exact = durations[usize::try_from(rank(total, q) - 1).unwrap()];
            let found = quantile(&buckets, q);
            prop_assert!(found.abs_diff(exact) * 10 <= exact, "{found} for {exact}");
        }
    }
}
