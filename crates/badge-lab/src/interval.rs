//! Bootstrap intervals: how far a score could move with another draw of as many rows.

use badge_tasks::{MetricKind, Target, score};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A two-sided 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The 2.5 % quantile.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

/// Draws of the bootstrap.
const DRAWS: usize = 1000;

/// The percentile bootstrap interval of a metric over rows drawn with replacement. The seed is
/// fixed: the same answers always give the same interval.
///
/// # Panics
/// When the two lists differ in length.
pub fn bootstrap(metric: MetricKind, answers: &[Target], truth: &[Target]) -> Interval {
    assert_eq!(answers.len(), truth.len());
    let mut generator = ChaCha8Rng::seed_from_u64(95);
    let mut scores: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<usize> = (0..truth.len())
                .map(|_| generator.random_range(0..truth.len()))
                .collect();
            let of = |rows: &[Target]| drawn.iter().map(|i| rows[*i].clone()).collect::<Vec<_>>();
            score(metric, &of(answers), &of(truth))
        })
        .collect();
    scores.sort_by(f64::total_cmp);
    Interval {
        low: scores[DRAWS / 40],
        high: scores[DRAWS - 1 - DRAWS / 40],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accuracy_of_three_quarters_on_400_rows_has_the_binomial_interval() {
        let truth = vec![Target::Class(1); 400];
        let answers: Vec<_> = (0..400)
            .map(|i| Target::Class(usize::from(i % 4 != 0)))
            .collect();
        let interval = bootstrap(MetricKind::Accuracy, &answers, &truth);
        // The normal approximation: 0.75 ± 1.96 · sqrt(0.75 · 0.25 / 400) = 0.75 ± 0.042.
        assert!((interval.low - 0.708).abs() < 0.008, "{interval:?}");
        assert!((interval.high - 0.792).abs() < 0.008, "{interval:?}");
    }

    #[test]
    fn certain_answers_have_no_width() {
        let truth = vec![Target::Class(0); 50];
        let interval = bootstrap(MetricKind::Accuracy, &truth, &truth);
        assert_eq!(
            interval,
            Interval {
                low: 1.0,
                high: 1.0
            }
        );
    }
}
