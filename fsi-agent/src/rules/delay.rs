//! How long a reply waits: the distributions, from draws.

use std::f64::consts::TAU;
use std::time::Duration;

use super::hash::Draws;
use super::model::Delay;

impl Delay {
    /// How long it is for the operation of that ordinal.
    pub(super) fn draw(&self, draws: &mut Draws, ordinal: u64) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Uniform { min, max } => min + max.saturating_sub(min).mul_f64(draws.unit()),
            Self::Normal { mean, stddev, min, max } => {
                let seconds = mean.as_secs_f64() + stddev.as_secs_f64() * standard_normal(draws);
                duration(seconds).clamp(min, max.max(min))
            }
            Self::Pareto { min, shape, max } => {
                let seconds = min.as_secs_f64() / (1.0 - draws.unit()).powf(1.0 / shape);
                duration(seconds).clamp(min, max.max(min))
            }
            Self::Ramp { from, to, over } => ramp(from, to, over, ordinal),
        }
    }
}

/// Of mean 0 and deviation 1, by Box and Muller's way.
fn standard_normal(draws: &mut Draws) -> f64 {
    // From above 0 to 1, so that the logarithm is finite.
    let radius = (-2.0 * (1.0 - draws.unit()).ln()).sqrt();
    radius * (TAU * draws.unit()).cos()
}

#[expect(clippy::cast_precision_loss, reason = "a step in 2^53 of a ramp is far below a nanosecond of it")]
fn ramp(from: Duration, to: Duration, over: u64, ordinal: u64) -> Duration {
    if ordinal >= over {
        return to;
    }
    let part = ordinal as f64 / over as f64;
    let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
    duration(from + (to - from) * part)
}

/// Less than none is none, and more than can be is as much as can be.
fn duration(seconds: f64) -> Duration {
    if seconds <= 0.0 { Duration::ZERO } else { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sample(delay: &Delay, seed: u64) -> Vec<f64> {
        let draw = |ordinal| delay.draw(&mut Draws::new(seed + ordinal), ordinal).as_secs_f64() * 1e3;
        let mut all: Vec<f64> = (0..20_000).map(draw).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn mean(all: &[f64]) -> f64 {
        all.iter().sum::<f64>() / 20_000.0
    }

    #[test]
    fn uniform_is_even() {
        let all = sample(&Delay::Uniform { min: MS, max: 11 * MS }, 1);
        assert!((mean(&all) - 6.0).abs() < 0.1, "{}", mean(&all));
        assert!((all[5_000] - 3.5).abs() < 0.2 && (all[15_000] - 8.5).abs() < 0.2);
        assert!(all[0] >= 1.0 && all[19_999] <= 11.0);
    }

    #[test]
    fn normal_has_its_mean_and_deviation() {
        let all = sample(&Delay::Normal { mean: 50 * MS, stddev: 10 * MS, min: Duration::ZERO, max: 1000 * MS }, 2);
        assert!((mean(&all) - 50.0).abs() < 0.3, "{}", mean(&all));
        assert!((all[3_174] - 40.0).abs() < 0.5, "one deviation below: {}", all[3_174]);
        assert!((all[19_545] - 70.0).abs() < 1.0, "two deviations above: {}", all[19_545]);
        let cut = sample(&Delay::Normal { mean: 5 * MS, stddev: 10 * MS, min: 2 * MS, max: 8 * MS }, 2);
        assert!((cut[0] - 2.0).abs() < 1e-9 && (cut[19_999] - 8.0).abs() < 1e-9);
    }

    #[test]
    fn pareto_has_its_tail() {
        let all = sample(&Delay::Pareto { min: MS, shape: 2.0, max: 1_000_000 * MS }, 3);
        // P(x > 10 min) = 10^-2.
        let beyond = all.iter().filter(|x| **x > 10.0).count();
        assert!((170..230).contains(&beyond), "{beyond}");
        assert!((all[10_000] - 2_f64.sqrt()).abs() < 0.03);
        assert!(all[0] >= 1.0);
    }

    #[test]
    fn a_ramp_goes_up_or_down_and_stays() {
        let mut draws = Draws::new(0);
        let up = Delay::Ramp { from: Duration::ZERO, to: 10 * MS, over: 10 };
        let down = Delay::Ramp { from: 10 * MS, to: Duration::ZERO, over: 10 };
        for (ordinal, ms) in [(0, 0), (5, 5), (10, 10), (u64::MAX, 10)] {
            assert_eq!(up.draw(&mut draws, ordinal), ms * MS);
            assert_eq!(down.draw(&mut draws, ordinal), (10 - ms) * MS);
        }
    }
}
