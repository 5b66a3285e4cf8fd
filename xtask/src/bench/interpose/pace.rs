//! Whether what was done in a stretch of time is what a throttle allows: arithmetic over single operations.

use super::super::fio::Done;

/// What is left out at the beginning, when saved-up tokens are spent, and how long is looked at then.
const RAMP_MS: f64 = 3000.0;
const LOOK_MS: f64 = 20_000.0;
const SECOND_MS: f64 = 1000.0;
/// Between the beginnings of the seconds that are looked at.
const STEP_MS: f64 = 100.0;
/// fio's times are whole milliseconds.
const ROUNDING_MS: f64 = 1.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Operations,
}

/// What a bucket lets through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) unit: Unit,
    pub(super) per_second: f64,
    /// What a full bucket holds.
    pub(super) burst: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    /// Percent that the mean rate is off.
    pub(super) mean: f64,
    /// The same of the worst second.
    pub(super) second: f64,
    /// The most that had ever been let through beyond burst + rate x time, in operations of this size; one is allowed.
    pub(super) beyond: f64,
    /// Jain's index of what each job got: 1 is equal, 1/n is all for one.
    pub(super) jain: f64,
}

impl Limit {
    fn units(&self, done: &Done) -> f64 {
        match self.unit {
            Unit::Bytes => done.bytes,
            Unit::Operations => 1.0,
        }
    }

    /// What was done, in the order of its end. Nothing can be said of nothing.
    pub(super) fn judge(&self, all: &[Done]) -> Option<Judged> {
        let begin = begin(all)?;
        let (from, to) = (begin + RAMP_MS, begin + RAMP_MS + LOOK_MS);
        let within = |from: f64, to: f64| all.iter().filter(move |done| done.at_ms > from && done.at_ms <= to);
        let sum = |from: f64, to: f64| within(from, to).map(|done| self.units(done)).sum::<f64>();
        let off = |units: f64, ms: f64| ((units / (self.per_second * ms / SECOND_MS)) - 1.0).abs() * 100.0;

        let mut second = 0.0_f64;
        let mut start = from;
        while start + SECOND_MS <= to {
            second = second.max(off(sum(start, start + SECOND_MS), SECOND_MS));
            start += STEP_MS;
        }
        let jobs = all.iter().map(|done| done.job).max()?;
        let share = |job: usize| within(from, to).filter(|done| done.job == job).map(|done| self.units(done)).sum();
        let shares: Vec<f64> = (1..=jobs).map(share).collect();
        Some(Judged { mean: off(sum(from, to), LOOK_MS), second, beyond: self.beyond(all)?, jain: jain(&shares) })
    }

    /// How much more than burst + rate x time had been let through at the worst moment, in operations.
    pub(super) fn beyond(&self, all: &[Done]) -> Option<f64> {
        let begin = begin(all)?;
        let mut sum = 0.0;
        let mut worst = f64::NEG_INFINITY;
        for done in all {
            sum += self.units(done);
            let seconds = (done.at_ms + ROUNDING_MS - begin) / SECOND_MS;
            worst = worst.max((sum - self.burst - self.per_second * seconds) / self.units(done));
        }
        Some(worst)
    }

    /// What was done by a moment after the beginning, as a share of what a full bucket allows until then.
    pub(super) fn used(&self, all: &[Done], after_ms: f64) -> Option<f64> {
        let until = begin(all)? + after_ms;
        let sum: f64 = all.iter().filter(|done| done.at_ms <= until).map(|done| self.units(done)).sum();
        Some(sum / (self.burst + self.per_second * after_ms / SECOND_MS))
    }
}

/// When the first of them was asked for.
fn begin(all: &[Done]) -> Option<f64> {
    let asked = all.iter().map(|done| done.at_ms - done.took_ns / 1e6);
    asked.min_by(f64::total_cmp).map(f64::floor)
}

#[expect(clippy::cast_precision_loss, reason = "a handful of jobs")]
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// Values of which so many percent are not larger; the values are sorted by this.
pub(in super::super) fn percentile(values: &mut [f64], percent: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index below a million"
    )]
    let index = (values.len() as f64 * percent / 100.0).ceil() as usize;
    values.get(index.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { unit: Unit::Operations, per_second: 100.0, burst: 100.0 };

    /// One job's operations, each of which took nothing.
    fn done(job: usize, times_ms: impl Iterator<Item = f64>) -> Vec<Done> {
        times_ms.map(|at_ms| Done { job, at_ms, took_ns: 0.0, bytes: 4096.0 }).collect()
    }

    fn every(ms: f64, count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(move |number| 1e12 + f64::from(number) * ms)
    }

    #[test]
    fn a_burst_and_then_the_rate_is_right() {
        let mut all = done(1, every(0.0, 100));
        all.extend(done(1, every(10.0, 2301).skip(1)));
        let judged = LIMIT.judge(&all).unwrap();
        assert!(judged.mean < 0.1 && judged.second < 1.1, "{judged:?}");
        assert!(judged.beyond <= 1.0, "{judged:?}");
        assert!((LIMIT.used(&all, 1000.0).unwrap() - 1.0).abs() < 0.01);
    }

    #[test]
    fn what_is_wrong_is_seen() {
        let fast = LIMIT.judge(&done(1, every(9.0, 3000))).unwrap();
        assert!((fast.mean - 11.1).abs() < 0.2 && fast.beyond > 10.0, "{fast:?}");
        // As much as is allowed, but all of it in the first half of each second.
        let lumps = (0..2400_u32).map(|number| 1e12 + f64::from(number / 100) * 1000.0 + f64::from(number % 100) * 5.0);
        let lumpy = LIMIT.judge(&done(1, lumps)).unwrap();
        assert!(lumpy.mean < 1.1, "{lumpy:?}");
        let late =
            (0..2400_u32).map(|number| 1e12 + f64::from(number) * 10.0 + if number >= 1000 { 900.0 } else { 0.0 });
        assert!(LIMIT.judge(&done(1, late)).unwrap().second > 80.0, "a second with nearly nothing in it");
    }

    #[test]
    fn shares_are_compared() {
        let mut all = done(1, every(20.0, 1200));
        all.extend(done(2, every(20.0, 1200)));
        assert!((LIMIT.judge(&all).unwrap().jain - 1.0).abs() < 0.001);
        assert!((jain(&[3.0, 1.0]) - 0.8).abs() < 0.001);
        assert_eq!(LIMIT.judge(&[]), None);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 50.0), Some(100.0));
        assert_eq!(percentile(&mut values, 99.0), Some(198.0));
        assert_eq!(percentile(&mut values, 0.0), Some(1.0));
        assert_eq!(percentile(&mut [], 50.0), None);
    }
}
