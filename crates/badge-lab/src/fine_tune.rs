//! One fine-tuning run from a backbone to a model directory.

mod evaluator;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use badge_core::calibration::CALIBRATION_FILE;
use badge_core::checkpoint::layout::Part;
use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::{HeadConfig, ModelConfig};
use badge_tasks::{LabelSpace, Split, TaskData, TokenCache, Tokenizer, file};
use badge_train::Device;
use badge_train::checkpoint::Progress;
use badge_train::data::EncodedSplit;
use badge_train::model::MultiExitModel;
use badge_train::model_directory::{read_model, write_description};
use badge_train::observer::{EpochReport, JsonLines, Observer, TensorBoard};
use badge_train::parameters::initialise;
use badge_train::trainer::{Start, TrainConfig, TrainData, Trainer};
use badge_train::weights::{self, SAFETENSORS_FILE};

use crate::calibration::CALIBRATION_RECORD_FILE;
use crate::calibration::cache::LOGITS_FILE;
use crate::inference::{Provenance, check_support};
use crate::record::RECORD_FILE;

pub use evaluator::PackedEvaluator;

/// What a run starts from.
#[derive(Debug)]
pub struct Backbone {
    /// Configuration of the model to be trained: backbone, labels and exits.
    pub config: ModelConfig,
    /// Every tensor of it.
    pub weights: Checkpoint,
    /// Its tokeniser.
    pub tokenizer: Tokenizer,
    /// Tensors that no file provided and that start fresh.
    pub fresh: Vec<String>,
    /// Tensors of the file that have no place in the model.
    pub unused: Vec<String>,
}

impl Backbone {
    /// A pre-trained backbone from a directory, as part of the model that `describe` makes of its
    /// configuration for a task's labels.
    ///
    /// # Errors
    /// Names the file, key or tensor that is wrong.
    pub fn from_directory(
        directory: &Path,
        labels: &LabelSpace,
        describe: impl FnOnce(&ModelConfig, HeadConfig) -> Result<ModelConfig>,
        seed: u64,
    ) -> Result<Self> {
        let plain = weights::read_config(directory)?;
        let config = describe(&plain, head_of(labels))?;
        let tokenizer = Tokenizer::from_directory(directory)?;
        let read = weights::read_pretrained(directory, &config)?;
        let layout = layout::of_model(&config);
        let weights = initialise(read.tensors, &layout, seed)?;
        Ok(Self {
            config,
            weights,
            tokenizer,
            fresh: read.missing,
            unused: read.unused,
        })
    }

    /// A backbone that starts from random weights.
    ///
    /// # Errors
    /// Never for a configuration that was read; the signature is that of the other way.
    pub fn fresh(config: ModelConfig, tokenizer: Tokenizer, seed: u64) -> Result<Self> {
        let layout = layout::of_model(&config);
        let weights = initialise(Checkpoint::default(), &layout, seed)?;
        let fresh = layout.into_iter().map(|spec| spec.name).collect();
        Ok(Self {
            config,
            weights,
            tokenizer,
            fresh,
            unused: Vec::new(),
        })
    }
}

/// The outputs of a classifier for these labels.
pub fn head_of(labels: &LabelSpace) -> HeadConfig {
    HeadConfig {
        labels: labels.id2label().into_values().collect(),
        problem: labels.problem_type(),
    }
}

/// The label space of a model's outputs.
///
/// # Errors
/// When labels repeat or are empty.
pub fn label_space_of(head: &HeadConfig) -> Result<LabelSpace> {
    LabelSpace::new(head.problem, head.labels.clone()).context("config.json: key `id2label`")
}

/// Where a run writes, and where it came from.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The model directory to be written.
    pub directory: &'a Path,
    /// The directory of the pre-trained tokeniser, whose extra files are passed on.
    pub tokenizer_source: Option<&'a Path>,
    /// Whether an earlier checkpoint is taken up.
    pub start: Start,
}

/// What a run may use. It decides how long the run takes; what comes of it differs by no more than
/// rounding.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// Threads of the engine that scores the dev split; those of the training are the process's.
    pub threads: usize,
    /// Where token ids are kept.
    pub tokens: &'a TokenCache,
    /// Where the model is trained.
    pub device: &'a Device,
}

/// A finished run.
#[derive(Debug)]
pub struct FineTuned {
    /// The best epoch's model, read back from its directory.
    pub model: MultiExitModel,
    /// What happened.
    pub progress: Progress,
    /// What computed the dev scores.
    pub evaluated_by: Provenance,
}

/// Writes everything of the directory but the weights, right before the first of these.
struct Description<'a> {
    directory: &'a Path,
    config: &'a ModelConfig,
    tokenizer: &'a Tokenizer,
    tokenizer_source: Option<&'a Path>,
}

/// An earlier model's weights and what speaks of them: nothing of it may stand beside a new
/// description. A kill in between leaves a directory without weights, never one with wrong ones.
const OUTDATED: [&str; 6] = [
    SAFETENSORS_FILE,
    CALIBRATION_FILE,
    CALIBRATION_RECORD_FILE,
    LOGITS_FILE,
    RECORD_FILE,
    "README.md",
];

impl Description<'_> {
    fn write(&self) -> badge_train::Result<()> {
        for path in OUTDATED.map(|name| self.directory.join(name)) {
            if path.exists() {
                fs::remove_file(&path).map_err(|source| file::write_error(&path, source))?;
            }
        }
        write_description(
            self.directory,
            self.config,
            self.tokenizer,
            self.tokenizer_source,
        )
    }
}

impl Observer for Description<'_> {
    fn weights(&mut self, report: &EpochReport) -> badge_train::Result<()> {
        // The first epoch is always the best so far.
        if report.epoch == 1 {
            self.write()
        } else {
            Ok(())
        }
    }
}

/// Whether the backbone learns in a run's last stage. Where it does not, the trainer scores the
/// heads on stored features.
fn ends_with_backbone(training: &TrainConfig, model: &ModelConfig) -> bool {
    let method = training.method();
    let last = method.stages().len() - 1;
    method.trains(last, Part::Backbone, &model.exits().exits)
}

/// Runs the training loop and writes the model directory, `log.jsonl` and TensorBoard events.
///
/// Nothing is written before settings, data and checkpoint have been checked, and the directory
/// keeps what it held before until the first epoch has new weights. The run's checkpoint stays
/// until the caller [discards](badge_train::checkpoint::discard) it, when the record is written.
///
/// # Errors
/// Names what is wrong with settings, data or files; a killed run goes on from its checkpoint.
pub fn fine_tune(
    backbone: Backbone,
    data: &TaskData,
    config: &TrainConfig,
    (place, means): (Place, Means),
    observer: &mut dyn Observer,
) -> Result<FineTuned> {
    config.check()?;
    let Place {
        directory,
        tokenizer_source,
        start,
    } = place;
    let tokenizer = backbone.tokenizer;
    let positions = backbone.config.backbone.positions;
    let max_length = config.max_length.min(positions);
    let mut encoded = |split: &Split| -> Result<EncodedSplit> {
        let encoded = EncodedSplit::new(split, &tokenizer, max_length, means.tokens);
        let encoded =
            encoded.with_context(|| format!("the {} split cannot be tokenised", split.name))?;
        observer.tokens(split.name, encoded.origin())?;
        Ok(encoded)
    };
    let (train, dev) = (encoded(&data.train)?, encoded(&data.dev)?);
    let model = MultiExitModel::new(backbone.config, &backbone.weights, means.device)?;
    drop(backbone.weights);
    let train_data = TrainData {
        train: &train,
        dev: &dev,
        dev_split: &data.dev,
        label_space: &data.task.label_space,
        metric: data.task.metric,
        train_sha256: &data.train.sha256,
    };
    let mut log = JsonLines::new(&directory.join("log.jsonl"));
    let mut tensorboard = TensorBoard::new(&directory.join("tensorboard"));
    let mut description = Description {
        directory,
        config: model.config(),
        tokenizer: &tokenizer,
        tokenizer_source,
    };
    let observers: Vec<&mut dyn Observer> =
        vec![&mut description, &mut log, &mut tensorboard, observer];
    let mut trainer = Trainer::new(&model, train_data, config, (directory, start), observers)?;
    let engine_computes = check_support(model.config()).is_ok();
    let mut evaluated_by = Provenance::of_trainer(means.device);
    if matches!(means.device, Device::Cpu) && engine_computes {
        let evaluator = PackedEvaluator::new(means.threads)?;
        if ends_with_backbone(config, model.config()) {
            evaluated_by = evaluator.provenance();
        }
        trainer = trainer.with_evaluator(evaluator);
    }
    file::create_folder(directory)?;
    file::remove_leftovers(directory)?;
    let progress = trainer.run()?;
    drop(model);
    Ok(FineTuned {
        model: read_model(directory, &Device::Cpu)?,
        progress,
        evaluated_by,
    })
}
