//! Pearson's and Spearman's correlation.

/// Linear correlation; 0 where one side is constant or anything is not finite.
///
/// # Panics
///
/// When the lengths differ.
pub fn pearson(predictions: &[f32], targets: &[f32]) -> f64 {
    correlation(&widen(predictions), &widen(targets))
}

/// Correlation of the ranks, equal values sharing the mean of their ranks; 0 where one side is
/// constant or anything is not finite.
///
/// # Panics
///
/// When the lengths differ.
pub fn spearman(predictions: &[f32], targets: &[f32]) -> f64 {
    if predictions
        .iter()
        .chain(targets)
        .any(|value| !value.is_finite())
    {
        return 0.0;
    }
    correlation(&ranks(predictions), &ranks(targets))
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    // A rounded mean would give a constant vector a tiny, meaningless variance.
    if is_constant(x) || is_constant(y) {
        return 0.0;
    }
    let (x_mean, y_mean) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (dx, dy) = (x - x_mean, y - y_mean);
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
    }
    let correlation = xy / (xx.sqrt() * yy.sqrt());
    if correlation.is_finite() {
        correlation.clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

fn is_constant(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Ranks from 1, ties sharing their mean rank.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        // The mean of the ranks below + 1 ..= below + tied.len().
        let rank = below as f64 + f64::midpoint(tied.len() as f64, 1.0);
        for index in tied {
            ranks[*index] = rank;
        }
        below += tied.len();
    }
    ranks
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
    fn pearson_matches_scipy() {
        // pearsonr([1, 2, 3, 4, 5], [10, 9, 2.5, 6, 4]) = -0.7426106572325057.
        let found = pearson(&[10.0, 9.0, 2.5, 6.0, 4.0], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_near(found, -0.742_610_657_232_505_7);
    }

    #[test]
    fn spearman_matches_scipy() {
        // spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) = 0.8207826816681233.
        let found = spearman(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]);
        assert_near(found, 0.820_782_681_668_123_3);
    }

    #[test]
    fn ties_share_their_mean_rank() {
        assert_eq!(ranks(&[2.0, 1.0, 2.0, 3.0, 2.0]), [3.0, 1.0, 3.0, 5.0, 3.0]);
        assert_eq!(ranks(&[0.0, -0.0]), [1.5, 1.5]);
    }

    #[test]
    fn monotone_is_one_for_ranks_and_less_for_values() {
        let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 8.0, 27.0, 64.0]);
        assert_near(spearman(&x, &y), 1.0);
        assert!(pearson(&x, &y) < 0.96);
    }

    #[test]
    fn undefined_correlations_are_zero() {
        let cases: [(&[f32], &[f32]); 5] = [
            (&[0.1, 0.1, 0.1], &[1.0, 2.0, 3.0]),
            (&[1.0, 2.0, 3.0], &[5.0, 5.0, 5.0]),
            (&[1.0], &[2.0]),
            (&[], &[]),
            (&[f32::NAN, 1.0, 2.0], &[1.0, 2.0, 3.0]),
        ];
        for (x, y) in cases {
            assert_eq!(pearson(x, y), 0.0, "{x:?} {y:?}");
            assert_eq!(spearman(x, y), 0.0, "{x:?} {y:?}");
        }
    }
}
