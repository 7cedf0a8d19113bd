//! Whether a difference is one: medians and spreads over seeds, intervals over rows and seeds.

use anyhow::{Result, ensure};
use badge_tasks::{MetricKind, Target, score};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::outputs::Answers;
use crate::interval::Interval;

/// The figures of several seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// How many there are.
    pub seeds: usize,
}

impl Spread {
    /// Of figures, one per seed; nothing of none.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (low, high) = (*figures.first()?, *figures.last()?);
        let seeds = figures.len();
        let median = 0.5 * (figures[(seeds - 1) / 2] + figures[seeds / 2]);
        Some(Self {
            median,
            low,
            high,
            seeds,
        })
    }
}

/// What rows are scored by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoring {
    /// The score S.
    pub metric: MetricKind,
    /// Rows of each part; parts are scored by themselves and averaged.
    pub parts: Vec<usize>,
}

/// One run's answers on N rows.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What it answers: one list of N per exit, or per policy.
    pub answers: Vec<Vec<Target>>,
    /// What is right.
    pub truth: Vec<Target>,
}

impl Run {
    /// Of what a record keeps.
    pub fn new(seed: u64, Answers { exits, truth }: Answers) -> Self {
        let targets = |classes: Vec<usize>| classes.into_iter().map(Target::Class).collect();
        Self {
            seed,
            answers: exits.into_iter().map(targets).collect(),
            truth: targets(truth),
        }
    }

    /// The score of each list of answers on some rows.
    pub fn scores(&self, scoring: &Scoring, rows: &[usize]) -> Vec<f64> {
        let pick = |from: &[Target]| -> Vec<Target> {
            rows.iter().map(|row| from[*row].clone()).collect()
        };
        let truth = pick(&self.truth);
        let score_of = |answers: &Vec<Target>| {
            let answers = pick(answers);
            let (mut sum, mut start) = (0.0, 0);
            for part in &scoring.parts {
                let rows = start..start + part;
                sum += score(scoring.metric, &answers[rows.clone()], &truth[rows]);
                start += part;
            }
            sum / scoring.parts.len().max(1) as f64
        };
        self.answers.iter().map(score_of).collect()
    }
}

/// What can be compared on drawn rows.
pub trait Compared: Sync {
    /// What is right on each row.
    fn truth(&self) -> &[Target];
}

impl Compared for Run {
    fn truth(&self) -> &[Target] {
        &self.truth
    }
}

/// S-avg of scores.
pub fn average(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// S-best of scores.
pub fn best(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// How much more one side has of something than the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// In the mean over seeds that both have run, on all rows.
    pub estimate: f64,
    /// 95 % paired bootstrap interval: rows and seeds drawn with replacement, the same for both.
    pub interval: Interval,
    /// Seeds that both have run.
    pub seeds: usize,
}

/// What a difference says about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval lies above 0.
    Better,
    /// It lies below 0.
    Worse,
    /// It holds 0.
    CannotTell,
}

impl Difference {
    /// The side of 0 that the interval lies on.
    pub fn verdict(&self) -> Verdict {
        if self.interval.low > 0.0 {
            Verdict::Better
        } else if self.interval.high < 0.0 {
            Verdict::Worse
        } else {
            Verdict::CannotTell
        }
    }
}

/// Draws of the bootstrap.
const DRAWS: u64 = 1000;

/// The difference between pairs of runs of equal seed in some quantity of rows; `None` without a
/// pair.
///
/// Every draw takes as many rows as there are, with replacement and part by part, and as many seeds
/// as there are; both sides get the same. The generator's seed is fixed: the same runs always give
/// the same interval. With one seed the interval knows nothing of what another seed would do.
///
/// # Errors
/// When two runs of a pair were scored on different rows.
pub fn difference<T: Compared>(
    scoring: &Scoring,
    pairs: &[(&T, &T)],
    quantity: &(dyn Fn(&T, &[usize]) -> f64 + Sync),
) -> Result<Option<Difference>> {
    let Some((first, _)) = pairs.first() else {
        return Ok(None);
    };
    for (one, other) in pairs {
        ensure!(
            first.truth() == one.truth() && one.truth() == other.truth(),
            "runs that were scored on different rows cannot be compared"
        );
    }
    let between =
        |(one, other): (&T, &T), rows: &[usize]| quantity(one, rows) - quantity(other, rows);
    let all: Vec<usize> = (0..first.truth().len()).collect();
    let each = pairs.iter().map(|pair| between(*pair, &all));
    let estimate = each.sum::<f64>() / pairs.len() as f64;
    let draw = |number: u64| {
        let mut generator = ChaCha8Rng::seed_from_u64(number);
        let rows = drawn_rows(&scoring.parts, &mut generator);
        // A pair that is drawn twice is computed once.
        let mut times = vec![0_u32; pairs.len()];
        for _ in pairs {
            times[generator.random_range(0..pairs.len())] += 1;
        }
        let drawn = pairs.iter().zip(&times).filter(|(_, times)| **times > 0);
        let sum: f64 = drawn
            .map(|(pair, times)| f64::from(*times) * between(*pair, &rows))
            .sum();
        sum / pairs.len() as f64
    };
    let mut drawn: Vec<f64> = (0..DRAWS).into_par_iter().map(draw).collect();
    drawn.sort_by(f64::total_cmp);
    let tail = DRAWS as usize / 40;
    Ok(Some(Difference {
        estimate,
        interval: Interval {
            low: drawn[tail],
            high: drawn[drawn.len() - 1 - tail],
        },
        seeds: pairs.len(),
    }))
}

fn drawn_rows(parts: &[usize], generator: &mut ChaCha8Rng) -> Vec<usize> {
    let mut rows = Vec::with_capacity(parts.iter().sum());
    let mut start = 0;
    for part in parts {
        rows.extend((0..*part).map(|_| start + generator.random_range(0..*part)));
        start += part;
    }
    rows
}

/// The mean of a score over a range of speed: the area under a curve of points `(saved, score)`
/// from 0 to `most`, divided by the width. Between points the curve is a line; it begins at the
/// full model, which saves nothing, and behind its last point it is level.
///
/// # Panics
/// When a coordinate is NaN, or `from` is not below `most`.
pub fn mean_score(points: &[(f64, f64)], full: f64, (from, most): (f64, f64)) -> f64 {
    assert!(from < most, "from {from} to {most}");
    let mut curve = vec![(0.0, full)];
    curve.extend_from_slice(points);
    curve.sort_by(|a, b| a.partial_cmp(b).expect("coordinates are numbers"));
    let last = curve[curve.len() - 1].1;
    curve.push((most.max(curve[curve.len() - 1].0) + 1.0, last));
    let mut area = 0.0;
    for pair in curve.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let (low, high) = (x0.max(from), x1.min(most));
        if high > low {
            let at = |x: f64| y0 + (y1 - y0) * (x - x0) / (x1 - x0);
            area += 0.5 * (at(low) + at(high)) * (high - low);
        }
    }
    area / (most - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scoring(rows: usize) -> Scoring {
        Scoring {
            metric: MetricKind::Accuracy,
            parts: vec![rows],
        }
    }

    /// Of `rows` rows, this many of every hundred are answered right, the first ones.
    fn run(seed: u64, rows: usize, right: usize) -> Run {
        let answers = (0..rows)
            .map(|row| usize::from(row % 100 < right))
            .collect();
        let truth = vec![1; rows];
        Run::new(
            seed,
            Answers {
                exits: vec![answers],
                truth,
            },
        )
    }

    fn accuracy(run: &Run, rows: &[usize]) -> f64 {
        run.scores(&scoring(rows.len()), rows)[0]
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of(vec![5.0, 1.0, 3.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_paired_difference_has_the_interval_of_its_own_rows() {
        let (one, other) = (run(1, 400, 80), run(1, 400, 75));
        let found = difference(&scoring(400), &[(&one, &other)], &accuracy)
            .unwrap()
            .unwrap();
        // One in twenty rows differs: 0.05 ± 1.96 · sqrt(0.05 · 0.95 / 400) = 0.05 ± 0.021. Drawn
        // apart, the two accuracies would have had ±0.06.
        assert!((found.estimate - 0.05).abs() < 1e-12, "{found:?}");
        assert!((found.interval.low - 0.029).abs() < 0.006, "{found:?}");
        assert!((found.interval.high - 0.071).abs() < 0.006, "{found:?}");
        assert_eq!(found.verdict(), Verdict::Better);
        let back = difference(&scoring(400), &[(&other, &one)], &accuracy)
            .unwrap()
            .unwrap();
        assert_eq!(back.verdict(), Verdict::Worse);
    }

    #[test]
    fn seeds_that_disagree_widen_the_interval() {
        let equal = [
            (run(1, 200, 70), run(1, 200, 65)),
            (run(2, 200, 70), run(2, 200, 65)),
        ];
        let apart = [
            (run(1, 200, 85), run(1, 200, 65)),
            (run(2, 200, 55), run(2, 200, 65)),
        ];
        let of = |pairs: &[(Run, Run); 2]| {
            let pairs = [(&pairs[0].0, &pairs[0].1), (&pairs[1].0, &pairs[1].1)];
            difference(&scoring(200), &pairs, &accuracy)
                .unwrap()
                .unwrap()
        };
        let (narrow, wide) = (of(&equal), of(&apart));
        assert!((narrow.estimate - wide.estimate).abs() < 1e-12);
        assert_eq!(narrow.verdict(), Verdict::Better);
        assert_eq!(wide.verdict(), Verdict::CannotTell);
    }

    #[test]
    fn parts_are_drawn_and_scored_by_themselves() {
        // The first part is all right, the second all wrong, and much longer.
        let answers = (0..110).map(|row| usize::from(row < 10)).collect();
        let run = Run::new(
            3,
            Answers {
                exits: vec![answers],
                truth: vec![1; 110],
            },
        );
        let scoring = Scoring {
            metric: MetricKind::Accuracy,
            parts: vec![10, 100],
        };
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        let rows = drawn_rows(&scoring.parts, &mut generator);
        assert!(rows[..10].iter().all(|row| *row < 10));
        assert_eq!(run.scores(&scoring, &rows), [0.5]);
    }

    #[test]
    fn runs_on_different_rows_are_not_compared() {
        let other = Run::new(
            1,
            Answers {
                exits: vec![vec![1; 200]],
                truth: vec![0; 200],
            },
        );
        let error = difference(&scoring(200), &[(&run(1, 200, 50), &other)], &accuracy);
        assert!(error.unwrap_err().to_string().contains("different rows"));
        assert_eq!(difference(&scoring(200), &[], &accuracy).unwrap(), None);
    }

    #[test]
    fn the_mean_score_of_a_straight_curve_is_that_of_its_middle() {
        let line = [(1.0, 0.0), (0.5, 0.5)];
        assert!((mean_score(&line, 1.0, (0.0, 1.0)) - 0.5).abs() < 1e-12);
        assert!((mean_score(&line, 1.0, (0.5, 1.0)) - 0.25).abs() < 1e-12);
        // Level behind the last point.
        assert!((mean_score(&[(0.5, 0.8)], 0.8, (0.0, 0.9)) - 0.8).abs() < 1e-12);
        assert!((mean_score(&[], 0.7, (0.0, 0.9)) - 0.7).abs() < 1e-12);
    }
}
