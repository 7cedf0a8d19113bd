//! The share of right answers.

use super::ratio;

/// Share of positions where the two agree; 0 without positions.
///
/// # Panics
///
/// When the lengths differ.
pub fn accuracy<T: PartialEq>(predictions: &[T], targets: &[T]) -> f64 {
    assert_eq!(predictions.len(), targets.len());
    let right = predictions
        .iter()
        .zip(targets)
        .filter(|(p, t)| p == t)
        .count();
    ratio(right as f64, targets.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_counts_agreement() {
        assert_eq!(accuracy(&[0, 1, 2, 2], &[0, 1, 1, 2]), 0.75);
        assert_eq!(accuracy::<usize>(&[], &[]), 0.0);
    }
}
