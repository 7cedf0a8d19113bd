//! Which points of speed and score are worth having.

/// The points, each `(speed, score)`, that no other point beats in both, as indices by ascending
/// speed. Of points that are equal in both, the first.
///
/// # Panics
/// When a coordinate is NaN.
///
/// # Example
/// ```
/// use badge_lab::frontier::frontier;
///
/// let points = [(1.0, 0.9), (2.0, 0.8), (1.5, 0.7), (1.8, 0.8), (3.0, 0.5)];
/// assert_eq!(frontier(&points), [0, 1, 4]);
/// ```
pub fn frontier(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    // The fastest first; of equals in speed the better score first.
    order.sort_by(|a, b| {
        let ((speed, score), (other_speed, other_score)) = (points[*a], points[*b]);
        let descending = (other_speed, other_score).partial_cmp(&(speed, score));
        descending.expect("speed and score are numbers")
    });
    let mut best = f64::NEG_INFINITY;
    order.retain(|index| {
        let score = points[*index].1;
        let kept = score > best;
        best = best.max(score);
        kept
    });
    order.reverse();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_that_another_point_beats() {
        let points: Vec<(f64, f64)> = (0..60)
            .map(|i| (f64::from(i * 37 % 60), f64::from(i * 23 % 41)))
            .collect();
        let kept = frontier(&points);
        for (index, (speed, score)) in points.iter().enumerate() {
            let beaten = points
                .iter()
                .any(|(s, q)| (s >= speed && q > score) || (s > speed && q >= score));
            assert_eq!(!kept.contains(&index), beaten, "point {index}");
        }
        assert!(kept.is_sorted_by(|a, b| points[*a].0 < points[*b].0));
    }

    #[test]
    fn of_equal_points_the_first_is_kept() {
        assert_eq!(frontier(&[(1.0, 0.5), (1.0, 0.5)]), [0]);
        assert_eq!(frontier(&[]), [0; 0]);
    }
}
