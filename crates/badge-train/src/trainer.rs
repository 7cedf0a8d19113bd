//! The training loop.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use badge_tasks::{BatchOrder, LabelSpace, MetricKind, Split};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Best, CheckpointFile, Progress, discard};
use crate::data::EncodedSplit;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluator, ExitScores, OwnModel};
use crate::gradients::Gradients;
use crate::loss::Targets;
use crate::method::Method;
use crate::model::{Mode, ModelInput, MultiExitModel};
use crate::model_directory::stage_weights;
use crate::observer::{EpochReport, Observer, StepReport};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::schedule::LinearSchedule;
use crate::step::forward_backward;

/// Everything that decides how a run goes, besides model and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// How the losses of the exits become one.
    pub method: Method,
    /// Epochs at most (paper, App. C: 25).
    pub epochs_max: usize,
    /// Epochs without a better S-avg before the run stops (paper, App. C: 8).
    pub patience: usize,
    /// Rows per forward pass.
    pub batch_size: usize,
    /// Forward passes per optimiser step.
    pub accumulation: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps spent on warm-up (paper, App. C: 0.1).
    pub warmup_ratio: f64,
    /// AdamW's constants.
    pub optimizer: AdamWConfig,
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

/// The data of a run and how answers on it are scored.
#[derive(Debug)]
pub struct TrainData<'a> {
    /// Rows to learn from.
    pub train: &'a EncodedSplit,
    /// Rows to choose the checkpoint by.
    pub dev: &'a EncodedSplit,
    /// The dev split with its parts and labels.
    pub dev_split: &'a Split,
    /// What may be answered.
    pub label_space: &'a LabelSpace,
    /// The score S.
    pub metric: MetricKind,
    /// Hash of the training rows.
    pub train_sha256: &'a str,
}

/// A run: model, data, settings and the directory it writes to.
pub struct Trainer<'a> {
    model: &'a MultiExitModel,
    data: TrainData<'a>,
    config: &'a TrainConfig,
    directory: &'a Path,
    observers: Vec<&'a mut dyn Observer>,
    evaluator: Box<dyn Evaluator + 'a>,
    optimizer: AdamW,
    progress: Progress,
    checkpoint: CheckpointFile,
    start: Start,
}

/// Whether a run takes up an earlier one's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the first step.
    Fresh,
    /// Behind the checkpoint, if there is one.
    Resume,
}

impl<'a> Trainer<'a> {
    /// Prepares a run; `observers` hear of it in order.
    ///
    /// # Errors
    /// When a setting or a row cannot be meant, or the checkpoint belongs to another run.
    pub fn new(
        model: &'a MultiExitModel,
        data: TrainData<'a>,
        config: &'a TrainConfig,
        (directory, start): (&'a Path, Start),
        observers: Vec<&'a mut dyn Observer>,
    ) -> Result<Self> {
        config.check()?;
        data.train.check(&model.config().backbone, "train split")?;
        data.dev.check(&model.config().backbone, "dev split")?;
        let curriculum = config.curriculum.iter().flatten().sum::<usize>();
        if curriculum > data.train.len() {
            let problem = format!("asks for {curriculum} rows of {}", data.train.len());
            return Err(Error::Setting {
                setting: "curriculum",
                problem,
            });
        }
        let fingerprint = fingerprint(config, model, &data)?;
        let checkpoint = CheckpointFile::new(directory, fingerprint);
        let mut optimizer = AdamW::new(config.optimizer);
        let progress = if start == Start::Resume && checkpoint.exists() {
            checkpoint.restore(model, &mut optimizer)?
        } else {
            Progress::default()
        };
        Ok(Self {
            model,
            data,
            config,
            directory,
            observers,
            evaluator: Box::new(OwnModel),
            optimizer,
            progress,
            checkpoint,
            start,
        })
    }

    /// Has the dev split computed by `evaluator` instead of the model itself.
    #[must_use]
    pub fn with_evaluator(mut self, evaluator: impl Evaluator + 'a) -> Self {
        self.evaluator = Box::new(evaluator);
        self
    }

    /// Trains until the epochs are used up or patience ends, and returns what happened. The best
    /// epoch's weights lie in the directory, and the last checkpoint: it is the caller who knows
    /// when the run needs it no longer.
    ///
    /// # Errors
    /// When the loss is no longer finite or a file cannot be written.
    pub fn run(mut self) -> Result<Progress> {
        if self.start == Start::Fresh {
            discard(self.directory)?;
        }
        let schedule = self.schedule();
        let steps = self.progress.steps;
        self.tell(|observer| observer.start(steps, schedule.total))?;
        while !self.is_finished() {
            let batches = self.batches(self.progress.epochs);
            let windows = batches.chunks(self.config.accumulation);
            let mut saved = Instant::now();
            for window in windows.clone().skip(self.progress.steps_in_epoch) {
                let report = self.step(window, &schedule)?;
                self.tell(|observer| observer.step(&report))?;
                // The epoch's last step is saved together with its evaluation.
                let is_last = self.progress.steps_in_epoch == windows.len();
                if !is_last && saved.elapsed().as_secs_f64() > self.config.checkpoint_seconds {
                    self.checkpoint
                        .save(self.model, &self.optimizer, &self.progress)?;
                    saved = Instant::now();
                }
            }
            self.finish_epoch()?;
        }
        Ok(self.progress)
    }

    fn is_finished(&self) -> bool {
        self.progress.epochs >= self.config.epochs_max
            || epochs_without_gain(&self.progress) >= self.config.patience
    }

    /// The rows of an epoch: all, or its stage of the curriculum.
    fn rows(&self, epoch: usize) -> Range<usize> {
        match &self.config.curriculum {
            None => 0..self.data.train.len(),
            Some(stages) => {
                let start: usize = stages[..epoch].iter().sum();
                start..start + stages[epoch]
            }
        }
    }

    /// The batches of an epoch: a function of seed and epoch alone.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let order = BatchOrder {
            seed: self.config.seed,
            batch_size: self.config.batch_size,
        };
        let rows = self.rows(epoch);
        let mut batches = order.epoch(epoch, &self.data.train.lengths()[rows.clone()]);
        batches
            .iter_mut()
            .flatten()
            .for_each(|row| *row += rows.start);
        batches
    }

    fn schedule(&self) -> LinearSchedule {
        let steps_of = |rows: usize| {
            rows.div_ceil(self.config.batch_size)
                .div_ceil(self.config.accumulation)
        };
        let steps: usize = (0..self.config.epochs_max)
            .map(|epoch| steps_of(self.rows(epoch).len()))
            .sum();
        let warmup = (steps as f64 * self.config.warmup_ratio).ceil() as u64;
        LinearSchedule {
            peak: self.config.learning_rate,
            warmup,
            total: steps as u64,
        }
    }

    /// One optimiser step over the batches of an accumulation window.
    fn step(&mut self, window: &[Vec<usize>], schedule: &LinearSchedule) -> Result<StepReport> {
        let start = Instant::now();
        let share = 1.0 / window.len() as f64;
        let mut gradients = Gradients::default();
        let mut exit_losses = Vec::new();
        let (mut total, mut tokens) = (0.0, 0);
        for rows in window {
            let batch = self.data.train.batch(rows);
            tokens += batch.size() * batch.tokens;
            let input = ModelInput::of_batch(&batch, self.model.device())?;
            let problem = self.model.config().head.problem;
            let truth: Vec<_> = batch.targets.iter().collect();
            let targets = Targets::new(problem, &truth, self.model.device())?;
            let mode = Mode::Training {
                seed: self.config.seed,
                pass: self.progress.passes,
            };
            self.progress.passes += 1;
            let (loss, of_batch) =
                forward_backward(self.model, self.config.method, (&input, &targets), mode)?;
            gradients.accumulate(of_batch, share)?;
            total += share * f64::from(loss.total.to_scalar::<f32>()?);
            exit_losses.resize(loss.exits.len(), 0.0);
            for (sum, exit) in exit_losses.iter_mut().zip(&loss.exits) {
                *sum += share * f64::from(exit.to_scalar::<f32>()?);
            }
        }
        if !total.is_finite() {
            let step = self.progress.steps + 1;
            return Err(Error::LossNotFinite {
                loss: total as f32,
                step,
            });
        }
        let rate = schedule.rate(self.progress.steps);
        let norm = self
            .optimizer
            .step(self.model.parameters(), &gradients, rate)?;
        let seconds = start.elapsed().as_secs_f64();
        self.progress.steps += 1;
        self.progress.steps_in_epoch += 1;
        self.progress.loss_sum += total;
        self.progress.seconds += seconds;
        Ok(StepReport {
            step: self.progress.steps,
            steps_total: schedule.total,
            epoch: self.progress.epochs + 1,
            loss: total,
            exit_losses,
            learning_rate: rate,
            gradient_norm: norm,
            tokens,
            seconds,
        })
    }

    /// Scores the epoch, keeps its weights if they are the best, and saves the checkpoint.
    fn finish_epoch(&mut self) -> Result<()> {
        let start = Instant::now();
        let logits = self.evaluator.evaluate(self.model, self.data.dev)?;
        let judge = (self.data.metric, self.data.label_space);
        let scores = ExitScores::of(&logits, self.data.dev_split, judge)?;
        let progress = &mut self.progress;
        progress.epochs += 1;
        let improved = progress
            .best
            .as_ref()
            .is_none_or(|best| scores.average > best.scores.average);
        if improved {
            progress.best = Some(Best {
                epoch: progress.epochs,
                scores: scores.clone(),
            });
        }
        progress.seconds += start.elapsed().as_secs_f64();
        let report = EpochReport {
            epoch: progress.epochs,
            epochs_max: self.config.epochs_max,
            step: progress.steps,
            loss: progress.loss_sum / progress.steps_in_epoch as f64,
            scores,
            improved,
            epochs_without_gain: epochs_without_gain(progress),
            seconds: progress.seconds,
        };
        progress.history.push(report.clone());
        progress.steps_in_epoch = 0;
        progress.loss_sum = 0.0;
        // Logs first: a resumed run drops what lies behind its checkpoint, but adds nothing before.
        self.tell(|observer| observer.epoch(&report))?;
        if improved {
            let weights = self.model.parameters().to_checkpoint()?;
            let staged = stage_weights(self.directory, &weights)?;
            self.tell(|observer| observer.weights(&report))?;
            staged.commit()?;
        }
        self.checkpoint
            .save(self.model, &self.optimizer, &self.progress)
    }

    fn tell(&mut self, tell: impl Fn(&mut dyn Observer) -> Result<()>) -> Result<()> {
        self.observers
            .iter_mut()
            .try_for_each(|observer| tell(*observer))
    }
}

fn epochs_without_gain(progress: &Progress) -> usize {
    progress.epochs - progress.best.as_ref().map_or(0, |best| best.epoch)
}

/// The settings and data that a checkpoint must share with the run that takes it up. How often
/// checkpoints are written may change; it decides nothing.
fn fingerprint(config: &TrainConfig, model: &MultiExitModel, data: &TrainData) -> Result<String> {
    let mut value = serde_json::to_value(config).expect("plain data serialises");
    let object = value.as_object_mut().expect("a struct is an object");
    object.remove("checkpoint_seconds");
    let description: serde_json::Value =
        serde_json::from_slice(&model.config().to_json()).expect("what was written reads");
    object.insert("model".to_owned(), description);
    object.insert("metric".to_owned(), data.metric.name().into());
    object.insert("train_sha256".to_owned(), data.train_sha256.into());
    object.insert(
        "dev_sha256".to_owned(),
        data.dev_split.sha256.clone().into(),
    );
    object.insert(
        "initial_weights_sha256".to_owned(),
        model.parameters().sha256()?.into(),
    );
    object.insert("token_ids_sha256".to_owned(), data.train.sha256().into());
    Ok(value.to_string())
}
