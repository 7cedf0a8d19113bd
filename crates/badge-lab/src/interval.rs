//! Bootstrap intervals: how far a score could move with another draw of as many rows.

use std::collections::BTreeMap;
use std::ops::Range;

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
pub(crate) const DRAWS: usize = 1000;

/// Rows drawn with replacement, part by part.
///
/// For macro-F1 they are drawn within their classes: it averages over the classes that occur, and a
/// class of one row would be missing from every third draw, which moves the mean and not only its
/// spread.
#[derive(Debug)]
pub(crate) struct RowDraws {
    /// The rows that each row may be replaced by, as a range of `members`.
    pools: Vec<Range<usize>>,
    members: Vec<usize>,
}

impl RowDraws {
    /// Of rows that are scored in parts of so many, one after the other.
    pub(crate) fn new(metric: MetricKind, parts: &[usize], truth: &[Target]) -> Self {
        let mut draws = Self {
            pools: vec![0..0; truth.len()],
            members: Vec::with_capacity(truth.len()),
        };
        let mut start = 0;
        for part in parts {
            let mut strata: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
            for (row, target) in truth.iter().enumerate().skip(start).take(*part) {
                let stratum = match (metric, target) {
                    (MetricKind::MacroF1, Target::Class(class)) => Some(*class),
                    _ => None,
                };
                strata.entry(stratum).or_default().push(row);
            }
            for rows in strata.into_values() {
                let pool = draws.members.len()..draws.members.len() + rows.len();
                for row in &rows {
                    draws.pools[*row] = pool.clone();
                }
                draws.members.extend(rows);
            }
            start += part;
        }
        draws
    }

    /// As many rows as there are.
    pub(crate) fn draw(&self, generator: &mut ChaCha8Rng) -> Vec<usize> {
        let pools = self.pools.iter();
        pools
            .map(|pool| self.members[pool.start + generator.random_range(0..pool.len())])
            .collect()
    }
}

/// The percentile bootstrap interval of a metric over rows drawn with replacement. The seed is
/// fixed: the same answers always give the same interval.
///
/// # Panics
/// When the two lists differ in length.
pub fn bootstrap(metric: MetricKind, answers: &[Target], truth: &[Target]) -> Interval {
    assert_eq!(answers.len(), truth.len());
    let mut generator = ChaCha8Rng::seed_from_u64(95);
    let draws = RowDraws::new(metric, &[truth.len()], truth);
    let mut scores: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn = draws.draw(&mut generator);
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

    #[test]
    fn parts_are_drawn_by_themselves() {
        let truth = vec![Target::Class(1); 110];
        let draws = RowDraws::new(MetricKind::Accuracy, &[10, 100], &truth);
        let rows = draws.draw(&mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(rows.len(), 110);
        assert!(rows[..10].iter().all(|row| *row < 10));
        assert!(rows[10..].iter().all(|row| *row >= 10));
    }

    #[test]
    fn a_class_of_one_row_is_in_every_draw_of_macro_f1() {
        let truth: Vec<_> = (0..50).map(|row| Target::Class(row % 49)).collect();
        let with_class_7 = |metric| {
            let draws = RowDraws::new(metric, &[50], &truth);
            let mut generator = ChaCha8Rng::seed_from_u64(1);
            let has = |_| draws.draw(&mut generator).contains(&7);
            (0..200).map(has).filter(|has| *has).count()
        };
        assert_eq!(with_class_7(MetricKind::MacroF1), 200);
        assert!(with_class_7(MetricKind::Accuracy) < 160);
        // All right is 1 without any width, however rare a class is.
        let interval = bootstrap(MetricKind::MacroF1, &truth, &truth);
        assert_eq!((interval.low, interval.high), (1.0, 1.0));
    }
}
