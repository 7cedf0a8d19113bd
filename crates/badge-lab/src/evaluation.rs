//! A model on a split: the score of every exit, and what a policy saves for what it costs.

use anyhow::Result;
use badge_core::config::{HeadConfig, ModelConfig, ProblemType};
use badge_core::cost::{ExitHistogram, MacTotals, ModelShape, TimeTotals};
use badge_core::distribution::PredictionKind;
use badge_core::exit::Depth;
use badge_core::policy::{Policy, PolicySpec};
use badge_tasks::{LabelSpace, MetricKind, Split, Target};
use badge_train::data::EncodedSplit;
use badge_train::evaluate::{ExitLogits, ExitScores, evaluate};
use badge_train::infer::classify;
use badge_train::model::MultiExitModel;
use serde::{Deserialize, Serialize};

use crate::interval::{Interval, bootstrap};

/// The kind of answer that a model's exits give.
pub fn prediction_kind(head: &HeadConfig) -> PredictionKind {
    match head.problem {
        ProblemType::SingleLabel => PredictionKind::SingleLabel {
            classes: head.outputs(),
        },
        ProblemType::MultiLabel => PredictionKind::MultiLabel {
            labels: head.outputs(),
        },
        ProblemType::Regression => PredictionKind::Regression,
    }
}

/// The sizes that a model's cost follows from.
pub fn model_shape(config: &ModelConfig) -> ModelShape {
    let exits = config.exits();
    ModelShape {
        backbone: config.backbone.shape(),
        pooler: exits.pooler,
        logits: config.head.outputs(),
        bypass_rank: exits.bypass.map(|bypass| bypass.rank),
    }
}

/// A model, the rows it is held against, and how answers are judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The model.
    pub model: &'a MultiExitModel,
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

/// What is told while rows are timed: rows done and rows in all.
pub type OnRow<'a> = &'a mut dyn FnMut(usize);

impl Subject<'_> {
    /// Runs every exit on every row.
    ///
    /// # Errors
    /// When a row does not fit the model or has no label.
    pub fn evaluate(&self, on_row: OnRow) -> Result<(Evaluation, ExitLogits)> {
        let logits = evaluate(self.model, self.encoded, on_row)?;
        let scores = ExitScores::of(&logits, self.split, (self.metric, self.labels))?;
        let truth = self.split.targets()?;
        let intervals = (0..logits.exits)
            .map(|exit| bootstrap(self.metric, &logits.answers(exit, self.labels), &truth))
            .collect();
        let plan = self.model.config().exits().exits;
        let depths = plan.depths().iter().map(|depth| depth.0).collect();
        Ok((
            Evaluation {
                rows: logits.rows(),
                depths,
                scores,
                intervals,
            },
            logits,
        ))
    }

    /// Builds a policy for the model.
    ///
    /// # Errors
    /// When the policy does not fit the model's exits.
    pub fn policy(&self, spec: &PolicySpec) -> Result<Policy> {
        let config = self.model.config();
        Ok(spec.build(&config.exits().exits, prediction_kind(&config.head))?)
    }

    /// Where each row leaves under a policy and what it answers, from stored logits.
    ///
    /// # Errors
    /// When the policy does not fit the model, or a logit is not finite.
    pub fn exits(
        &self,
        spec: &PolicySpec,
        logits: &ExitLogits,
    ) -> Result<(Vec<Depth>, Vec<Target>)> {
        self.exits_of(&self.policy(spec)?, logits)
    }

    fn exits_of(&self, policy: &Policy, logits: &ExitLogits) -> Result<(Vec<Depth>, Vec<Target>)> {
        let mut state = policy.start();
        let mut exits = Vec::with_capacity(logits.rows());
        let mut answers = Vec::with_capacity(logits.rows());
        for row in 0..logits.rows() {
            let outputs = logits.predictions(row, policy.kind())?;
            let exit = policy.replay(&mut state, &outputs);
            answers.push(self.labels.decide(logits.logits(row, exit.position)));
            exits.push(exit.depth);
        }
        Ok((exits, answers))
    }

    /// Replays a policy over stored logits: score and cost without wall-clock time.
    ///
    /// # Errors
    /// When the policy does not fit the model, or a logit is not finite.
    pub fn replay(&self, spec: &PolicySpec, logits: &ExitLogits) -> Result<PolicyEvaluation> {
        let policy = self.policy(spec)?;
        let (exits, answers) = self.exits_of(&policy, logits)?;
        self.judge(&policy, &exits, (&answers, logits))
    }

    /// Score and layer speed-up of a policy over stored logits, without the interval and cost that
    /// [`replay`](Self::replay) adds.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn score_and_speedup(&self, spec: &PolicySpec, logits: &ExitLogits) -> Result<(f64, f64)> {
        let policy = self.policy(spec)?;
        let (exits, answers) = self.exits_of(&policy, logits)?;
        let speedup = ExitHistogram::of(policy.plan(), exits).layer_speedup();
        let score = self.split.score(self.metric, &answers)?;
        Ok((score, speedup.map_or(1.0, |speedup| speedup.0)))
    }

    /// Runs a policy row by row at batch size 1 and takes the time of every row, each followed by
    /// the plain backbone with one exit on the same row, so that both see the same machine.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn run(
        &self,
        spec: &PolicySpec,
        logits: &ExitLogits,
        on_row: OnRow,
    ) -> Result<PolicyEvaluation> {
        let (policy, plain) = (self.policy(spec)?, self.policy(&PolicySpec::Full)?);
        let encodings = self.encoded.encodings();
        if let Some(first) = encodings.first() {
            classify(self.model, first, &plain)?; // The first row pays for cold caches.
        }
        let mut times = TimeTotals {
            early_s: 0.0,
            plain_s: 0.0,
        };
        let mut exits = Vec::with_capacity(encodings.len());
        let mut answers = Vec::with_capacity(encodings.len());
        for (row, encoding) in encodings.iter().enumerate() {
            // In turn the one or the other goes first: the second finds the row in the caches.
            let plain_first = row % 2 == 1;
            if plain_first {
                times.plain_s += classify(self.model, encoding, &plain)?.seconds;
            }
            let early = classify(self.model, encoding, &policy)?;
            times.early_s += early.seconds;
            if !plain_first {
                times.plain_s += classify(self.model, encoding, &plain)?.seconds;
            }
            answers.push(self.labels.decide(&early.logits));
            exits.push(early.depth);
            on_row(1);
        }
        let mut evaluation = self.judge(&policy, &exits, (&answers, logits))?;
        let rows = encodings.len() as f64;
        evaluation.time = Some(TimeEvaluation {
            early_ms: times.early_s * 1e3 / rows,
            plain_ms: times.plain_s * 1e3 / rows,
            time_saved: times.time_saved().0,
            wall_clock_speedup: times.wall_clock_speedup().0,
        });
        Ok(evaluation)
    }

    fn judge(
        &self,
        policy: &Policy,
        exits: &[Depth],
        (answers, logits): (&[Target], &ExitLogits),
    ) -> Result<PolicyEvaluation> {
        let histogram = ExitHistogram::of(policy.plan(), exits.iter().copied());
        let deepest = logits.answers(logits.exits - 1, self.labels);
        let agreeing = answers.iter().zip(&deepest).filter(|(a, b)| a == b).count();
        let macs = self.macs(policy, exits);
        let rows = answers.len() as f64;
        Ok(PolicyEvaluation {
            policy: policy.spec().clone(),
            score: self.split.score(self.metric, answers)?,
            interval: bootstrap(self.metric, answers, &self.split.targets()?),
            agreement: agreeing as f64 / rows,
            histogram: histogram
                .iter()
                .map(|(depth, count)| (depth.0, count))
                .collect(),
            mean_exit: histogram.mean_depth().unwrap_or(0.0),
            layer_speedup: histogram.layer_speedup().map_or(1.0, |speedup| speedup.0),
            flops: badge_core::cost::flops(macs.early) as f64 / rows,
            flops_plain: badge_core::cost::flops(macs.plain) as f64 / rows,
            time: None,
        })
    }

    fn macs(&self, policy: &Policy, exits: &[Depth]) -> MacTotals {
        let shape = model_shape(self.model.config());
        let needed: Vec<Depth> = policy
            .plan()
            .depths()
            .iter()
            .copied()
            .filter(|d| policy.needs(*d))
            .collect();
        let mut totals = MacTotals { early: 0, plain: 0 };
        for (encoding, depth) in self.encoded.encodings().iter().zip(exits) {
            totals.early += shape.macs_to(*depth, encoding.len(), &needed);
            totals.plain += shape.plain_macs(encoding.len());
        }
        totals
    }
}
