//! A model on a split: the score of every exit, and what a policy saves for what it costs.

mod turns;

use std::sync::Arc;

use anyhow::Result;
use badge_core::config::ModelConfig;
use badge_core::cost::{ExitHistogram, MacTotals, ModelShape, TimeTotals};
use badge_core::distribution::{ContinueProbability, Prediction};
use badge_core::exit::Depth;
use badge_core::policy::{ModelExits, Policy, PolicySpec};
use badge_tasks::{LabelSpace, MetricKind, Split, Target};
use badge_train::data::EncodedSplit;
use badge_train::evaluate::{ExitLogits, ExitScores};
use serde::{Deserialize, Serialize};

use crate::inference::{Inference, OnRow};
use crate::interval::{Interval, bootstrap};
use crate::replay::exit_points;

pub use turns::{Timed, Turns};

/// The sizes that a model's cost follows from.
pub fn model_shape(config: &ModelConfig) -> ModelShape {
    ModelShape {
        backbone: config.backbone.shape(),
        logits: config.head.outputs(),
        exits: config.exits(),
    }
}

/// The rows a model is held against, and how its answers are judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What the model is.
    pub config: &'a ModelConfig,
    /// Its exits, as far as policies are concerned.
    pub model_exits: &'a ModelExits,
    /// The rows with their labels.
    pub split: &'a Split,
    /// The same as token ids.
    pub encoded: &'a EncodedSplit,
    /// The score S.
    pub metric: MetricKind,
    /// What may be answered.
    pub labels: &'a LabelSpace,
}

/// The score of every exit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of rows.
    pub rows: usize,
    /// Depths of the exits.
    pub depths: Vec<usize>,
    /// Their scores, S-avg and S-best.
    pub scores: ExitScores,
    /// 95 % bootstrap interval of each exit's score.
    pub intervals: Vec<Interval>,
}

/// A policy's score and cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyEvaluation {
    /// The policy.
    pub policy: PolicySpec,
    /// Its score on the split.
    pub score: f64,
    /// 95 % bootstrap interval of the score.
    pub interval: Interval,
    /// Share of rows answered as the deepest exit answers them.
    pub agreement: f64,
    /// Rows that left at each depth.
    pub histogram: Vec<(usize, u64)>,
    /// Mean depth at which rows left.
    pub mean_exit: f64,
    /// M / mean exit.
    pub layer_speedup: f64,
    /// Floating-point operations per row under the policy.
    pub flops: f64,
    /// The same of the plain backbone with one exit.
    pub flops_plain: f64,
    /// Wall-clock figures, if time was taken.
    pub time: Option<TimeEvaluation>,
}

/// Wall-clock time at batch size 1, the policy's rows and the plain backbone's in turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimeEvaluation {
    /// Mean milliseconds per row under the policy.
    pub early_ms: f64,
    /// Mean milliseconds per row of the plain backbone with one exit.
    pub plain_ms: f64,
    /// 1 - sum(t)/sum(T): the paper's "speedup".
    pub time_saved: f64,
    /// sum(T)/sum(t).
    pub wall_clock_speedup: f64,
}

/// What every exit says about every row, read once from the logits, for policies to be replayed
/// over.
#[derive(Debug)]
pub struct ExitOutputs {
    /// One prediction per exit of the plan, row by row.
    pub predictions: Vec<Vec<Prediction>>,
    /// What a learning-to-exit head says beside each of them.
    pub continuations: Vec<Vec<Option<ContinueProbability>>>,
    /// The answers they stand for.
    pub answers: Vec<Vec<Target>>,
}

/// Where each row left under a policy, and what it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// Depths, by row.
    pub depths: Vec<Depth>,
    /// Answers, by row.
    pub answers: Vec<Target>,
}

/// What rows that leave where a policy says cost: counted, not timed.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// Rows that left at each depth.
    pub histogram: ExitHistogram,
    /// Multiply-accumulates of all rows.
    pub macs: MacTotals,
}

impl Cost {
    /// Mean depth at which rows left.
    pub fn mean_exit(&self) -> f64 {
        self.histogram.mean_depth().unwrap_or(0.0)
    }

    /// M / mean exit.
    pub fn layer_speedup(&self) -> f64 {
        self.histogram
            .layer_speedup()
            .map_or(1.0, |speedup| speedup.0)
    }
}

impl TimeEvaluation {
    /// Means over so many rows.
    pub fn of(totals: TimeTotals, rows: usize) -> Self {
        Self {
            early_ms: totals.early_s * 1e3 / rows as f64,
            plain_ms: totals.plain_s * 1e3 / rows as f64,
            time_saved: totals.time_saved().0,
            wall_clock_speedup: totals.wall_clock_speedup().0,
        }
    }
}

impl Subject<'_> {
    /// Runs every exit on every row.
    ///
    /// # Errors
    /// When a row does not fit the model or has no label.
    pub fn evaluate(
        &self,
        model: &mut dyn Inference,
        on_row: OnRow,
    ) -> Result<(Evaluation, ExitLogits)> {
        let logits = model.all_exits(self.encoded, on_row)?;
        Ok((self.scores(&logits)?, logits))
    }

    /// The score of every exit, from stored logits.
    ///
    /// # Errors
    /// When a row has no label.
    pub fn scores(&self, logits: &ExitLogits) -> Result<Evaluation> {
        let scores = ExitScores::of(logits, self.split, (self.metric, self.labels))?;
        let truth = self.split.targets()?;
        let intervals = (0..logits.exits)
            .map(|exit| bootstrap(self.metric, &logits.answers(exit, self.labels), &truth))
            .collect();
        let plan = self.config.exits().exits;
        let depths = plan.depths().iter().map(|depth| depth.0).collect();
        Ok(Evaluation {
            rows: logits.rows(),
            depths,
            scores,
            intervals,
        })
    }

    /// Builds a policy for the model.
    ///
    /// # Errors
    /// When the model cannot run the policy.
    pub fn policy(&self, spec: &PolicySpec) -> Result<Arc<Policy>> {
        Ok(Arc::new(spec.build_for(self.model_exits)?))
    }

    /// Reads stored logits as predictions and answers.
    ///
    /// # Errors
    /// When a logit is not finite.
    pub fn outputs(&self, logits: &ExitLogits) -> Result<ExitOutputs> {
        let kind = self.config.head.prediction_kind();
        let mut outputs = ExitOutputs {
            predictions: Vec::with_capacity(logits.rows()),
            continuations: Vec::with_capacity(logits.rows()),
            answers: Vec::with_capacity(logits.rows()),
        };
        for row in 0..logits.rows() {
            outputs.predictions.push(logits.predictions(row, kind)?);
            outputs.continuations.push(logits.continuations(row)?);
            let answer = |exit| self.labels.decide(logits.logits(row, exit));
            outputs
                .answers
                .push((0..logits.exits).map(answer).collect());
        }
        Ok(outputs)
    }

    /// Where each row leaves under a policy and what it answers, from stored logits.
    ///
    /// # Errors
    /// When the policy does not fit the model, or a logit is not finite.
    pub fn exits(&self, spec: &PolicySpec, logits: &ExitLogits) -> Result<Replay> {
        let policy = self.policy(spec)?;
        Ok(self.outputs(logits)?.replay(&policy))
    }

    /// Replays a policy over stored logits: score and cost without wall-clock time.
    ///
    /// # Errors
    /// When the policy does not fit the model, or a logit is not finite.
    pub fn replay(&self, spec: &PolicySpec, logits: &ExitLogits) -> Result<PolicyEvaluation> {
        let policy = self.policy(spec)?;
        self.judge(&policy, &self.outputs(logits)?.replay(&policy), logits)
    }

    /// Score and layer speed-up of a policy over stored logits, without the interval and cost that
    /// [`replay`](Self::replay) adds.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn score_and_speedup(
        &self,
        spec: &PolicySpec,
        outputs: &ExitOutputs,
    ) -> Result<(f64, f64)> {
        let policy = self.policy(spec)?;
        let Replay { depths, answers } = outputs.replay(&policy);
        let speedup = ExitHistogram::of(policy.plan(), depths).layer_speedup();
        let score = self.split.score(self.metric, &answers)?;
        Ok((score, speedup.map_or(1.0, |speedup| speedup.0)))
    }

    /// Runs a policy row by row at batch size 1 and takes the time of every row, beside that of
    /// the plain backbone with one exit on the same row, so that both see the same machine.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn run(
        &self,
        model: &mut dyn Inference,
        (spec, logits): (&PolicySpec, &ExitLogits),
        on_row: OnRow,
    ) -> Result<PolicyEvaluation> {
        let policy = self.policy(spec)?;
        let turns = Turns {
            rows: self.encoded.encodings().iter().collect(),
            policies: vec![Arc::clone(&policy)],
            plain: self.policy(&PolicySpec::Full)?,
        };
        let timed = turns
            .run(model, on_row)?
            .pop()
            .expect("one result per policy");
        let mut evaluation = self.judge(&policy, &timed.replay, logits)?;
        let rows = timed.replay.depths.len();
        evaluation.time = Some(TimeEvaluation::of(timed.totals, rows));
        Ok(evaluation)
    }

    fn judge(
        &self,
        policy: &Policy,
        replay: &Replay,
        logits: &ExitLogits,
    ) -> Result<PolicyEvaluation> {
        let Replay { depths, answers } = replay;
        let cost = self.cost(policy, depths);
        let deepest = logits.answers(logits.exits - 1, self.labels);
        let rows = answers.len() as f64;
        Ok(PolicyEvaluation {
            policy: policy.spec().clone(),
            score: self.split.score(self.metric, answers)?,
            interval: bootstrap(self.metric, answers, &self.split.targets()?),
            agreement: share_of_equals(answers, &deepest),
            histogram: cost
                .histogram
                .iter()
                .map(|(depth, count)| (depth.0, count))
                .collect(),
            mean_exit: cost.mean_exit(),
            layer_speedup: cost.layer_speedup(),
            flops: badge_core::cost::flops(cost.macs.early) as f64 / rows,
            flops_plain: badge_core::cost::flops(cost.macs.plain) as f64 / rows,
            time: None,
        })
    }

    /// What it costs that rows leave at these depths under a policy.
    ///
    /// # Panics
    /// When there is not one depth per row, or a depth carries no exit.
    pub fn cost(&self, policy: &Policy, depths: &[Depth]) -> Cost {
        let encodings = self.encoded.encodings();
        assert_eq!(depths.len(), encodings.len(), "one depth per row");
        let shape = model_shape(self.config);
        let needed: Vec<Depth> = policy
            .plan()
            .depths()
            .iter()
            .copied()
            .filter(|d| policy.needs(*d))
            .collect();
        let mut macs = MacTotals { early: 0, plain: 0 };
        for (encoding, depth) in encodings.iter().zip(depths) {
            macs.early += shape.macs_to(*depth, encoding.len(), &needed);
            macs.plain += shape.plain_macs(encoding.len());
        }
        Cost {
            histogram: ExitHistogram::of(policy.plan(), depths.iter().copied()),
            macs,
        }
    }
}

impl ExitOutputs {
    /// Where each row leaves under a policy, and what it answers.
    ///
    /// # Panics
    /// When the policy was built for another model.
    pub fn replay(&self, policy: &Policy) -> Replay {
        let points = exit_points(policy, self);
        let rows = self.answers.iter().zip(&points);
        Replay {
            answers: rows
                .map(|(answers, at)| answers[at.position].clone())
                .collect(),
            depths: points.iter().map(|point| point.depth).collect(),
        }
    }
}

/// Share of places at which two lists hold the same.
///
/// # Panics
/// When the lists differ in length.
pub(crate) fn share_of_equals<T: PartialEq>(one: &[T], other: &[T]) -> f64 {
    assert_eq!(one.len(), other.len());
    let equal = one.iter().zip(other).filter(|(a, b)| a == b).count();
    equal as f64 / one.len() as f64
}
