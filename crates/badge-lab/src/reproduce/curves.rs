//! Speed-score curves of one trained model: operating points chosen on dev, reported on test.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use badge_core::checkpoint::Checkpoint;
use badge_core::cost::ExitHistogram;
use badge_core::policy::PolicySpec;
use serde::{Deserialize, Serialize};

use super::cell::CellCurves;
use super::outputs::{self, OutputFile, class};
use crate::evaluation::{Replay, Subject, Timed, Turns};
use crate::inference::{Inference, Provenance};
use crate::sweep::{Family, Origin, Sweep, SweepPoint};

/// The curves of one model on the first split that is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveResults {
    /// Rows of the split.
    pub rows: usize,
    /// Depths of the exits.
    pub depths: Vec<usize>,
    /// Score of the deepest exit, which is where every curve begins.
    pub full_score: f64,
    /// Rows whose time was taken, 0 for none.
    pub timed_rows: usize,
    /// Milliseconds of the plain backbone with one exit on a timed row, in the mean.
    pub plain_ms: Option<f64>,
    /// What computed and was timed.
    pub computed_by: Provenance,
    /// One curve per policy.
    pub curves: Vec<PolicyCurve>,
    /// Where each row left under each point's policy, and what it was answered.
    pub replays: OutputFile,
}

/// The points of one policy, the slowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyCurve {
    /// The policy.
    pub family: Family,
    /// Its operating points.
    pub points: Vec<CurvePoint>,
}

/// One operating point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The policy with its parameters.
    pub policy: PolicySpec,
    /// Its score on dev, by which it was chosen.
    pub dev_score: f64,
    /// Its score.
    pub score: f64,
    /// 1 - mean exit / M: the share of blocks saved.
    pub blocks_saved: f64,
    /// 1 - sum(t)/sum(T) at batch size 1, if time was taken.
    pub time_saved: Option<f64>,
    /// Rows that left at each exit.
    pub left: Vec<u64>,
    /// Those of them that were answered right.
    pub right: Vec<u64>,
}

/// Where rows leave under every policy of a curve, and their answers: P lists of N each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replays {
    /// Depths.
    pub depths: Vec<Vec<usize>>,
    /// Classes.
    pub answers: Vec<Vec<usize>>,
}

const REPLAYS_FILE: &str = "replays.safetensors";

impl CurveResults {
    /// Chooses points on dev and replays them over the reported rows; their time is taken row by
    /// row on as many rows as are wanted.
    ///
    /// # Errors
    /// When the model cannot run a policy, or a file cannot be written.
    pub fn draw(
        wanted: &CellCurves,
        (dev, reported): (Subject<'_>, Subject<'_>),
        model: &mut dyn Inference,
        folder: &Path,
    ) -> Result<Self> {
        let computed_by = model.provenance();
        let origin = Origin {
            task: "",
            computed_by: &computed_by,
        };
        let dev_logits = model.all_exits(dev.encoded, &mut |_| {})?;
        let sweep = Sweep::replay(&dev, &dev_logits, &wanted.of.policies, origin)?;
        let logits = model.all_exits(reported.encoded, &mut |_| {})?;
        let outputs = reported.outputs(&logits)?;
        let mut curves = Vec::new();
        let mut tensors = Checkpoint::default();
        for family in &wanted.of.policies {
            let chosen = operating_points(&sweep, *family, wanted.points);
            let mut points = Vec::new();
            let mut replays = Replays {
                depths: Vec::new(),
                answers: Vec::new(),
            };
            for point in chosen {
                let policy = reported.policy(&point.policy)?;
                let replay = outputs.replay(&policy);
                points.push(CurvePoint::of(point, &replay, &reported)?);
                replays
                    .depths
                    .push(replay.depths.iter().map(|depth| depth.0).collect());
                let classes = replay.answers.iter().map(class);
                replays.answers.push(classes.collect::<Result<_>>()?);
            }
            if !points.is_empty() {
                replays.insert(&mut tensors, *family)?;
            }
            curves.push(PolicyCurve {
                family: *family,
                points,
            });
        }
        let plan = reported.config.exits().exits;
        let deepest = logits.answers(logits.exits - 1, reported.labels);
        let mut results = Self {
            rows: logits.rows(),
            depths: plan.depths().iter().map(|depth| depth.0).collect(),
            full_score: reported.split.score(reported.metric, &deepest)?,
            timed_rows: 0,
            plain_ms: None,
            computed_by,
            curves,
            replays: outputs::write(&tensors, folder, REPLAYS_FILE)?,
        };
        results.take_time(&reported, model, wanted.timed_rows)?;
        Ok(results)
    }

    fn take_time(
        &mut self,
        subject: &Subject<'_>,
        model: &mut dyn Inference,
        rows_max: usize,
    ) -> Result<()> {
        let rows = crate::sweep::timed_rows(subject.encoded.encodings(), rows_max);
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let policies = points().map(|point| subject.policy(&point.policy));
        let policies = policies.collect::<Result<Vec<Arc<_>>>>()?;
        if rows.is_empty() || policies.is_empty() {
            return Ok(());
        }
        let turns = Turns {
            rows,
            policies,
            plain: subject.policy(&PolicySpec::Full)?,
        };
        let timed: Vec<Timed> = turns.run(model, &mut |_| {})?;
        self.timed_rows = turns.rows.len();
        self.plain_ms = Some(1e3 * timed[0].totals.plain_s / self.timed_rows as f64);
        let points = self.curves.iter_mut().flat_map(|curve| &mut curve.points);
        for (point, timed) in points.zip(timed) {
            point.time_saved = Some(timed.totals.time_saved().0);
        }
        Ok(())
    }

    /// The curve of a policy.
    pub fn curve(&self, family: Family) -> Option<&PolicyCurve> {
        self.curves.iter().find(|curve| curve.family == family)
    }

    /// What every row did under the points of a curve.
    ///
    /// # Errors
    /// When the file is missing, damaged or another.
    pub fn replays(&self, folder: &Path, family: Family) -> Result<Replays> {
        let (tensors, name) = outputs::read(folder, &self.replays)?;
        let take = |what: &str| outputs::take(&tensors, &name, &format!("{family}.{what}"));
        Ok(Replays {
            depths: take("depths")?,
            answers: take("answers")?,
        })
    }
}

impl Replays {
    fn insert(&self, tensors: &mut Checkpoint, family: Family) -> Result<()> {
        let (depths, answers) = (format!("{family}.depths"), format!("{family}.answers"));
        outputs::insert(tensors, REPLAYS_FILE, (&depths, &self.depths))?;
        outputs::insert(tensors, REPLAYS_FILE, (&answers, &self.answers))
    }
}

impl CurvePoint {
    fn of(chosen: &SweepPoint, replay: &Replay, subject: &Subject<'_>) -> Result<Self> {
        let plan = subject.config.exits().exits;
        let histogram = ExitHistogram::of(&plan, replay.depths.iter().copied());
        let mean_exit = histogram.mean_depth().context("there are rows")?;
        let truth = subject.split.targets()?;
        let rows = || replay.depths.iter().zip(replay.answers.iter().zip(&truth));
        let right = |depth| {
            let of_exit = rows().filter(|(at, (answer, truth))| **at == depth && answer == truth);
            of_exit.count() as u64
        };
        Ok(Self {
            policy: chosen.policy.clone(),
            dev_score: chosen.score,
            score: subject.split.score(subject.metric, &replay.answers)?,
            blocks_saved: 1.0 - mean_exit / plan.deepest().0 as f64,
            time_saved: None,
            left: histogram.iter().map(|(_, count)| count).collect(),
            right: plan.depths().iter().map(|depth| right(*depth)).collect(),
        })
    }
}

/// The best points on dev in `ranges` equal ranges of blocks saved, the slowest first; of equals
/// in score the one that saves more.
fn operating_points(dev: &Sweep, family: Family, ranges: usize) -> Vec<&SweepPoint> {
    let mut best: Vec<Option<&SweepPoint>> = vec![None; ranges];
    let saved = |point: &SweepPoint| 1.0 - point.mean_exit / dev.blocks as f64;
    for point in dev.points.iter().filter(|point| point.family == family) {
        let range = (saved(point) * ranges as f64) as usize;
        let kept = &mut best[range.min(ranges - 1)];
        let is_better =
            kept.is_none_or(|kept| (point.score, saved(point)) > (kept.score, saved(kept)));
        if is_better {
            *kept = Some(point);
        }
    }
    best.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use badge_core::divergence::Divergence;

    use super::*;

    fn point(mean_exit: f64, score: f64) -> SweepPoint {
        SweepPoint {
            policy: PolicySpec::Full,
            family: Family::Dge,
            score,
            mean_exit,
            layer_speedup: 10.0 / mean_exit,
            flops_speedup: 1.0,
            frontier: false,
            interval: None,
            time: None,
        }
    }

    #[test]
    fn of_every_range_of_speed_the_best_on_dev_is_taken() {
        let dev = Sweep {
            task: String::new(),
            split: "dev".to_owned(),
            split_sha256: String::new(),
            metric: String::new(),
            rows: 10,
            blocks: 10,
            depths: (1..=10).collect(),
            exit_scores: vec![0.9],
            families: vec![Family::Dge],
            divergence: Divergence::default(),
            computed_by: Provenance {
                name: String::new(),
                precision: String::new(),
                instruction_set: String::new(),
            },
            timed_rows: 0,
            points: vec![
                point(9.0, 0.80),
                point(8.5, 0.85),
                point(8.9, 0.85), // saves less for the same
                point(4.0, 0.70),
                point(1.0, 0.60),
            ],
        };
        let chosen = operating_points(&dev, Family::Dge, 5);
        let exits: Vec<_> = chosen.iter().map(|point| point.mean_exit).collect();
        assert_eq!(exits, [8.5, 4.0, 1.0]);
        assert!(operating_points(&dev, Family::Entropy, 5).is_empty());
    }
}
