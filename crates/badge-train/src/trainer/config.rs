//! The settings of a run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{LteTraining, Method, MethodSpec};
use crate::optimizer::AdamWConfig;
use crate::step::PassSettings;

/// Everything that decides how a run goes, besides model and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The training method.
    pub method: MethodSpec,
    /// When the learning-to-exit head learns; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lte: Option<LteTraining>,
    /// Epochs of a stage at most (paper, App. C: 25).
    pub epochs_max: usize,
    /// Epochs without a better S-avg, or what else judges a stage, before it ends (paper, App. C:
    /// 8).
    pub patience: usize,
    /// Rows per forward pass.
    pub batch_size: usize,
    /// Forward passes per optimiser step.
    pub accumulation: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Peak learning rate of stages in which the backbone rests; without it the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_learning_rate: Option<f64>,
    /// Share of the steps spent on warm-up (paper, App. C: 0.1).
    pub warmup_ratio: f64,
    /// AdamW's constants.
    pub optimizer: AdamWConfig,
    /// How forward and backward passes are computed.
    #[serde(flatten)]
    pub passes: PassSettings,
    /// Rows of each epoch, taken from the train split in order, for data that are graded from
    /// easy to hard; without it every epoch sees all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<Vec<usize>>,
    /// Longest input in tokens.
    pub max_length: usize,
    /// Seed of data order and dropout.
    pub seed: u64,
    /// Seconds of work between checkpoints inside an epoch.
    pub checkpoint_seconds: f64,
}

/// No run has more epochs, rows per batch or batches per step; larger numbers are slips.
const COUNT_MAX: usize = 100_000;

impl TrainConfig {
    /// The method as it runs.
    pub fn method(&self) -> Box<dyn Method> {
        self.method.build(self.lte)
    }

    /// Refuses settings that cannot be meant.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("--epochs", self.epochs_max),
            ("--patience", self.patience),
            ("--batch-size", self.batch_size),
            ("--accumulation", self.accumulation),
        ];
        if let Some((setting, count)) = counts.into_iter().find(|(_, count)| *count > COUNT_MAX) {
            let problem = format!("{count} is more than {COUNT_MAX}");
            return Err(Error::Setting { setting, problem });
        }
        if let Some((setting, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(Error::Setting {
                setting,
                problem: "must be at least 1".to_owned(),
            });
        }
        if let Some(stages) = &self.curriculum
            && (stages.len() != self.epochs_max || stages.contains(&0))
        {
            let problem = format!("{stages:?} is not one number of rows per epoch");
            return Err(Error::Setting {
                setting: "curriculum",
                problem,
            });
        }
        let AdamWConfig {
            weight_decay,
            gradient_norm_max,
            ..
        } = self.optimizer;
        let ranges = [
            ("--lr", self.learning_rate, f64::MIN_POSITIVE, 1.0),
            (
                "--head-lr",
                self.head_learning_rate.unwrap_or(self.learning_rate),
                f64::MIN_POSITIVE,
                1.0,
            ),
            ("--warmup-ratio", self.warmup_ratio, 0.0, 1.0),
            ("--weight-decay", weight_decay, 0.0, 1.0),
            (
                "--checkpoint-minutes",
                self.checkpoint_seconds,
                0.0,
                f64::MAX,
            ),
            (
                "--max-grad-norm",
                gradient_norm_max,
                f64::MIN_POSITIVE,
                f64::MAX,
            ),
        ];
        for (setting, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                let low = if low > 0.0 { "above 0" } else { "at least 0" };
                let high = if high < f64::MAX {
                    format!(" and at most {high}")
                } else {
                    String::new()
                };
                let problem = format!("must be {low}{high}, not {value}");
                return Err(Error::Setting { setting, problem });
            }
        }
        Ok(())
    }
}
