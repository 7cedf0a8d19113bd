//! The training loop.

mod config;
mod epoch;

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use badge_core::checkpoint::layout::{self, Initial, Part};
use badge_tasks::{BatchOrder, LabelSpace, MetricKind, Split};

pub use config::TrainConfig;

use crate::checkpoint::{CheckpointFile, Progress, StageStart, discard};
use crate::data::EncodedSplit;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluator, OwnModel};
use crate::features::Features;
use crate::gradients::Gradients;
use crate::loss::Targets;
use crate::method::{Loss, Method, Moment, Stage};
use crate::model::{Mode, ModelInput, MultiExitModel};
use crate::observer::{Observer, StepReport};
use crate::optimizer::AdamW;
use crate::schedule::LinearSchedule;
use crate::step::{Backpropagation, heads_forward_backward};
use crate::weights::{SAFETENSORS_FILE, read_checkpoint};

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
    method: Box<dyn Method>,
    directory: &'a Path,
    observers: Vec<&'a mut dyn Observer>,
    evaluator: Box<dyn Evaluator + 'a>,
    backpropagation: Backpropagation<'a>,
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

/// What stays the same while a stage runs.
struct StageRun {
    stage: Stage,
    /// Its name, if the method has several.
    label: Option<String>,
    schedule: LinearSchedule,
    /// The frozen backbone's, of the train and the dev split.
    features: Option<(Features, Features)>,
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
        let method = config.method();
        method
            .check(&model.config().exits())
            .map_err(|problem| Error::Setting {
                setting: "--method",
                problem: format!("{}: {problem}", method.name()),
            })?;
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
            method,
            directory,
            observers,
            evaluator: Box::new(OwnModel),
            backpropagation: Backpropagation::new(model, config.passes)?,
            optimizer,
            progress,
            checkpoint,
            start,
        })
    }

    /// Has the dev split computed by `evaluator` instead of the model itself. In stages that leave
    /// the backbone alone the heads are computed on its stored features instead.
    #[must_use]
    pub fn with_evaluator(mut self, evaluator: impl Evaluator + 'a) -> Self {
        self.evaluator = Box::new(evaluator);
        self
    }

    /// Trains every stage until its epochs are used up or patience ends, and returns what
    /// happened. The best epoch's weights lie in the directory, and the last checkpoint: it is the
    /// caller who knows when the run needs it no longer.
    ///
    /// # Errors
    /// When the loss is no longer finite or a file cannot be written.
    pub fn run(mut self) -> Result<Progress> {
        if self.start == Start::Fresh {
            discard(self.directory)?;
        }
        let stages = self.method.stages();
        let (steps, total) = (
            self.progress.steps,
            stages.len() as u64 * self.stage_steps(),
        );
        self.tell(|observer| observer.start(steps, total))?;
        loop {
            let index = self.progress.stage.index;
            self.run_stage(stages[index])?;
            if index + 1 == stages.len() {
                return Ok(self.progress);
            }
            self.enter_stage(index + 1)?;
        }
    }

    fn run_stage(&mut self, stage: Stage) -> Result<()> {
        if self.is_stage_finished() {
            return Ok(());
        }
        let run = self.prepare(stage)?;
        while !self.is_stage_finished() {
            let batches = self.batches();
            let windows = batches.chunks(self.config.accumulation);
            let mut saved = Instant::now();
            for window in windows.clone().skip(self.progress.steps_in_epoch) {
                let report = self.step(window, &run)?;
                self.tell(|observer| observer.step(&report))?;
                // The epoch's last step is saved together with its evaluation.
                let is_last = self.progress.steps_in_epoch == windows.len();
                if !is_last && saved.elapsed().as_secs_f64() > self.config.checkpoint_seconds {
                    self.save()?;
                    saved = Instant::now();
                }
            }
            self.finish_epoch(&run)?;
        }
        Ok(())
    }

    fn prepare(&mut self, stage: Stage) -> Result<StageRun> {
        let start = Instant::now();
        let index = self.progress.stage.index;
        let plan = self.model.config().exits().exits;
        let features = if self.method.trains(index, Part::Backbone, &plan) {
            None
        } else {
            let mut of = |split| Features::of(&mut self.backpropagation, split);
            Some((of(self.data.train)?, of(self.data.dev)?))
        };
        let peak = match self.config.head_learning_rate {
            Some(rate) if features.is_some() => rate,
            _ => self.config.learning_rate,
        };
        let total = self.stage_steps();
        let has_several = self.method.stages().len() > 1;
        self.progress.seconds += start.elapsed().as_secs_f64();
        Ok(StageRun {
            stage,
            label: has_several.then(|| stage.name.to_owned()),
            schedule: LinearSchedule {
                peak,
                warmup: (total as f64 * self.config.warmup_ratio).ceil() as u64,
                total,
            },
            features,
        })
    }

    /// Goes on from the best epoch of the stage before, with a new optimiser. What is saved here
    /// keeps a resumed run from taking this stage's weights for that epoch's.
    fn enter_stage(&mut self, index: usize) -> Result<()> {
        let file = self.directory.join(SAFETENSORS_FILE).display().to_string();
        let mut best = read_checkpoint(self.directory)?;
        self.model.parameters().set(&mut best, &file)?;
        self.start_bypasses(index)?;
        self.optimizer = AdamW::new(self.config.optimizer);
        self.progress.stage = StageStart {
            index,
            epochs: self.progress.epochs,
            steps: self.progress.steps,
        };
        self.progress.best = None;
        self.save()
    }

    /// Lets the bypasses that only now begin to learn start from what their blocks have become: a
    /// bypass's LayerNorm is a copy of its block's, and its exit then reads what it did before.
    fn start_bypasses(&self, stage: usize) -> Result<()> {
        let config = self.model.config();
        let plan = config.exits().exits;
        let learns = |stage, part| self.method.trains(stage, part, &plan);
        let parameters = self.model.parameters();
        for spec in layout::of_model(config) {
            let (Part::Bypass(_), Initial::CopyOf(source)) = (spec.part, &spec.initial) else {
                continue;
            };
            let is_new = (0..stage).all(|earlier| !learns(earlier, spec.part));
            if is_new && learns(stage, spec.part) {
                parameters.copy(source, &spec.name)?;
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        self.checkpoint
            .save(self.model, &self.optimizer, &self.progress)
    }

    /// Epochs of the stage under way that are finished.
    fn stage_epochs(&self) -> usize {
        self.progress.epochs - self.progress.stage.epochs
    }

    fn is_stage_finished(&self) -> bool {
        self.stage_epochs() >= self.config.epochs_max
            || epochs_without_gain(&self.progress) >= self.config.patience
    }

    /// The rows of a stage's epoch: all, or its share of the curriculum.
    fn rows(&self, epoch: usize) -> Range<usize> {
        match &self.config.curriculum {
            None => 0..self.data.train.len(),
            Some(stages) => {
                let start: usize = stages[..epoch].iter().sum();
                start..start + stages[epoch]
            }
        }
    }

    /// The batches of the epoch under way: a function of seed and epoch alone.
    fn batches(&self) -> Vec<Vec<usize>> {
        let order = BatchOrder {
            seed: self.config.seed,
            batch_size: self.config.batch_size,
        };
        let rows = self.rows(self.stage_epochs());
        let lengths = &self.data.train.lengths()[rows.clone()];
        let mut batches = order.epoch(self.progress.epochs, lengths);
        batches
            .iter_mut()
            .flatten()
            .for_each(|row| *row += rows.start);
        batches
    }

    /// Steps of a stage that does not stop early.
    fn stage_steps(&self) -> u64 {
        let steps_of = |rows: usize| {
            rows.div_ceil(self.config.batch_size)
                .div_ceil(self.config.accumulation)
        };
        let steps: usize = (0..self.config.epochs_max)
            .map(|epoch| steps_of(self.rows(epoch).len()))
            .sum();
        steps as u64
    }

    fn moment(&self) -> Moment {
        Moment {
            stage: self.progress.stage.index,
            step: self.progress.steps - self.progress.stage.steps,
            step_in_epoch: self.progress.steps_in_epoch as u64,
            steps: self.stage_steps(),
            seed: self.config.seed,
        }
    }

    /// One optimiser step over the batches of an accumulation window.
    fn step(&mut self, window: &[Vec<usize>], run: &StageRun) -> Result<StepReport> {
        let start = Instant::now();
        let share = 1.0 / window.len() as f64;
        let mut gradients = Gradients::default();
        let mut report = StepReport::new(self.progress.epochs + 1, run.label.clone());
        for rows in window {
            let (loss, of_batch, tokens) = self.pass(rows, run)?;
            gradients.accumulate(of_batch, share)?;
            report.add(&loss, tokens, share)?;
        }
        if !report.loss.is_finite() {
            let step = self.progress.steps + 1;
            return Err(Error::LossNotFinite {
                loss: report.loss as f32,
                step,
            });
        }
        report.learning_rate = run.schedule.rate(self.moment().step);
        let parameters = self.model.parameters();
        report.gradient_norm = self
            .optimizer
            .step(parameters, &gradients, report.learning_rate)?;
        report.seconds = start.elapsed().as_secs_f64();
        self.progress.steps += 1;
        self.progress.steps_in_epoch += 1;
        self.progress.loss_sum += report.loss;
        self.progress.seconds += report.seconds;
        report.step = self.progress.steps;
        report.steps_total = self.method.stages().len() as u64 * run.schedule.total;
        Ok(report)
    }

    /// One forward and backward pass over a batch, and the tokens it took.
    fn pass(&mut self, rows: &[usize], run: &StageRun) -> Result<(Loss, Gradients, usize)> {
        let batch = self.data.train.batch(rows);
        let moment = self.moment();
        let mode = Mode::Training {
            seed: self.config.seed,
            pass: self.progress.passes,
        };
        self.progress.passes += 1;
        let (model, method) = (self.model, self.method.as_ref());
        let (loss, gradients) = match &run.features {
            None => {
                let input = ModelInput::of_batch(&batch, model.device())?;
                let truth: Vec<_> = batch.targets.iter().collect();
                let problem = model.config().head.problem;
                let targets = Targets::new(problem, &truth, model.device())?;
                let batch = (&input, &targets);
                self.backpropagation.run(method, batch, (&moment, mode))?
            }
            Some((train, _)) => {
                let batch = (train, self.data.train, rows);
                let backpropagation = &mut self.backpropagation;
                heads_forward_backward(backpropagation, method, batch, (&moment, mode))?
            }
        };
        Ok((loss, gradients, batch.size() * batch.tokens))
    }

    fn tell(&mut self, tell: impl Fn(&mut dyn Observer) -> Result<()>) -> Result<()> {
        self.observers
            .iter_mut()
            .try_for_each(|observer| tell(*observer))
    }
}

fn epochs_without_gain(progress: &Progress) -> usize {
    let since = progress.best.as_ref().map(|best| best.epoch);
    progress.epochs - since.unwrap_or(progress.stage.epochs)
}

/// The settings and data that a checkpoint must share with the run that takes it up. How often
/// checkpoints are written and what is recomputed may change; they decide nothing.
fn fingerprint(config: &TrainConfig, model: &MultiExitModel, data: &TrainData) -> Result<String> {
    let mut value = serde_json::to_value(config).expect("plain data serialises");
    let object = value.as_object_mut().expect("a struct is an object");
    object.remove("checkpoint_seconds");
    object.remove("recompute");
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
