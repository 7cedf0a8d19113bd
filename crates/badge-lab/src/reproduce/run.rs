//! One cell from its coordinates to its record.

use std::path::Path;

use anyhow::{Context, Result};
use badge_core::config::ModelConfig;
use badge_core::exit::Depth;
use badge_core::policy::ModelExits;
use badge_tasks::hash::sha256_hex;
use badge_tasks::{MetricKind, Split, Task, TokenCache, Tokenizer};
use badge_train::checkpoint::discard;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::ExitScores;
use badge_train::observer::Observer;
use badge_train::trainer::Start;
use badge_train::{Device, DeviceName};
use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::curves::CurveResults;
use super::experiment::SplitOfTask;
use super::materials::{Encoder, TaskRows};
use super::outputs::{Answers, OutputFile};
use crate::evaluation::Subject;
use crate::fine_tune::{Backbone, FineTuned, Means, Place, fine_tune};
use crate::inference::{Code, Inference, InferenceOptions, Precision, Provenance, open};
use crate::record::{Machine, RECORD_FILE, Record, now};

/// What came out of a cell, as its record holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResults {
    /// The training.
    pub training: TrainingResults,
    /// The scores on every split that is reported.
    pub splits: Vec<SplitResults>,
    /// The curves, of cells that have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves: Option<CurveResults>,
}

/// How a training went, and what it scored on dev.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingResults {
    /// Epochs that ran.
    pub epochs: usize,
    /// Optimiser steps.
    pub steps: u64,
    /// Seconds of work, interruptions left out.
    pub seconds: f64,
    /// The epoch whose weights were kept.
    pub best_epoch: usize,
    /// Its scores on dev.
    pub dev: ExitScores,
    /// What computed them.
    pub evaluated_by: Provenance,
    /// Number of trained parameters.
    pub parameters: usize,
}

/// The scores on a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitResults {
    /// The split.
    pub split: SplitOfTask,
    /// The score S.
    pub metric: MetricKind,
    /// Rows of each part; parts are scored by themselves and averaged.
    pub parts: Vec<usize>,
    /// Depths of the exits.
    pub depths: Vec<usize>,
    /// Score of every exit, S-avg and S-best.
    pub scores: ExitScores,
    /// Every exit's answer on every row.
    pub answers: OutputFile,
    /// What computed them.
    pub computed_by: Provenance,
}

/// SHA-256 of what a task scores by and of its labels, which change what a record's figures mean.
fn hash_of_task(task: &Task) -> String {
    let text = format!("{}\n{:?}", task.metric.name(), task.label_space);
    sha256_hex(text.as_bytes())
}

/// What a cell is made of.
#[derive(Debug, Clone, Copy)]
pub struct Ingredients<'a> {
    /// The rows.
    pub rows: &'a TaskRows,
    /// The backbone.
    pub encoder: &'a Encoder,
    /// Threads of training and engine.
    pub threads: usize,
    /// Where token ids are kept.
    pub tokens: &'a TokenCache,
    /// Seconds of work between checkpoints.
    pub checkpoint_seconds: f64,
}

impl Ingredients<'_> {
    /// Hashes of everything that a cell's record speaks of, by name.
    ///
    /// # Errors
    /// When a split is not there.
    pub fn hashes(&self, cell: &Cell) -> Result<Vec<(String, String)>> {
        let data = &self.rows.data;
        let mut hashes = vec![
            ("backbone".to_owned(), self.encoder.sha256.clone()),
            ("tokenizer".to_owned(), self.encoder.tokenizer.clone()),
            ("task".to_owned(), hash_of_task(&data.task)),
        ];
        for split in [&data.train, &data.dev] {
            hashes.push((split.name.to_string(), split.sha256.clone()));
        }
        for split in &cell.splits {
            let rows = self.rows.split(*split)?;
            hashes.push((rows.name.to_string(), rows.sha256.clone()));
        }
        Ok(hashes)
    }
}

/// Trains, scores, draws curves and writes the record; a run that was killed goes on behind its
/// last checkpoint. The weights are left in the directory.
///
/// # Errors
/// Says what is wrong with settings, data or files.
pub fn run(
    cell: &Cell,
    directory: &Path,
    ingredients: Ingredients<'_>,
    observer: &mut dyn Observer,
) -> Result<Record> {
    let started = now();
    let (data, encoder) = (&ingredients.rows.data, ingredients.encoder);
    let training = cell.training(ingredients.checkpoint_seconds);
    let describe = |plain: &ModelConfig, head| {
        let plain = match cell.depth {
            None => plain.clone(),
            Some(depth) => plain.cut_to(Depth(depth)).map_err(anyhow::Error::msg)?,
        };
        let heads = (cell.hyper.activation, training.max_length);
        let exits = cell.variant.early_exit(&plain, heads)?;
        Ok(plain.with_exits(head, exits))
    };
    let source = &encoder.directory;
    let backbone = Backbone::from_directory(source, &data.task.label_space, describe, cell.seed)?;
    let place = Place {
        directory,
        tokenizer_source: Some(source),
        start: Start::Resume,
    };
    let means = Means {
        threads: ingredients.threads,
        tokens: ingredients.tokens,
        device: &Device::Cpu,
    };
    let tuned = fine_tune(backbone, data, &training, (place, means), observer)?;
    let mut model = open(
        directory,
        &InferenceOptions {
            code: Code::Engine,
            precision: Precision::F32,
            threads: ingredients.threads,
            device: DeviceName::Cpu,
        },
    )?;
    let bench = Bench {
        directory,
        config: model.config().clone(),
        model_exits: ModelExits::of(model.config()),
        tokenizer: Tokenizer::from_directory(directory)?,
        max_length: training.max_length,
        ingredients,
    };
    let splits = cell.splits.iter();
    let splits = splits.map(|split| bench.score(&mut *model, *split));
    let results = CellResults {
        training: training_results(&tuned)?,
        splits: splits.collect::<Result<_>>()?,
        curves: bench.curves(&mut *model, cell)?,
    };
    let machine = Machine::detect(ingredients.threads, training.passes.precision.name());
    let mut record = Record::new("reproduce", cell.seed, machine).started(started);
    record.configuration = serde_json::to_value(cell)?;
    record.data = ingredients.hashes(cell)?.into_iter().collect();
    record.results = serde_json::to_value(&results)?;
    let record = record.finished(now());
    record.write(&directory.join(RECORD_FILE))?;
    discard(directory)?;
    Ok(record)
}

fn training_results(tuned: &FineTuned) -> Result<TrainingResults> {
    let progress = &tuned.progress;
    let best = progress.best.as_ref();
    let best = best.context("a run has at least one epoch")?;
    Ok(TrainingResults {
        epochs: progress.epochs,
        steps: progress.steps,
        seconds: progress.seconds,
        best_epoch: best.epoch,
        dev: best.scores.clone(),
        evaluated_by: tuned.evaluated_by.clone(),
        parameters: tuned.model.parameters().count(),
    })
}

/// A trained model among the rows it is held against.
struct Bench<'a> {
    directory: &'a Path,
    config: ModelConfig,
    model_exits: ModelExits,
    tokenizer: Tokenizer,
    max_length: usize,
    ingredients: Ingredients<'a>,
}

impl Bench<'_> {
    fn encoded(&self, split: &Split) -> Result<EncodedSplit> {
        let positions = self.config.backbone.positions;
        let max_length = self.max_length.min(positions);
        let tokens = self.ingredients.tokens;
        Ok(EncodedSplit::new(
            split,
            &self.tokenizer,
            max_length,
            tokens,
        )?)
    }

    fn subject<'a>(&'a self, split: &'a Split, encoded: &'a EncodedSplit) -> Subject<'a> {
        let task = &self.ingredients.rows.data.task;
        Subject {
            config: &self.config,
            model_exits: &self.model_exits,
            split,
            encoded,
            metric: task.metric,
            labels: &task.label_space,
        }
    }

    fn score(&self, model: &mut dyn Inference, split: SplitOfTask) -> Result<SplitResults> {
        let rows = self.ingredients.rows.split(split)?;
        let encoded = self.encoded(rows)?;
        let subject = self.subject(rows, &encoded);
        let logits = model.all_exits(&encoded, &mut |_| {})?;
        let answers = Answers::of(&logits, rows, subject.labels)?;
        let name = format!("answers-{}.safetensors", rows.name);
        let plan = self.config.exits().exits;
        Ok(SplitResults {
            split,
            metric: subject.metric,
            parts: rows.parts.iter().map(|part| part.rows).collect(),
            depths: plan.depths().iter().map(|depth| depth.0).collect(),
            scores: ExitScores::of(&logits, rows, (subject.metric, subject.labels))?,
            answers: answers.write(self.directory, &name)?,
            computed_by: model.provenance(),
        })
    }

    /// Operating points chosen on dev, on the first split that is reported.
    fn curves(&self, model: &mut dyn Inference, cell: &Cell) -> Result<Option<CurveResults>> {
        let Some(wanted) = &cell.curves else {
            return Ok(None);
        };
        let dev = &self.ingredients.rows.data.dev;
        let reported = self.ingredients.rows.split(cell.splits[0])?;
        let (dev_rows, rows) = (self.encoded(dev)?, self.encoded(reported)?);
        let dev = self.subject(dev, &dev_rows);
        let reported = self.subject(reported, &rows);
        CurveResults::draw(wanted, (dev, reported), model, self.directory).map(Some)
    }
}
