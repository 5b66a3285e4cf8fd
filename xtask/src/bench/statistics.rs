//! What many rounds say: medians of ratios and differences that are taken within a round, never between rounds.

/// An A/A median outside of this means that the machine was too restless for the run to be believed.
pub(super) const CALM: std::ops::RangeInclusive<f64> = 0.95..=1.05;

/// The middle, or the mean of the two middle ones; nothing of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The median of `of` over the rounds in which it can be had, and how many these were.
pub(super) fn median_of<R>(rounds: &[R], of: impl Fn(&R) -> Option<f64>) -> Option<(f64, usize)> {
    let values: Vec<f64> = rounds.iter().filter_map(of).filter(|value| value.is_finite()).collect();
    Some((median(&values)?, values.len()))
}

/// `items` in the order of a round: every round begins with another, so that none is always the first after a pause.
pub(super) fn rotated<T: Copy>(items: &[T], round: usize) -> Vec<T> {
    let mut items = items.to_vec();
    let length = items.len().max(1);
    items.rotate_left(round % length);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_are_paired_before_the_median() {
        // The machine became ten times slower after the first round: the ratio within each round does not mind.
        let rounds = [(1.0, 2.0), (10.0, 20.0), (11.0, 22.0)];
        assert_eq!(median_of(&rounds, |(bare, seen)| Some(seen / bare)), Some((2.0, 3)));
    }

    #[test]
    fn rounds_without_a_value_are_not_counted() {
        let rounds = [Some(1.0), None, Some(f64::INFINITY), Some(3.0)];
        assert_eq!(median_of(&rounds, |value| *value), Some((2.0, 2)));
    }

    #[test]
    fn every_item_comes_first_once() {
        let firsts: Vec<u8> = (0..4).map(|round| rotated(&[1, 2, 3, 4], round)[0]).collect();
        assert_eq!(firsts, [1, 2, 3, 4]);
        assert!(rotated::<u8>(&[], 3).is_empty());
    }
}
