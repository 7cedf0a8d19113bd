//! What every exit says about every row, and how well it does.

use badge_core::distribution::{ContinueProbability, Prediction, PredictionKind};
use badge_tasks::{LabelSpace, MetricKind, Split, Target};
use serde::{Deserialize, Serialize};

use crate::data::EncodedSplit;
use crate::error::Result;
use crate::features::Features;
use crate::loss::Targets;
use crate::method::{Method, Moment};
use crate::model::{ExitOutput, Junction, Mode, ModelInput, MultiExitModel};
use crate::step::Backpropagation;

/// The logits of E exits on N rows: computed once, then any policy replays them.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitLogits {
    /// Number of exits, E.
    pub exits: usize,
    /// Logits per exit, C.
    pub outputs: usize,
    /// `[N, E, C]` in row-major order.
    pub values: Vec<f32>,
    /// `[N, E]`: the learning-to-exit head's probabilities to continue; empty without that head.
    pub continue_probabilities: Vec<f32>,
}

impl ExitLogits {
    /// Room for the exits of a model on so many rows.
    fn zeros(model: &MultiExitModel, rows: usize) -> Self {
        let exits = model.config().exits().exits.count();
        let outputs = model.config().head.outputs();
        Self {
            exits,
            outputs,
            values: vec![0.0; rows * exits * outputs],
            continue_probabilities: if model.config().exits().lte {
                vec![0.0; rows * exits]
            } else {
                Vec::new()
            },
        }
    }

    /// Takes over what every exit says about some rows.
    fn set(&mut self, rows: &[usize], said: &[ExitOutput]) -> Result<()> {
        let (exits, outputs) = (self.exits, self.outputs);
        for (exit, said) in said.iter().enumerate() {
            for (row, logits) in rows.iter().zip(said.logits.to_vec2::<f32>()?) {
                self.values[(row * exits + exit) * outputs..][..outputs].copy_from_slice(&logits);
            }
            if let Some(uncertainty) = &said.uncertainty {
                for (row, u) in rows.iter().zip(uncertainty.to_vec1::<f32>()?) {
                    self.continue_probabilities[row * exits + exit] = u;
                }
            }
        }
        Ok(())
    }

    /// What the learning-to-exit head says beside each exit about one row; nothing without it.
    ///
    /// # Errors
    /// When a probability is none.
    pub fn continuations(&self, row: usize) -> Result<Vec<Option<ContinueProbability>>> {
        if self.continue_probabilities.is_empty() {
            return Ok(vec![None; self.exits]);
        }
        let of_row = &self.continue_probabilities[row * self.exits..][..self.exits];
        let read = |u: &f32| Ok(Some(ContinueProbability::new(*u)?));
        of_row.iter().map(read).collect()
    }

    /// Number of rows, N.
    pub fn rows(&self) -> usize {
        self.values.len() / (self.exits * self.outputs)
    }

    /// The logits of one row at the exit in this place of the plan.
    pub fn logits(&self, row: usize, exit: usize) -> &[f32] {
        &self.values[(row * self.exits + exit) * self.outputs..][..self.outputs]
    }

    /// What each exit says about one row.
    ///
    /// # Errors
    /// When a logit is not finite.
    pub fn predictions(&self, row: usize, kind: PredictionKind) -> Result<Vec<Prediction>> {
        (0..self.exits)
            .map(|exit| Ok(Prediction::from_logits(kind, self.logits(row, exit))?))
            .collect()
    }

    /// The answers of the exit in this place of the plan.
    pub fn answers(&self, exit: usize, space: &LabelSpace) -> Vec<Target> {
        (0..self.rows())
            .map(|row| space.decide(self.logits(row, exit)))
            .collect()
    }
}

/// The score of every exit, with the paper's two summaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitScores {
    /// One score per exit, in the order of the plan.
    pub exits: Vec<f64>,
    /// S-avg: their mean.
    pub average: f64,
    /// S-best: their maximum.
    pub best: f64,
}

impl ExitScores {
    /// Scores every exit's answers.
    ///
    /// # Errors
    /// When the split has rows without labels.
    pub fn of(
        logits: &ExitLogits,
        split: &Split,
        (metric, space): (MetricKind, &LabelSpace),
    ) -> Result<Self> {
        let exits = (0..logits.exits)
            .map(|exit| Ok(split.score(metric, &logits.answers(exit, space))?))
            .collect::<Result<Vec<_>>>()?;
        let average = exits.iter().sum::<f64>() / exits.len() as f64;
        let best = exits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(Self {
            exits,
            average,
            best,
        })
    }
}

/// Computes every exit on the dev split between the epochs of a run.
///
/// The trainer knows its own model alone; a caller that has a faster way hands it over.
pub trait Evaluator {
    /// Runs every exit of the model as it is now on every row.
    ///
    /// # Errors
    /// When a row does not fit the model.
    fn evaluate(&mut self, model: &MultiExitModel, split: &EncodedSplit) -> Result<ExitLogits>;
}

/// The trainer's own model: slower than an engine, on every device.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnModel;

impl Evaluator for OwnModel {
    fn evaluate(&mut self, model: &MultiExitModel, split: &EncodedSplit) -> Result<ExitLogits> {
        evaluate(model, split, |_| {})
    }
}

/// Rows of a batch in evaluation: larger ones no longer gain speed, smaller ones pad less.
pub(crate) const EVALUATION_BATCH: usize = 16;

/// Runs every exit on every row.
///
/// # Errors
/// When a row does not fit the model or the framework refuses an operation.
pub fn evaluate(
    model: &MultiExitModel,
    split: &EncodedSplit,
    mut progress: impl FnMut(usize),
) -> Result<ExitLogits> {
    let mut all = ExitLogits::zeros(model, split.len());
    let plain = vec![Junction::PLAIN; model.config().backbone.blocks];
    for rows in split.evaluation_batches(EVALUATION_BATCH) {
        let input = ModelInput::of_batch(&split.batch(&rows), model.device())?;
        let outputs = model.outputs(&input, &plain, Mode::Evaluation)?;
        all.set(&rows, &outputs)?;
        progress(rows.len());
    }
    Ok(all)
}

/// What the heads of a frozen backbone say about every row, and the loss of a method's stage: the
/// mean over rows.
pub(crate) fn evaluate_heads(
    backpropagation: &mut Backpropagation,
    (method, moment): (&dyn Method, &Moment),
    (features, split): (&Features, &EncodedSplit),
) -> Result<(ExitLogits, f64)> {
    let model = backpropagation.model();
    let mut all = ExitLogits::zeros(model, split.len());
    let mut loss = 0.0;
    for rows in split.evaluation_batches(EVALUATION_BATCH) {
        let (taps, pass) = features.batch(backpropagation, (split, &rows), Mode::Evaluation)?;
        let outputs = model.heads().forward_all(&taps, pass)?;
        all.set(&rows, &outputs)?;
        let truth: Vec<_> = rows.iter().map(|row| &split.targets()[*row]).collect();
        let targets = Targets::new(model.config().head.problem, &truth, model.device())?;
        let of_batch = method.loss(&outputs, &targets, moment)?.total;
        loss += rows.len() as f64 * f64::from(of_batch.to_scalar::<f32>()?);
    }
    Ok((all, loss / split.len() as f64))
}
