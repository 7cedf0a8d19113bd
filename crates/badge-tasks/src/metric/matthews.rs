//! The Matthews correlation coefficient, for two classes and more.

use std::collections::BTreeMap;

use super::ratio;

/// Matthews correlation coefficient in Gorodkin's form for any number of classes.
///
/// `MCC = (c s - Σ p_k t_k) / sqrt((s² - Σ p_k²) (s² - Σ t_k²))` with `c` right answers among `s`,
/// and `p_k`, `t_k` how often class k was predicted and is true. For two classes this is the usual
/// `(TP TN - FP FN) / sqrt(...)`. 0 where one side is constant.
///
/// # Panics
///
/// When the lengths differ.
pub fn matthews(predictions: &[usize], targets: &[usize]) -> f64 {
    assert_eq!(predictions.len(), targets.len());
    let samples = targets.len() as f64;
    let right = predictions
        .iter()
        .zip(targets)
        .filter(|(p, t)| p == t)
        .count() as f64;
    let mut occurrences: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (prediction, target) in predictions.iter().zip(targets) {
        occurrences.entry(*prediction).or_default().0 += 1.0;
        occurrences.entry(*target).or_default().1 += 1.0;
    }
    let sum = |term: fn(&(f64, f64)) -> f64| occurrences.values().map(term).sum::<f64>();
    let covariance = right * samples - sum(|(p, t)| p * t);
    let predicted_variance = samples * samples - sum(|(p, _)| p * p);
    let target_variance = samples * samples - sum(|(_, t)| t * t);
    // Two roots rather than one keep the product of large counts within range.
    ratio(
        covariance,
        predicted_variance.sqrt() * target_variance.sqrt(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn matthews_matches_scikit_learn() {
        // matthews_corrcoef([1, 1, 1, 0], [1, 0, 1, 1]) = -1/3.
        assert_near(matthews(&[1, 0, 1, 1], &[1, 1, 1, 0]), -1.0 / 3.0);
        // Three classes: c = 4, s = 5, Σ p t = 2·2 + 1·2 + 2·1 = 8; both variances are 25 - 9.
        assert_near(matthews(&[0, 0, 1, 2, 2], &[0, 0, 1, 1, 2]), 12.0 / 16.0);
    }

    #[test]
    fn perfect_and_opposite_are_the_ends() {
        assert_near(matthews(&[0, 1, 1, 0], &[0, 1, 1, 0]), 1.0);
        assert_near(matthews(&[1, 0, 0, 1], &[0, 1, 1, 0]), -1.0);
    }

    #[test]
    fn constant_predictions_give_zero() {
        assert_near(matthews(&[1, 1, 1], &[0, 1, 1]), 0.0);
        assert_near(matthews(&[0, 1, 1], &[1, 1, 1]), 0.0);
    }
}
