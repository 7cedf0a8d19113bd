//! `badge bench train`: milliseconds of an optimiser step, and the memory it takes.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use badge_core::config::ModelConfig;
use badge_engine::Precision;
use badge_lab::bench::memory::Resident;
use badge_lab::bench::shape::{Shape, random_weights};
use badge_lab::bench::timing::Repeats;
use badge_lab::bench::training::{TrainingRows, second_stage, training};
use badge_lab::bench::{check_lengths, random_inputs};
use badge_tasks::{file, hash};
use badge_train::Device;
use badge_train::model::MultiExitModel;
use badge_train::precision::Precision as TrainPrecision;
use badge_train::step::PassSettings;
use badge_train::weights::{SAFETENSORS_FILE, read_checkpoint, read_config};
use clap::Args;
use serde_json::json;

use super::super::sources;
use super::{Bench, OutArgs, Provenance, check_out, read_lengths, shapes};

/// Flags of `badge bench train`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench train --shape albert-base --batch 16 --length 64 --threads 2\n  \
    badge bench train --model runs/mrpc --lengths-file lengths.json --runs 1\n\n\
    Memory is that of the whole process, at most: measure one setting a process."
)]
pub(crate) struct TrainArgs {
    /// Model directory or hub id [default: random weights of --shape]
    #[arg(long, value_name = "DIR|HUB_ID", conflicts_with = "shape")]
    model: Option<String>,
    /// Sizes of a model with random weights, an exit at every block and no bypasses
    #[arg(long, default_value = "albert-base", value_parser = shapes())]
    shape: String,
    /// Dropout everywhere [default: none with --shape, else the model's own]
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// Rows of a batch
    #[arg(long, value_name = "ROWS", default_value_t = 16)]
    batch: usize,
    /// Tokens of every row
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    length: usize,
    /// JSON list of lengths in tokens: a round is an epoch over so many rows
    #[arg(long, value_name = "FILE", conflicts_with = "length")]
    lengths_file: Option<PathBuf>,
    /// What the products of the blocks multiply: f32, or bf16 with f32 sums and weights
    #[arg(long, value_name = "NAME", default_value_t)]
    precision: TrainPrecision,
    /// Compute the inside of every block again in the backward pass: more time, less memory
    #[arg(long)]
    recompute: bool,
    /// Also time heads on the frozen backbone, as two-stage training has them in its second stage
    /// of so many epochs: on stored features, and with the backbone run for every batch
    #[arg(long, value_name = "EPOCHS")]
    second_stage_epochs: Option<usize>,
    /// Timed rounds, after three steps that are not
    #[arg(long, value_name = "N", default_value_t = 8)]
    runs: usize,
    #[command(flatten)]
    out: OutArgs,
}

/// What is trained, and what a record says of it.
struct Trained {
    model: MultiExitModel,
    /// SHA-256 of the weights' file, where there is one.
    sha256: Option<String>,
}

pub(super) fn run(args: &TrainArgs, bench: &Bench) -> Result<()> {
    let (session, before) = (bench.session, Resident::of_this_process());
    check_out(&args.out)?;
    let repeats = Repeats::new("--runs", args.runs)?;
    ensure!(
        args.second_stage_epochs != Some(0),
        "--second-stage-epochs: 0 epochs take no time"
    );
    let Trained { model, sha256 } = args.trained(bench)?;
    let (lengths, lengths_sha256) = args.lengths(model.config())?;
    let inputs = random_inputs(model.config(), &lengths, session.seed);
    let rows = TrainingRows::new(inputs, model.config(), (args.batch, session.seed))?;
    let precision = match args.precision {
        TrainPrecision::F32 => Precision::F32,
        TrainPrecision::Bf16 => Precision::Bf16,
    };
    let peaks = bench.peaks_of(&[precision]);
    let on = (session.threads, &peaks.all_threads, before);
    let passes = PassSettings {
        precision: args.precision,
        recompute: args.recompute,
    };
    let on_model = (&model, passes);
    let mut measured = training(on_model, &rows, on, (repeats, session.seed))?;
    if let Some(epochs) = args.second_stage_epochs {
        let heads = second_stage(on_model, &rows, epochs, (repeats, session.seed))?;
        measured.second_stage = Some(heads);
    }
    let report = bench.report("bench train", Some(peaks), measured);
    let text = report.measured.to_text();
    let named = [(SAFETENSORS_FILE, sha256), ("lengths", lengths_sha256)];
    let known = named
        .into_iter()
        .filter_map(|(name, sha256)| Some((name.to_owned(), sha256?)));
    let provenance = Provenance {
        configuration: args.configuration(),
        precisions: vec![precision.name()],
        data: known.collect(),
        out: &args.out,
    };
    bench.finish(&report, &text, provenance)
}

impl TrainArgs {
    fn trained(&self, bench: &Bench) -> Result<Trained> {
        let session = bench.session;
        let (mut config, weights, sha256) = if let Some(name) = &self.model {
            let directory = sources::model_directory(name, session.console)?;
            let file = directory.join(SAFETENSORS_FILE);
            let wanted = self.out.out.is_some() && file.exists();
            let sha256 = wanted.then(|| file::read_bytes(&file)).transpose()?;
            let sha256 = sha256.map(|bytes| hash::sha256_hex(&bytes));
            (
                read_config(&directory)?,
                read_checkpoint(&directory)?,
                sha256,
            )
        } else {
            let shape = Shape::ALL
                .into_iter()
                .find(|shape| shape.name() == self.shape);
            let config = shape.context("--shape: clap knows the names")?.config();
            let weights = random_weights(&config, session.seed)?;
            (config, weights, None)
        };
        if let Some(dropout) = self.dropout {
            ensure!(
                (0.0..1.0).contains(&dropout),
                "--dropout: {dropout} is not in [0, 1)"
            );
            config.backbone.hidden_dropout = dropout;
            config.backbone.attention_dropout = dropout;
            config.backbone.classifier_dropout = dropout;
        }
        let model = MultiExitModel::new(config, &weights, &Device::Cpu)?;
        Ok(Trained { model, sha256 })
    }

    /// Tokens of every row, and the hash of the file that says so.
    fn lengths(&self, config: &ModelConfig) -> Result<(Vec<usize>, Option<String>)> {
        let Some(path) = &self.lengths_file else {
            check_lengths("--length", &[self.length], config)?;
            // Checked with the rows: no list of absurd length is made before that.
            return Ok((vec![self.length; self.batch.min(1 << 16)], None));
        };
        let (lengths, sha256) = read_lengths(path, config)?;
        Ok((lengths, Some(sha256)))
    }

    fn configuration(&self) -> serde_json::Value {
        let shape = self.model.is_none().then_some(&self.shape);
        json!({
            "model": self.model.as_deref().map(sources::label), "shape": shape,
            "dropout": self.dropout, "batch": self.batch,
            "length": self.lengths_file.is_none().then_some(self.length), "runs": self.runs,
            "precision": self.precision, "recompute": self.recompute,
            "second_stage_epochs": self.second_stage_epochs,
        })
    }
}
