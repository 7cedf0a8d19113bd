//! What a run tells those who watch it.

mod json_lines;
mod tensorboard;

use badge_tasks::split::SplitName;
use badge_tasks::tokenizer::cache::Origin;
use serde::{Deserialize, Serialize};

pub use json_lines::JsonLines;
pub use tensorboard::TensorBoard;

use crate::error::Result;
use crate::evaluate::ExitScores;

/// One optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps taken, counted from 1.
    pub step: u64,
    /// Steps of the whole run, if it does not stop early.
    pub steps_total: u64,
    /// The epoch under way, counted from 1.
    pub epoch: usize,
    /// The loss that was minimised.
    pub loss: f64,
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

/// One epoch and its evaluation on the dev split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Counted from 1.
    pub epoch: usize,
    /// Epochs the run may take.
    pub epochs_max: usize,
    /// Steps taken so far.
    pub step: u64,
    /// Mean loss of the epoch's steps.
    pub loss: f64,
    /// Every exit's score on dev.
    pub scores: ExitScores,
    /// Whether this is the best S-avg so far.
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
