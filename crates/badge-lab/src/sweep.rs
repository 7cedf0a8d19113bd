//! Speed-score curves: every policy over a grid of its parameters, from one pass over the rows.
//!
//! All exits are computed once and every policy is replayed over them; only the points worth having
//! are then run row by row, for their wall-clock time.

mod family;
mod grid;
mod presentation;
mod thresholds;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use badge_core::divergence::Divergence;
use badge_core::policy::PolicySpec;
use badge_tasks::Encoding;
use badge_train::evaluate::ExitLogits;
use serde::{Deserialize, Serialize};

use crate::evaluation::{ExitOutputs, Subject, TimeEvaluation, Turns};
use crate::frontier::frontier;
use crate::inference::{Inference, OnRow, Provenance};
use crate::interval::{Interval, bootstrap};

use grid::Grid;

pub use family::Family;
pub use presentation::{CSV_FILE, JSON_FILE, REPORT_FILE, SVG_FILE, curve_table};

/// Speed-score points on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// The task.
    pub task: String,
    /// The split.
    pub split: String,
    /// Its content hash.
    pub split_sha256: String,
    /// The score S.
    pub metric: String,
    /// Number of rows.
    pub rows: usize,
    /// Blocks of the model, M.
    pub blocks: usize,
    /// Depths of the exits.
    pub depths: Vec<usize>,
    /// Score of every exit, in their order.
    pub exit_scores: Vec<f64>,
    /// The curves.
    pub families: Vec<Family>,
    /// The divergence that divergence-based exiting compares exits by.
    pub divergence: Divergence,
    /// What computed the logits and was timed.
    pub computed_by: Provenance,
    /// Rows that were timed, 0 for none.
    pub timed_rows: usize,
    /// `full`, then policy by policy.
    pub points: Vec<SweepPoint>,
}

/// One policy with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// The policy.
    pub policy: PolicySpec,
    /// The curve it belongs to.
    pub family: Family,
    /// Its score.
    pub score: f64,
    /// Mean depth at which rows left.
    pub mean_exit: f64,
    /// M / mean exit.
    pub layer_speedup: f64,
    /// Floating-point operations of the plain backbone over the policy's.
    pub flops_speedup: f64,
    /// Whether no other point of the curve, and not `full`, is better in score and layer speed-up.
    pub frontier: bool,
    /// 95 % bootstrap interval of the score, of points on the frontier.
    pub interval: Option<Interval>,
    /// Wall-clock figures, of points on the frontier.
    pub time: Option<TimeEvaluation>,
}

/// What the rows are called in the results.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The task.
    pub task: &'a str,
    /// What computed the logits.
    pub computed_by: &'a Provenance,
}

impl Sweep {
    /// Replays `full` and the policies of these families over stored logits.
    ///
    /// # Errors
    /// When the model cannot run a family, a logit is not finite, or rows have no labels.
    pub fn replay(
        subject: &Subject,
        logits: &ExitLogits,
        families: &[Family],
        origin: Origin<'_>,
    ) -> Result<Self> {
        let outputs = subject.outputs(logits)?;
        let plan = subject.config.exits().exits;
        let exit_score = |exit| {
            let answers = logits.answers(exit, subject.labels);
            Ok(subject.split.score(subject.metric, &answers)?)
        };
        let specs = specs(subject, &outputs, families)?;
        let points = specs.iter().map(|spec| point(subject, &outputs, spec));
        let mut sweep = Self {
            task: origin.task.to_owned(),
            split: subject.split.name.to_string(),
            split_sha256: subject.split.sha256.clone(),
            metric: subject.metric.name().to_owned(),
            rows: logits.rows(),
            blocks: plan.deepest().0,
            depths: plan.depths().iter().map(|depth| depth.0).collect(),
            exit_scores: (0..logits.exits).map(exit_score).collect::<Result<_>>()?,
            families: families.to_vec(),
            divergence: Divergence::default(),
            computed_by: origin.computed_by.clone(),
            timed_rows: 0,
            points: points.collect::<Result<_>>()?,
        };
        sweep.mark_frontiers();
        sweep.add_intervals(subject, &outputs)?;
        Ok(sweep)
    }

    /// The policies on the frontiers but `full`, which is what their time is compared with.
    pub fn worth_timing(&self) -> Vec<PolicySpec> {
        let on_frontier = self.points.iter().filter(|point| point.is_timed());
        on_frontier.map(|point| point.policy.clone()).collect()
    }

    /// Takes the time of the policies on the frontiers at batch size 1, on up to `rows_max` rows
    /// drawn evenly from the split. `on_row` is told of every policy's rows.
    ///
    /// # Errors
    /// When a row does not fit the model, or a logit is not finite.
    pub fn measure(
        &mut self,
        subject: &Subject,
        model: &mut dyn Inference,
        rows_max: usize,
        on_row: OnRow,
    ) -> Result<()> {
        let specs = self.worth_timing();
        let rows = timed_rows(subject.encoded.encodings(), rows_max);
        if rows.is_empty() || specs.is_empty() {
            return Ok(());
        }
        let policies = specs.iter().map(|spec| subject.policy(spec));
        let turns = Turns {
            policies: policies.collect::<Result<Vec<Arc<_>>>>()?,
            plain: subject.policy(&PolicySpec::Full)?,
            rows,
        };
        let timed = turns.run(model, on_row)?;
        self.timed_rows = turns.rows.len();
        let points = self.points.iter_mut().filter(|point| point.is_timed());
        for (point, timed) in points.zip(timed) {
            point.time = Some(TimeEvaluation::of(timed.totals, self.timed_rows));
        }
        Ok(())
    }

    /// The points of one curve that lie on its frontier, the slowest first.
    pub fn frontier(&self, family: Family) -> Vec<&SweepPoint> {
        let of_family = |point: &&SweepPoint| point.frontier && point.family == family;
        let mut points: Vec<_> = self.points.iter().filter(of_family).collect();
        points.sort_by(|a, b| a.layer_speedup.total_cmp(&b.layer_speedup));
        points
    }

    /// Score of the deepest exit.
    pub fn full_score(&self) -> f64 {
        self.exit_scores.last().copied().unwrap_or(0.0)
    }

    fn mark_frontiers(&mut self) {
        let families: BTreeSet<Family> = self.points.iter().map(|point| point.family).collect();
        for family in families {
            let curve: Vec<usize> = (0..self.points.len())
                .filter(|index| [Family::Full, family].contains(&self.points[*index].family))
                .collect();
            let place = |index: &usize| {
                let point = &self.points[*index];
                (point.layer_speedup, point.score)
            };
            let kept = frontier(&curve.iter().map(place).collect::<Vec<_>>());
            for index in kept.into_iter().map(|kept| curve[kept]) {
                self.points[index].frontier |= self.points[index].family == family;
            }
        }
    }

    fn add_intervals(&mut self, subject: &Subject, outputs: &ExitOutputs) -> Result<()> {
        let truth = subject.split.targets()?;
        for point in self.points.iter_mut().filter(|point| point.frontier) {
            let policy = subject.policy(&point.policy)?;
            let answers = outputs.replay(&policy).answers;
            point.interval = Some(bootstrap(subject.metric, &answers, &truth));
        }
        Ok(())
    }
}

impl SweepPoint {
    fn is_timed(&self) -> bool {
        self.frontier && self.family != Family::Full
    }
}

/// `full`, and every family over its grid.
fn specs(
    subject: &Subject,
    outputs: &ExitOutputs,
    families: &[Family],
) -> Result<Vec<(Family, PolicySpec)>> {
    let exits = subject.model_exits;
    let grid = Grid { exits, outputs };
    let mut specs = vec![(Family::Full, PolicySpec::Full)];
    for family in families {
        family.check(exits).with_context(|| format!("{family}"))?;
        let of_family = grid.specs(*family)?.into_iter();
        specs.extend(of_family.map(|spec| (*family, spec)));
    }
    Ok(specs)
}

fn point(
    subject: &Subject,
    outputs: &ExitOutputs,
    (family, spec): &(Family, PolicySpec),
) -> Result<SweepPoint> {
    let policy = subject.policy(spec)?;
    let replay = outputs.replay(&policy);
    let cost = subject.cost(&policy, &replay.depths);
    Ok(SweepPoint {
        policy: spec.clone(),
        family: *family,
        score: subject.split.score(subject.metric, &replay.answers)?,
        mean_exit: cost.mean_exit(),
        layer_speedup: cost.layer_speedup(),
        flops_speedup: cost.macs.flops_speedup().0,
        frontier: false,
        interval: None,
        time: None,
    })
}

/// Up to `rows_max` rows at even distances.
pub(crate) fn timed_rows(rows: &[Encoding], rows_max: usize) -> Vec<&Encoding> {
    let count = rows.len().min(rows_max);
    (0..count)
        .map(|row| &rows[row * rows.len() / count])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(family: Family, layer_speedup: f64, score: f64) -> SweepPoint {
        SweepPoint {
            policy: PolicySpec::Full,
            family,
            score,
            mean_exit: 6.0 / layer_speedup,
            layer_speedup,
            flops_speedup: layer_speedup,
            frontier: false,
            interval: None,
            time: None,
        }
    }

    #[test]
    fn each_curve_has_its_own_frontier_and_full_bounds_them_all() {
        let provenance = Provenance {
            name: "engine".to_owned(),
            precision: "f32".to_owned(),
            instruction_set: "scalar".to_owned(),
        };
        let mut sweep = Sweep {
            task: String::new(),
            split: String::new(),
            split_sha256: String::new(),
            metric: String::new(),
            rows: 1,
            blocks: 6,
            depths: vec![6],
            exit_scores: vec![0.9],
            families: vec![Family::Dge, Family::Fixed],
            divergence: Divergence::default(),
            computed_by: provenance,
            timed_rows: 0,
            points: vec![
                point(Family::Full, 1.0, 0.9),
                point(Family::Fixed, 1.0, 0.9), // `full` once more
                point(Family::Fixed, 2.0, 0.5), // beaten by dge, but the best of its curve
                point(Family::Dge, 1.0, 0.8),   // worse than `full`
                point(Family::Dge, 2.0, 0.8),
                point(Family::Dge, 1.5, 0.7), // beaten
            ],
        };
        sweep.mark_frontiers();
        let marks: Vec<_> = sweep.points.iter().map(|point| point.frontier).collect();
        assert_eq!(marks, [true, false, true, false, true, false]);
        assert_eq!(sweep.worth_timing().len(), 2);
    }

    #[test]
    fn timed_rows_are_spread_over_the_split() {
        let rows: Vec<Encoding> = (0..10)
            .map(|id| Encoding {
                ids: vec![id],
                type_ids: vec![0],
            })
            .collect();
        let ids = |rows_max| -> Vec<u32> {
            let timed = timed_rows(&rows, rows_max);
            timed.iter().map(|row| row.ids[0]).collect()
        };
        assert_eq!(ids(4), [0, 2, 5, 7]);
        assert_eq!(ids(99).len(), 10);
        assert_eq!(ids(0), [0; 0]);
    }
}
