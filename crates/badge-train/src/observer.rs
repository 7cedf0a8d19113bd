//! What a run tells those who watch it.

mod json_lines;
mod tensorboard;

use std::collections::BTreeMap;

use badge_tasks::split::SplitName;
use badge_tasks::tokenizer::cache::Origin;
use serde::{Deserialize, Serialize};

pub use json_lines::JsonLines;
pub use tensorboard::TensorBoard;

use crate::error::{Error, Result};
use crate::evaluate::ExitScores;
use crate::framework::Tensor;
use crate::method::Loss;

/// One optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps taken, counted from 1.
    pub step: u64,
    /// Steps of the whole run, if it does not stop early.
    pub steps_total: u64,
    /// The epoch under way, counted from 1.
    pub epoch: usize,
    /// The stage, of a method that has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The loss that was minimised.
    pub loss: f64,
    /// What it is made of besides the exits' losses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, f64>,
    /// The unweighted loss of each exit.
    pub exit_losses: Vec<f64>,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens of the step, padding included.
    pub tokens: usize,
    /// Wall-clock seconds of the step.
    pub seconds: f64,
}

impl StepReport {
    /// A step of an epoch, before its passes.
    pub(crate) fn new(epoch: usize, stage: Option<String>) -> Self {
        Self {
            step: 0,
            steps_total: 0,
            epoch,
            stage,
            loss: 0.0,
            terms: BTreeMap::new(),
            exit_losses: Vec::new(),
            learning_rate: 0.0,
            gradient_norm: 0.0,
            tokens: 0,
            seconds: 0.0,
        }
    }

    /// Adds a pass, which has this share in the step.
    pub(crate) fn add(&mut self, loss: &Loss, tokens: usize, share: f64) -> Result<()> {
        let value = |scalar: &Tensor| Ok::<_, Error>(share * f64::from(scalar.to_scalar::<f32>()?));
        self.tokens += tokens;
        self.loss += value(&loss.total)?;
        self.exit_losses.resize(loss.exits.len(), 0.0);
        for (sum, exit) in self.exit_losses.iter_mut().zip(&loss.exits) {
            *sum += value(exit)?;
        }
        for (name, term) in &loss.terms {
            *self.terms.entry((*name).to_owned()).or_default() += value(term)?;
        }
        Ok(())
    }
}

/// One epoch and its evaluation on the dev split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Counted from 1.
    pub epoch: usize,
    /// Epochs the run may take, those of all stages together.
    pub epochs_max: usize,
    /// The stage, of a method that has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Steps taken so far.
    pub step: u64,
    /// Mean loss of the epoch's steps.
    pub loss: f64,
    /// Every exit's score on dev.
    pub scores: ExitScores,
    /// Whether this is the best epoch of its stage so far: by S-avg, unless the stage is judged
    /// otherwise.
    pub improved: bool,
    /// Epochs since the best one.
    pub epochs_without_gain: usize,
    /// Wall-clock seconds of the run so far, interruptions left out.
    pub seconds: f64,
}

/// Receives what happens, in order. After a resume it starts behind the checkpoint's step.
pub trait Observer {
    /// The tokens of a split lie ready, before the run starts.
    ///
    /// # Errors
    /// When a log cannot be written.
    fn tokens(&mut self, _split: SplitName, _origin: &Origin) -> Result<()> {
        Ok(())
    }

    /// The run starts or goes on behind `step` steps.
    ///
    /// # Errors
    /// When a log cannot be written.
    fn start(&mut self, _step: u64, _steps_total: u64) -> Result<()> {
        Ok(())
    }

    /// An optimiser step was taken.
    ///
    /// # Errors
    /// When a log cannot be written.
    fn step(&mut self, _report: &StepReport) -> Result<()> {
        Ok(())
    }

    /// The epoch's weights are on the disk and will take the place of those in the directory next.
    ///
    /// # Errors
    /// When what has to go before them cannot be written.
    fn weights(&mut self, _report: &EpochReport) -> Result<()> {
        Ok(())
    }

    /// An epoch was finished and evaluated.
    ///
    /// # Errors
    /// When a log cannot be written.
    fn epoch(&mut self, _report: &EpochReport) -> Result<()> {
        Ok(())
    }
}
