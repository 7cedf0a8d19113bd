//! Milliseconds of an optimiser step: forward, loss, backward, clipping and AdamW.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use badge_core::config::{ModelConfig, ProblemType};
use badge_core::cost::flops;
use badge_tasks::{BatchOrder, Encoding, Target};
use badge_train::data::EncodedSplit;
use badge_train::features::Features;
use badge_train::loss::Targets;
use badge_train::method::{Joint, Method, Moment, SecondStage, TwoStage};
use badge_train::model::{Mode, ModelInput, MultiExitModel};
use badge_train::optimizer::{AdamW, AdamWConfig};
use badge_train::precision::Precision;
use badge_train::step::{Backpropagation, PassSettings, heads_forward_backward};
use serde::Serialize;

use super::machine::Rates;
use super::memory::{Resident, mebibytes};
use super::percent_or_dash;
use super::timing::{Repeats, Times, in_turns};
use crate::evaluation::model_shape;
use crate::table::{Column, Table};

/// What `gflops` counts.
const COUNTED: &str = "three times the matrix products of a forward pass over all tokens without \
    padding: embedding mapping, blocks, all exits and bypasses, 2 FLOPs a multiply-accumulate";

/// A learning rate that changes weights and breaks nothing, however many steps are taken.
const RATE: f64 = 1e-6;

/// Everything that `bench train` measures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Training {
    counted: &'static str,
    /// The one setting.
    pub rows: Vec<TrainingRow>,
    /// Heads on the frozen backbone, where these were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_stage: Option<SecondStageTimes>,
}

/// The second stage of two-stage training: heads learn on a frozen backbone whose features are
/// stored, or computed for every batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SecondStageTimes {
    epochs: usize,
    /// Computing the features of all rows once.
    features_seconds: f64,
    /// An epoch on stored features, median over rounds.
    stored_epoch_seconds: f64,
    /// An epoch that runs the backbone for every batch, median over rounds.
    recomputed_epoch_seconds: f64,
    /// `recomputed / stored` epochs.
    epoch_ratio: f64,
    /// `epochs recomputed / (features + epochs stored)`.
    stage_ratio: f64,
}

/// Times and memory of joint training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingRow {
    /// The numbers that are multiplied.
    precision: String,
    /// Whether layers are computed again in the backward pass.
    recompute: bool,
    /// Threads that compute.
    threads: usize,
    /// Rows of a batch, except of the last one.
    batch: usize,
    /// Exits, all of which learn.
    exits: usize,
    /// Batches of a round.
    batches: usize,
    /// Tokens of a round, without padding.
    tokens: usize,
    /// Of the steps of all rounds.
    median_ms: f64,
    min_ms: f64,
    /// Median over the rounds.
    round_seconds: f64,
    /// Of the median round.
    tokens_per_second: f64,
    gflops: f64,
    /// Of the measured peak of the same precision and threads.
    share_of_peak: Option<f64>,
    /// Memory of the process before there was a model, and at most.
    resident_before: Option<u64>,
    resident_peak: Option<u64>,
}

/// The rows that are learnt from: random ids and labels.
#[derive(Debug)]
pub struct TrainingRows {
    split: EncodedSplit,
    batches: Vec<Vec<usize>>,
    batch: usize,
}

impl TrainingRows {
    /// Batches of `batch` rows in the order of an epoch, labels by turns.
    ///
    /// # Errors
    ///
    /// When `batch` is 0 or more than anybody trains on.
    pub fn new(
        inputs: Vec<Encoding>,
        config: &ModelConfig,
        (batch, seed): (usize, u64),
    ) -> Result<Self> {
        ensure!(
            (1..=65_536).contains(&batch),
            "--batch: {batch} does not lie in 1..=65536"
        );
        let labels = config.head.outputs();
        let target = |row: usize| match config.head.problem {
            ProblemType::SingleLabel => Target::Class(row % labels),
            ProblemType::MultiLabel => {
                Target::Classes((0..labels).map(|l| l == row % labels).collect())
            }
            ProblemType::Regression => Target::Value((row % 2) as f32),
        };
        let targets = (0..inputs.len()).map(target).collect();
        let split = EncodedSplit::from_encodings(inputs, targets, config.backbone.pad_token);
        let order = BatchOrder {
            seed,
            batch_size: batch,
        };
        Ok(Self {
            batches: order.epoch(0, split.lengths()),
            split,
            batch,
        })
    }

    fn tokens(&self) -> usize {
        self.split.lengths().iter().sum()
    }

    /// The batch that takes the most memory.
    fn largest(&self) -> &[usize] {
        let tokens = |rows: &&Vec<usize>| -> usize {
            rows.iter().map(|row| self.split.lengths()[*row]).sum()
        };
        let largest = self.batches.iter().max_by_key(tokens);
        largest.expect("there is a batch of at least one row")
    }

    /// FLOPs of a round.
    fn flops(&self, config: &ModelConfig) -> u64 {
        let shape = model_shape(config);
        let plan = config.exits().exits;
        let macs = |tokens: &usize| shape.macs_to(plan.deepest(), *tokens, plan.depths());
        3 * flops(self.split.lengths().iter().map(macs).sum())
    }
}

/// A model in training.
#[derive(Debug)]
struct Trainee<'a> {
    model: &'a MultiExitModel,
    backpropagation: Backpropagation<'a>,
    optimizer: AdamW,
    seed: u64,
    pass: u64,
}

impl Trainee<'_> {
    /// One step, and its seconds.
    fn step(&mut self, rows: &[usize], split: &EncodedSplit) -> Result<f64> {
        let start = Instant::now();
        let model = self.model;
        let input = ModelInput::of_batch(&split.batch(rows), model.device())?;
        let truth: Vec<_> = rows.iter().map(|row| &split.targets()[*row]).collect();
        let targets = Targets::new(model.config().head.problem, &truth, model.device())?;
        let mode = Mode::Training {
            seed: self.seed,
            pass: self.pass,
        };
        self.pass += 1;
        let when = (&Moment::first(1, 0), mode);
        let batch = (&input, &targets);
        let (_, gradients) = self.backpropagation.run(&Joint::default(), batch, when)?;
        self.optimizer.step(model.parameters(), &gradients, RATE)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Trains on all batches as often as `repeats` says, after as many steps on the largest one as it
/// has warm-ups.
///
/// Allocators keep what they once had: only the first call of a process gives honest memory.
///
/// # Errors
///
/// When a row does not fit the model, or training fails.
pub fn training(
    (model, passes): (&MultiExitModel, PassSettings),
    rows: &TrainingRows,
    (threads, peaks, before): (usize, &Rates, Resident),
    (repeats, seed): (Repeats, u64),
) -> Result<Training> {
    rows.split.check(&model.config().backbone, "inputs")?;
    let mut trainee = Trainee {
        model,
        backpropagation: Backpropagation::new(model, passes)?,
        optimizer: AdamW::new(AdamWConfig::default()),
        seed,
        pass: 0,
    };
    for _ in 0..repeats.warm_ups {
        trainee.step(rows.largest(), &rows.split)?;
    }
    let (mut steps, mut rounds) = (Vec::new(), Vec::new());
    for _ in 0..repeats.runs {
        let first = steps.len();
        for batch in &rows.batches {
            steps.push(trainee.step(batch, &rows.split)?);
        }
        rounds.push(steps[first..].iter().sum());
    }
    let (steps, rounds) = (Times::from_seconds(steps), Times::from_seconds(rounds));
    let gflops = 1e-9 * rows.flops(model.config()) as f64 / rounds.median();
    let peak = match passes.precision {
        Precision::F32 => peaks.f32_gflops,
        Precision::Bf16 => peaks.bf16_gflops,
    };
    let row = TrainingRow {
        precision: passes.precision.to_string(),
        recompute: passes.recompute,
        threads,
        batch: rows.batch,
        exits: model.config().exits().exits.count(),
        batches: rows.batches.len(),
        tokens: rows.tokens(),
        median_ms: 1e3 * steps.median(),
        min_ms: 1e3 * steps.min(),
        round_seconds: rounds.median(),
        tokens_per_second: rows.tokens() as f64 / rounds.median(),
        gflops,
        share_of_peak: peak.map(|peak| gflops / peak),
        resident_before: before.now,
        resident_peak: Resident::of_this_process().peak,
    };
    Ok(Training {
        counted: COUNTED,
        rows: vec![row],
        second_stage: None,
    })
}

/// Times an epoch of two-stage training's second stage with stored features and without, in turns.
///
/// # Errors
///
/// When the model has one exit alone, a row does not fit it, or training fails.
pub fn second_stage(
    (model, passes): (&MultiExitModel, PassSettings),
    rows: &TrainingRows,
    epochs: usize,
    (repeats, seed): (Repeats, u64),
) -> Result<SecondStageTimes> {
    let method = TwoStage {
        second: SecondStage::CrossEntropy,
    };
    let refused = method.check(&model.config().exits());
    refused.map_err(|problem| anyhow!("--second-stage-epochs: the second stage {problem}"))?;
    let mut backpropagation = Backpropagation::new(model, passes)?;
    let start = Instant::now();
    let stored = Features::of(&mut backpropagation, &rows.split)?;
    let features_seconds = start.elapsed().as_secs_f64();
    ensure!(
        matches!(stored, Features::Stored(_)),
        "--second-stage-epochs: exits of this model read more than can be stored"
    );
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let moment = Moment {
        stage: 1,
        ..Moment::first(1, seed)
    };
    let mut pass = 0;
    let ways = [&stored, &Features::Recomputed];
    // An epoch is long: one will do to warm up.
    let repeats = Repeats {
        warm_ups: 1,
        ..repeats
    };
    let times = in_turns(ways.len(), repeats, |way| {
        for batch in &rows.batches {
            let mode = Mode::Training { seed, pass };
            pass += 1;
            let of = (ways[way], &rows.split, &batch[..]);
            let (_, gradients) =
                heads_forward_backward(&mut backpropagation, &method, of, (&moment, mode))?;
            optimizer.step(model.parameters(), &gradients, RATE)?;
        }
        Ok(())
    })?;
    let [stored, recomputed] = &times[..] else {
        unreachable!("two ways were timed")
    };
    let (stored_epoch_seconds, recomputed_epoch_seconds) = (stored.median(), recomputed.median());
    let all = |epoch: f64| epochs as f64 * epoch;
    Ok(SecondStageTimes {
        epochs,
        features_seconds,
        stored_epoch_seconds,
        recomputed_epoch_seconds,
        epoch_ratio: recomputed.ratio_to(stored),
        stage_ratio: all(recomputed_epoch_seconds) / (features_seconds + all(stored_epoch_seconds)),
    })
}

impl SecondStageTimes {
    fn to_text(&self) -> String {
        format!(
            "\nsecond stage: features once {:.2} s; an epoch of heads {:.3} s on them, {:.2} s with \
             the backbone run for every batch ({:.1} times)\n{} epochs: {:.1} times\n",
            self.features_seconds,
            self.stored_epoch_seconds,
            self.recomputed_epoch_seconds,
            self.epoch_ratio,
            self.epochs,
            self.stage_ratio,
        )
    }
}

impl Training {
    /// A table of what was measured, for a terminal.
    pub fn to_text(&self) -> String {
        let mut table = Table::new([
            Column::text("precision"),
            Column::number("batch"),
            Column::number("steps"),
            Column::number("tokens"),
            Column::number("median ms"),
            Column::number("min ms"),
            Column::number("tokens/s"),
            Column::number("GFLOP/s"),
            Column::number("of peak"),
            Column::number("peak MiB"),
        ]);
        for row in &self.rows {
            table.push([
                row.precision.clone(),
                row.batch.to_string(),
                row.batches.to_string(),
                row.tokens.to_string(),
                format!("{:.1}", row.median_ms),
                format!("{:.1}", row.min_ms),
                format!("{:.0}", row.tokens_per_second),
                format!("{:.1}", row.gflops),
                percent_or_dash(row.share_of_peak),
                mebibytes(row.resident_peak),
            ]);
        }
        let mut text = table.to_text();
        if let Some(second_stage) = &self.second_stage {
            text += &second_stage.to_text();
        }
        text
    }
}
