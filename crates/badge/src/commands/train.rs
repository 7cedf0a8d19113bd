//! `badge train`: fine-tunes a multi-exit model.

mod recipe;
mod singles;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use badge_core::activation::Activation;
use badge_core::config::ModelConfig;
use badge_lab::fine_tune::{Backbone, FineTuned, Means, Place, fine_tune};
use badge_lab::inference::Provenance;
use badge_lab::model_card::ModelCard;
use badge_lab::record::{Machine, RECORD_FILE, Record, now};
use badge_tasks::{TaskData, file, hash};
use badge_train::DeviceName;
use badge_train::checkpoint::{CHECKPOINT_FILE, discard, precision_of_run};
use badge_train::method::ExitWeights;
use badge_train::optimizer::AdamWConfig;
use badge_train::precision::Precision;
use badge_train::step::PassSettings;
use badge_train::trainer::{Start, TrainConfig};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::recipe::{
    ExitHeadName, KlName, LayerNormName, LteName, MethodName, PlacementName, PoolerName,
    SecondStageName,
};
use super::{Session, Verdict, sources};
use crate::progress::TrainingProgress;

/// Flags of `badge train`; a `--config` file holds the same keys.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[command(
    after_help = "Example:\n  badge train --backbone albert-base-v2 --task rte --out runs/rte \
    --bypass-rank 16 --lr 1e-5"
)]
pub(crate) struct TrainArgs {
    /// Pre-trained model: a directory or a hub id
    #[arg(long, value_name = "DIR|HUB_ID")]
    backbone: Option<String>,
    /// A built-in task (rte, mrpc, sst2, ...) or a task.toml
    #[arg(long)]
    task: Option<String>,
    /// Folder with the task's files [default: fetched from the hub]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Model directory to write
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A TOML file with the same keys; flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Go on from the checkpoint in --out, if there is one
    #[arg(long)]
    #[serde(skip)]
    resume: bool,
    #[command(flatten)]
    #[serde(skip)]
    cache: sources::CacheArgs,
    /// Where to train: cpu, or cuda or cuda:N with the cargo feature cuda [default: cpu]
    #[arg(long, value_name = "cpu|cuda[:N]")]
    device: Option<DeviceName>,
    /// The training method [default: badge]
    #[arg(long)]
    method: Option<MethodName>,
    /// Blocks of the one model that --method single trains [default: a model of every depth]
    #[arg(long, value_name = "M")]
    depth: Option<usize>,
    /// Weights of the exits' losses: uniform or linear [default: uniform]
    #[arg(long, value_parser = parse::<ExitWeights>)]
    exit_weights: Option<ExitWeights>,
    /// What the exits learn from in the second stage: ce (labels) or distillation [default: ce]
    #[arg(long)]
    second_stage: Option<SecondStageName>,
    /// First argument of the distillation's KL divergence [default: teacher-first]
    #[arg(long)]
    kl: Option<KlName>,
    /// Temperature of the distillation [default: 1]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// First blocks that thaw over a run of global-past-future [default: 2]
    #[arg(long, value_name = "F")]
    thawing_blocks: Option<usize>,
    /// Add a learning-to-exit head, trained with the exits or on the frozen model
    #[arg(long)]
    lte: Option<LteName>,
    /// Depths that carry an exit, such as 2,4,6,12 [default: every block]
    #[arg(long, value_delimiter = ',', value_name = "DEPTHS")]
    exits: Option<Vec<usize>>,
    /// What exits read the first token through: shared, own or none [default: shared; own on ElasticBERT]
    #[arg(long)]
    pooler: Option<PoolerName>,
    /// What exits read: the first token, or all through attention [default: linear]
    #[arg(long)]
    exit_head: Option<ExitHeadName>,
    /// Size of the exits' attention [default: 32; 128 for mha-fastbert]
    #[arg(long, value_name = "R")]
    exit_head_rank: Option<usize>,
    /// Heads of the exits' attention [default: 2]
    #[arg(long, value_name = "N")]
    exit_head_heads: Option<usize>,
    /// Part of the block that bypasses go around [default: block]
    #[arg(long)]
    bypass_placement: Option<PlacementName>,
    /// Bottleneck dimension r of the bypasses [default: 16]
    #[arg(long, value_name = "R")]
    bypass_rank: Option<usize>,
    /// The bypasses' non-linearity: gelu, relu, leaky_relu, swish, tanh, identity [default: gelu]
    #[arg(long, value_name = "NAME", value_parser = parse::<Activation>)]
    bypass_activation: Option<Activation>,
    /// Give the bypasses biases
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    bypass_bias: Option<bool>,
    /// LayerNorm after the bypass: own or shared [default: own]
    #[arg(long)]
    bypass_layer_norm: Option<LayerNormName>,
    /// Dropout before the exits' classifiers [default: the backbone's; none for mha-fastbert]
    #[arg(long, value_name = "P")]
    exit_dropout: Option<f64>,
    /// Epochs at most [default: 25]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Stop after so many epochs without a better S-avg on dev [default: 8]
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// Rows per forward pass [default: 16]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Forward passes per optimiser step [default: 1]
    #[arg(long, value_name = "N")]
    accumulation: Option<usize>,
    /// Peak learning rate [default: 2e-5]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Peak learning rate of stages that train heads on a frozen backbone [default: --lr]
    #[arg(long, value_name = "RATE")]
    head_lr: Option<f64>,
    /// Share of the steps spent on warm-up [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    warmup_ratio: Option<f64>,
    /// Decoupled weight decay [default: 0]
    #[arg(long, value_name = "RATE")]
    weight_decay: Option<f64>,
    /// Gradient norm to clip to [default: 1]
    #[arg(long, value_name = "NORM")]
    max_grad_norm: Option<f64>,
    /// Longest input in tokens [default: 128]
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// What the products of the blocks multiply: f32, or bf16 with f32 sums and weights [default:
    /// bf16 where the processor is faster in it, else f32]
    #[arg(long, value_name = "NAME", value_parser = parse::<Precision>)]
    precision: Option<Precision>,
    /// Compute the inside of every block again in the backward pass: more time, less memory
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    recompute: Option<bool>,
    /// Minutes of work between checkpoints inside an epoch [default: 5]
    #[arg(long, value_name = "MINUTES")]
    checkpoint_minutes: Option<f64>,
    /// Seed, in a --config file only; on the command line it is a global flag
    #[arg(skip)]
    seed: Option<u64>,
}

fn parse<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}

/// The result of a run, as `--json` and `record.json` hold it.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    directory: &'a Path,
    epochs: usize,
    steps: u64,
    seconds: f64,
    best_epoch: usize,
    dev: &'a badge_train::evaluate::ExitScores,
    /// What computed the dev scores.
    evaluated_by: &'a Provenance,
    history: &'a [badge_train::observer::EpochReport],
    parameters: usize,
    fresh_tensors: &'a [String],
    /// Hash of the weights that the run started from, fresh ones included.
    initial_weights_sha256: &'a str,
}

pub(crate) fn run(args: TrainArgs, session: Session) -> Result<Verdict> {
    let mut args = args.with_file()?;
    args.seed = session.seed_flag.or(args.seed).or(Some(session.seed));
    args.precision = Some(args.settled_precision()?);
    let ran = if args.is_of_all_depths() {
        singles::train_all(&args, session)?
    } else {
        train(&args, session)?
    };
    session.console.result(&ran.results, &ran.summary)?;
    Ok(Verdict::Done)
}

/// A run and what is told of it.
struct Ran {
    results: Value,
    summary: String,
}

/// Trains one model, unless that has been done.
fn train(args: &TrainArgs, session: Session) -> Result<Ran> {
    let started = now();
    let (backbone_name, task_name, out) = args.required()?;
    let config = args.train_config()?;
    config.check()?;
    let device = args.device.unwrap_or_default().open()?;
    if let Some(results) = already_finished(args, (&config, out), session)? {
        let summary = String::new();
        return Ok(Ran { results, summary });
    }
    let source = sources::model_directory(backbone_name, session.console)?;
    let (data, _) = sources::task_data(task_name, args.data.as_deref(), session.console)?;
    let describe = |plain: &ModelConfig, head| args.describe(plain, head);
    let backbone =
        Backbone::from_directory(&source, &data.task.label_space, describe, config.seed)?;
    tell_start(&backbone, &data, session);
    let initial = hash::sha256_hex(&backbone.weights.to_safetensors());
    let (fresh, depths) = (backbone.fresh.clone(), depths_of(&backbone.config));
    let mut progress = TrainingProgress::new(session.console, data.task.metric.name(), depths);
    let place = Place {
        directory: out,
        tokenizer_source: Some(&source),
        start: args.start(),
    };
    let means = Means {
        threads: session.threads,
        tokens: &args.cache.tokens(),
        device: &device,
    };
    let tuned = fine_tune(backbone, &data, &config, (place, means), &mut progress)?;
    drop(progress);
    let card = ModelCard {
        backbone: &sources::label(backbone_name),
        config: tuned.model.config(),
        data: &data,
        training: &config,
        progress: &tuned.progress,
    };
    card.write(out)?;
    let best = tuned
        .progress
        .best
        .as_ref()
        .context("a run has at least one epoch")?;
    let outcome = Outcome {
        directory: out,
        epochs: tuned.progress.epochs,
        steps: tuned.progress.steps,
        seconds: tuned.progress.seconds,
        best_epoch: best.epoch,
        dev: &best.scores,
        evaluated_by: &tuned.evaluated_by,
        history: &tuned.progress.history,
        parameters: tuned.model.parameters().count(),
        fresh_tensors: &fresh,
        initial_weights_sha256: &initial,
    };
    let configuration = args.resolved(&config, Some(&tuned));
    let results = write_record(
        (out, serde_json::to_value(&outcome)?),
        configuration,
        (&data, started),
        (&config, session.threads),
    )?;
    discard(out)?;
    let summary = summary(&outcome, &data, args);
    Ok(Ran { results, summary })
}

fn summary(outcome: &Outcome, data: &TaskData, args: &TrainArgs) -> String {
    let directory = outcome.directory.display();
    let task = args.task.as_deref().unwrap_or_default();
    let folder = args
        .data
        .as_ref()
        .map_or(String::new(), |d| format!(" --data {}", d.display()));
    format!(
        "best epoch {} of {}: dev {} S-avg {:.1}, S-best {:.1}\nmodel written to {directory}\n\
         next: badge eval --model {directory} --task {task}{folder} --policy dge:tau=0.3,t=2\n",
        outcome.best_epoch,
        outcome.epochs,
        data.task.metric,
        100.0 * outcome.dev.average,
        100.0 * outcome.dev.best,
    )
}

/// A finished run has no checkpoint to take up; training it again would overwrite its model.
///
/// # Errors
/// When the finished run had other settings: it is not the one that is meant.
fn already_finished(
    args: &TrainArgs,
    (config, out): (&TrainConfig, &Path),
    session: Session,
) -> Result<Option<Value>> {
    let record = out.join(RECORD_FILE);
    if !args.resume || out.join(CHECKPOINT_FILE).exists() || !record.exists() {
        return Ok(None);
    }
    let record = Record::read(&record)?;
    let theirs = &record.configuration;
    let mut training = serde_json::to_value(config)?;
    // These decide nothing.
    for key in ["checkpoint_seconds", "recompute"] {
        training[key] = theirs["training"][key].clone();
    }
    let ours = serde_json::json!({
        "backbone": args.backbone.as_deref().map(sources::label),
        "task": args.task,
        "depth": args.depth,
        "training": training,
    });
    for key in ["backbone", "task", "depth", "training"] {
        ensure!(
            theirs[key] == ours[key],
            "--resume: the finished run in {} has {key} {}, not {}; choose another --out, or leave \
             --resume out to train anew",
            out.display(),
            theirs[key],
            ours[key],
        );
    }
    session.console.note(&format!(
        "the run in {} is finished; nothing to resume",
        out.display()
    ));
    Ok(Some(record.results))
}

/// The precision of the run in a directory, unfinished or finished; none where there is no run that
/// could be read.
fn precision_of(out: &Path) -> Option<Precision> {
    let finished = || {
        let record = Record::read(&out.join(RECORD_FILE)).ok()?;
        let precision = record.configuration["training"]["precision"].as_str()?;
        precision.parse().ok()
    };
    precision_of_run(out).or_else(finished)
}

fn tell_start(backbone: &Backbone, data: &TaskData, session: Session) {
    let console = session.console;
    let exits = backbone.config.exits();
    console.note(&format!(
        "{}: {} train, {} dev rows; {} exits{}",
        data.task.name,
        data.train.len(),
        data.dev.len(),
        exits.exits.count(),
        exits
            .bypass
            .map_or(String::new(), |b| format!(", bypasses of rank {}", b.rank)),
    ));
    for (what, names) in [
        ("start fresh", &backbone.fresh),
        ("have no use", &backbone.unused),
    ] {
        let of_backbone: Vec<_> = names.iter().map(String::as_str).collect();
        if !of_backbone.is_empty() {
            console.detail(&format!("tensors that {what}: {}", of_backbone.join(", ")));
        }
    }
}

fn depths_of(config: &ModelConfig) -> Vec<usize> {
    config
        .exits()
        .exits
        .depths()
        .iter()
        .map(|depth| depth.0)
        .collect()
}

/// Writes the record of a run into its directory; gives back what a program is told of it.
fn write_record(
    (out, results): (&Path, Value),
    configuration: Value,
    (data, started): (&TaskData, u64),
    (training, threads): (&TrainConfig, usize),
) -> Result<Value> {
    let machine = Machine::detect(threads, training.passes.precision.name());
    let mut record = Record::new("train", training.seed, machine).started(started);
    record.configuration = configuration;
    for split in [&data.train, &data.dev] {
        record
            .data
            .insert(split.name.to_string(), split.sha256.clone());
    }
    record.results = results.clone();
    // The directory is where the record lies; its path says nothing to anybody else.
    if let Some(results) = record.results.as_object_mut() {
        results.remove("directory");
    }
    record.finished(now()).write(&out.join(RECORD_FILE))?;
    Ok(results)
}

impl TrainArgs {
    /// Fills what was not typed from the `--config` file.
    fn with_file(self) -> Result<Self> {
        let Some(path) = &self.config else {
            return Ok(self);
        };
        let text = file::read_text(path)?;
        let from_file: Self =
            toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        let mut merged = serde_json::to_value(from_file)?;
        let typed = serde_json::to_value(&self)?;
        let (Some(merged_keys), Some(typed_keys)) = (merged.as_object_mut(), typed.as_object())
        else {
            bail!("{}: must be a table of keys", path.display());
        };
        for (key, value) in typed_keys.iter().filter(|(_, value)| !value.is_null()) {
            merged_keys.insert(key.clone(), value.clone());
        }
        let merged: Self = serde_json::from_value(merged)?;
        Ok(Self {
            config: self.config.clone(),
            resume: self.resume,
            cache: self.cache,
            ..merged
        })
    }

    fn required(&self) -> Result<(&str, &str, &Path)> {
        let missing = |flag: &str| format!("{flag} is missing; give it here or in a --config file");
        Ok((
            self.backbone
                .as_deref()
                .with_context(|| missing("--backbone"))?,
            self.task.as_deref().with_context(|| missing("--task"))?,
            self.out.as_deref().with_context(|| missing("--out"))?,
        ))
    }

    fn start(&self) -> Start {
        if self.resume {
            Start::Resume
        } else {
            Start::Fresh
        }
    }

    /// What was asked for, what the run to resume began with, or what is usual on this machine.
    fn settled_precision(&self) -> Result<Precision> {
        let begun = || {
            let out = self.out.as_ref().filter(|_| self.resume)?;
            if self.is_of_all_depths() {
                precision_of(&out.join(singles::directory_of(1)))
            } else {
                precision_of(out)
            }
        };
        let settled = self.precision.or_else(begun);
        settled.map_or_else(
            || Ok(Precision::usual(self.device.unwrap_or_default())?),
            Ok,
        )
    }

    fn train_config(&self) -> Result<TrainConfig> {
        let default = AdamWConfig::default();
        Ok(TrainConfig {
            method: self.method()?,
            lte: self.lte.map(LteName::training),
            epochs_max: self.epochs.unwrap_or(25),
            patience: self.patience.unwrap_or(8),
            batch_size: self.batch_size.unwrap_or(16),
            accumulation: self.accumulation.unwrap_or(1),
            learning_rate: self.lr.unwrap_or(2e-5),
            head_learning_rate: self.head_lr,
            warmup_ratio: self.warmup_ratio.unwrap_or(0.1),
            optimizer: AdamWConfig {
                weight_decay: self.weight_decay.unwrap_or(0.0),
                gradient_norm_max: self.max_grad_norm.unwrap_or(1.0),
                ..default
            },
            curriculum: None,
            max_length: self.max_length.unwrap_or(128),
            seed: self.seed.unwrap_or(crate::args::DEFAULT_SEED),
            passes: PassSettings {
                precision: self.precision.unwrap_or_default(),
                recompute: self.recompute.unwrap_or(false),
            },
            checkpoint_seconds: 60.0 * self.checkpoint_minutes.unwrap_or(5.0),
        })
    }

    /// The run's configuration with every default filled in.
    fn resolved(&self, config: &TrainConfig, tuned: Option<&FineTuned>) -> Value {
        let mut configuration = serde_json::json!({
            "backbone": self.backbone.as_deref().map(sources::label),
            "task": self.task,
            "device": self.device.unwrap_or_default(),
            "training": config,
        });
        if let Some(tuned) = tuned {
            configuration["early_exit"] = serde_json::json!(tuned.model.config().early_exit);
        }
        if let Some(depth) = self.depth {
            configuration["depth"] = depth.into();
        }
        configuration
    }
}
