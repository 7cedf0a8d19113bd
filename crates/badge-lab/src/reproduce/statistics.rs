//! Whether a difference is one: medians and spreads over seeds, intervals over rows and seeds.

use anyhow::{Result, ensure};
use badge_tasks::{MetricKind, Target, score};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::outputs::Answers;
use crate::interval::{DRAWS, Interval, RowDraws};

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
    /// 95 % interval over other rows and other seeds ([`interval_of`]).
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
    /// It holds 0, or there are too few seeds to know what another one would do.
    CannotTell,
}

/// Seeds below which a difference decides nothing.
pub const SEEDS_TO_TELL: usize = 3;

impl Difference {
    /// The side of 0 that the interval lies on.
    pub fn verdict(&self) -> Verdict {
        if self.seeds < SEEDS_TO_TELL {
            Verdict::CannotTell
        } else if self.interval.low > 0.0 {
            Verdict::Better
        } else if self.interval.high < 0.0 {
            Verdict::Worse
        } else {
            Verdict::CannotTell
        }
    }
}

/// The 95 % interval of a mean difference between pairs of runs of equal seed, each trained anew and
/// all scored on the same rows: `mean ± t sqrt(v + s²/n)`.
///
/// v is the variance of the mean over draws of rows (paired bootstrap), s² that of the differences
/// over n seeds, and t the 97.5 % quantile of Student's distribution with the degrees of freedom
/// that Welch and Satterthwaite give such a sum: few seeds that disagree leave few. To draw seeds
/// with replacement instead would be far too sure of itself: of three, all that it asks is whether
/// they have the same sign. One seed says nothing of others, and `v` is all there is then.
pub fn interval_of(differences: &[f64], row_variance: f64) -> Interval {
    let n = differences.len() as f64;
    let mean = average(differences);
    let squares = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>();
    let (of_seeds, freedom) = if differences.len() > 1 {
        (squares / (n - 1.0) / n, n - 1.0)
    } else {
        (0.0, f64::INFINITY)
    };
    let variance = row_variance + of_seeds;
    let freedom = freedom * (variance / of_seeds).powi(2);
    let half = if variance > 0.0 {
        student_quantile(freedom) * variance.sqrt()
    } else {
        0.0
    };
    Interval {
        low: mean - half,
        high: mean + half,
    }
}

/// The 97.5 % quantile of Student's t, from tables up to ten degrees of freedom (rounded down: a
/// little too wide), beyond by the expansion of Cornish and Fisher, to 0.1 %.
fn student_quantile(freedom: f64) -> f64 {
    const TABLE: [f64; 10] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    ];
    const NORMAL: f64 = 1.959_964;
    if freedom.is_nan() || freedom.is_infinite() {
        return NORMAL; // No variance over seeds.
    }
    if freedom < 11.0 {
        return TABLE[(freedom as usize).clamp(1, TABLE.len()) - 1];
    }
    let (z, cube) = (NORMAL, NORMAL.powi(3));
    let second = (5.0 * NORMAL.powi(5) + 16.0 * cube + 3.0 * z) / 96.0;
    z + (cube + z) / (4.0 * freedom) + second / freedom.powi(2)
}

/// The difference between pairs of runs of equal seed in some quantity of rows; `None` without a
/// pair.
///
/// Every draw takes as many rows as there are, with replacement and part by part, the same for all
/// runs. The generator's seed is fixed: the same runs always give the same interval.
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
    let between = |rows: &[usize]| -> Vec<f64> {
        let pairs = pairs.iter();
        pairs
            .map(|(one, other)| quantity(one, rows) - quantity(other, rows))
            .collect()
    };
    let all: Vec<usize> = (0..first.truth().len()).collect();
    let differences = between(&all);
    let draws = RowDraws::new(scoring.metric, &scoring.parts, first.truth());
    let draw = |number: u64| {
        let rows = draws.draw(&mut ChaCha8Rng::seed_from_u64(number));
        average(&between(&rows))
    };
    let drawn: Vec<f64> = (0..DRAWS as u64).into_par_iter().map(draw).collect();
    let mean = average(&drawn);
    let squares = drawn.iter().map(|d| (d - mean).powi(2)).sum::<f64>();
    Ok(Some(Difference {
        estimate: average(&differences),
        interval: interval_of(&differences, squares / (drawn.len() - 1) as f64),
        seeds: pairs.len(),
    }))
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
    use rand::Rng;

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
        let pairs = [(&one, &other); SEEDS_TO_TELL];
        let found = difference(&scoring(400), &pairs, &accuracy)
            .unwrap()
            .unwrap();
        // One in twenty rows differs: 0.05 ± 1.96 · sqrt(0.05 · 0.95 / 400) = 0.05 ± 0.021. Drawn
        // apart, the two accuracies would have had ±0.06.
        assert!((found.estimate - 0.05).abs() < 1e-12, "{found:?}");
        assert!((found.interval.low - 0.029).abs() < 0.006, "{found:?}");
        assert!((found.interval.high - 0.071).abs() < 0.006, "{found:?}");
        assert_eq!(found.verdict(), Verdict::Better);
        let pairs = [(&other, &one); SEEDS_TO_TELL];
        let back = difference(&scoring(400), &pairs, &accuracy)
            .unwrap()
            .unwrap();
        assert_eq!(back.verdict(), Verdict::Worse);
        let alone = difference(&scoring(400), &pairs[..1], &accuracy)
            .unwrap()
            .unwrap();
        assert_eq!(alone.interval, back.interval);
        assert_eq!(alone.verdict(), Verdict::CannotTell, "of one seed");
    }

    #[test]
    fn the_interval_of_seeds_is_students() {
        // 1, 2, 3: mean 2, s² = 1, so 2 ± 4.303 / sqrt(3) with no variance of rows.
        let found = interval_of(&[1.0, 2.0, 3.0], 0.0);
        assert!((found.high - (2.0 + 4.303 / 3f64.sqrt())).abs() < 1e-9);
        assert!((found.low + found.high - 4.0).abs() < 1e-12);
        // Seeds that agree leave the variance of rows alone.
        let found = interval_of(&[1.0; 3], 0.04);
        assert!((found.high - (1.0 + 1.959_964 * 0.2)).abs() < 1e-9);
        assert_eq!(
            interval_of(&[1.0; 3], 0.0),
            Interval {
                low: 1.0,
                high: 1.0
            }
        );
        // Tables: 2.201 of 11, 2.086 of 20, 1.984 of 100 degrees of freedom.
        for (freedom, quantile) in [(11.0, 2.201), (20.0, 2.086), (100.0, 1.984)] {
            assert!((student_quantile(freedom) / quantile - 1.0).abs() < 1e-3);
        }
    }

    /// Numbers of a normal distribution with variance 1, as sums of twelve.
    fn normal(generator: &mut ChaCha8Rng) -> f64 {
        (0..12).map(|_| generator.random::<f64>()).sum::<f64>() - 6.0
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut generator = ChaCha8Rng::seed_from_u64(7);
        for (seeds, rows, over_seeds) in
            [(3, 0.1, 1.0), (3, 1.0, 1.0), (5, 0.3, 1.0), (3, 1.0, 0.1)]
        {
            let mut holds = 0;
            for _ in 0..4000 {
                // The truth is 0; what rows do is common to all seeds.
                let common = rows * normal(&mut generator);
                let found: Vec<f64> = (0..seeds)
                    .map(|_| common + over_seeds * normal(&mut generator))
                    .collect();
                let found = interval_of(&found, rows * rows);
                holds += u32::from(found.low <= 0.0 && found.high >= 0.0);
            }
            let share = f64::from(holds) / 4000.0;
            assert!(
                (0.94..=0.99).contains(&share),
                "{seeds} seeds, {rows} to {over_seeds}: {share}"
            );
        }
    }

    #[test]
    fn seeds_that_disagree_widen_the_interval() {
        let equal = [1, 2, 3].map(|seed| (run(seed, 200, 70), run(seed, 200, 65)));
        let apart = [(1, 75), (2, 85), (3, 50)];
        let apart = apart.map(|(seed, right)| (run(seed, 200, right), run(seed, 200, 65)));
        let of = |pairs: &[(Run, Run); 3]| {
            let pairs = pairs.each_ref().map(|(one, other)| (one, other));
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
    fn parts_are_scored_by_themselves() {
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
        let draws = RowDraws::new(scoring.metric, &scoring.parts, run.truth());
        let rows = draws.draw(&mut ChaCha8Rng::seed_from_u64(1));
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
