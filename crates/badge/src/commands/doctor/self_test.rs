//! Random models small enough to be checked and timed in three seconds.

use std::time::Instant;

use anyhow::Result;
use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::ModelConfig;
use badge_core::cost::flops;
use badge_core::exit::Depth;
use badge_core::policy::PolicySpec;
use badge_lab::evaluation::model_shape;
use badge_tasks::{Encoding, Target};
use badge_train::Device;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::evaluate;
use badge_train::infer::classify;
use badge_train::loss::Targets;
use badge_train::method::{Joint, Moment};
use badge_train::model::{Mode, ModelInput, MultiExitModel};
use badge_train::optimizer::{AdamW, AdamWConfig};
use badge_train::parameters::initialise;
use badge_train::step::forward_backward;
use serde::Serialize;
use serde_json::json;

/// One thing that must hold, and what was found.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) passed: bool,
    pub(super) found: String,
}

/// How fast a row runs through the blocks.
#[derive(Debug, Serialize)]
pub(super) struct Speed {
    blocks: usize,
    hidden: usize,
    tokens: usize,
    passes: usize,
    /// Median over the passes.
    ms_per_block: f64,
    /// Matrix products only are counted; the time is that of everything.
    gflops_per_second: f64,
}

/// The largest difference between a logit computed early and in full. Both take the same steps in
/// the same order; only a thread pool that sums in another order could come between them.
const DIFFERENCE_MAX: f32 = 1e-6;

/// Seconds spent on timing.
const TIMING_SECONDS: f64 = 1.0;
const PASSES_MAX: usize = 60;

/// A run that stops early must give the logits that the full run has at the same exit, and a
/// policy must stop where a replay over these logits stops.
pub(super) fn early_exits(seed: u64) -> Check {
    Check::of("early exits agree with the full run", || {
        let model = small_model(seed)?;
        let (kind, plan) = (
            model.config().head.prediction_kind(),
            model.config().exits().exits,
        );
        let mut worst = 0.0_f32;
        let mut left_elsewhere = 0;
        let rows = [3, 17, 32].map(|tokens| encoding(&model, tokens));
        for row in &rows {
            let split = EncodedSplit::from_encodings(vec![row.clone()], Vec::new(), 0);
            let full = evaluate(&model, &split, |_| {})?;
            for (position, Depth(depth)) in plan.depths().iter().enumerate() {
                let policy = format!("fixed:{depth}").parse::<PolicySpec>()?;
                let early = classify(&model, row, &policy.build(&plan, kind)?)?;
                let pairs = early.logits.iter().zip(full.logits(0, position));
                worst = pairs.fold(worst, |worst, (a, b)| worst.max((a - b).abs()));
            }
            let policy = "dge:tau=0.5,t=2"
                .parse::<PolicySpec>()?
                .build(&plan, kind)?;
            let replayed = policy.replay(&mut policy.start(), &full.predictions(0, kind)?);
            let early = classify(&model, row, &policy)?;
            left_elsewhere += usize::from(early.depth != replayed.depth);
        }
        let passed = worst <= DIFFERENCE_MAX && left_elsewhere == 0;
        let found = format!(
            "largest difference {worst:.0e} at {} exits of {} rows",
            plan.count(),
            rows.len()
        );
        Ok((passed, found))
    })
}

/// One optimiser step on a batch must lower the loss of that batch.
pub(super) fn training(seed: u64) -> Check {
    Check::of("a training step lowers the loss", || {
        let model = small_model(seed)?;
        let rows: Vec<_> = [5, 9, 14, 20].map(|tokens| encoding(&model, tokens)).into();
        let truth: Vec<_> = (0..rows.len()).map(|row| Target::Class(row % 3)).collect();
        let split = EncodedSplit::from_encodings(rows, truth, 0);
        let input = ModelInput::of_batch(&split.batch(&[0, 1, 2, 3]), model.device())?;
        let truth: Vec<_> = split.targets().iter().collect();
        let targets = Targets::new(model.config().head.problem, &truth, model.device())?;
        let when = (&Moment::first(1, seed), Mode::Evaluation);
        let loss = || forward_backward(&model, &Joint::default(), (&input, &targets), when);
        let (before, gradients) = loss()?;
        let norm = AdamW::new(AdamWConfig::default()).step(model.parameters(), &gradients, 1e-3)?;
        let before = before.total.to_scalar::<f32>()?;
        let after = loss()?.0.total.to_scalar::<f32>()?;
        let passed = norm.is_finite() && norm > 0.0 && after < before;
        let found = format!("{before:.4} to {after:.4}, gradient norm {norm:.2}");
        Ok((passed, found))
    })
}

/// Times a row of 64 tokens through 12 blocks of hidden size 384.
pub(super) fn speed(seed: u64) -> (Check, Option<Speed>) {
    let mut speed = None;
    let check = Check::of("12 blocks of hidden size 384", || {
        let measured = measure(seed)?;
        let found = format!(
            "{:.2} ms per block of {} tokens, {:.1} GFLOP/s",
            measured.ms_per_block, measured.tokens, measured.gflops_per_second
        );
        speed = Some(measured);
        Ok((true, found))
    });
    (check, speed)
}

fn measure(seed: u64) -> Result<Speed> {
    let (blocks, hidden, tokens) = (12, 384, 64);
    let model = random_model(
        &json!({
            "model_type": "albert", "vocab_size": 1000, "embedding_size": 128,
            "hidden_size": hidden, "num_attention_heads": 12, "intermediate_size": 4 * hidden,
            "num_hidden_layers": blocks, "max_position_embeddings": tokens, "num_labels": 2,
        }),
        seed,
    )?;
    let config = model.config();
    let full = PolicySpec::Full.build(&config.exits().exits, config.head.prediction_kind())?;
    let row = encoding(&model, tokens);
    classify(&model, &row, &full)?; // The first pass pays for cold caches.
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.is_empty()
        || (seconds.len() < PASSES_MAX && start.elapsed().as_secs_f64() < TIMING_SECONDS)
    {
        seconds.push(classify(&model, &row, &full)?.seconds);
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let work = flops(model_shape(config).plain_macs(tokens)) as f64;
    Ok(Speed {
        blocks,
        hidden,
        tokens,
        passes: seconds.len(),
        ms_per_block: 1e3 * median / blocks as f64,
        gflops_per_second: work / median / 1e9,
    })
}

impl Check {
    fn of(name: &'static str, check: impl FnOnce() -> Result<(bool, String)>) -> Self {
        let (passed, found) = check().unwrap_or_else(|error| (false, format!("{error:#}")));
        Self {
            name,
            passed,
            found,
        }
    }
}

/// Four blocks with an exit and a bypass each.
fn small_model(seed: u64) -> Result<MultiExitModel> {
    random_model(
        &json!({
            "model_type": "albert", "vocab_size": 101, "embedding_size": 16, "hidden_size": 48,
            "num_attention_heads": 4, "intermediate_size": 96, "num_hidden_layers": 4,
            "max_position_embeddings": 32, "num_labels": 3, "initializer_range": 0.1,
            "early_exit": {"version": 1, "exits": [1, 2, 3, 4], "bypass": {"rank": 5}},
        }),
        seed,
    )
}

fn random_model(config: &serde_json::Value, seed: u64) -> Result<MultiExitModel> {
    let config = ModelConfig::from_json(config.to_string().as_bytes())?;
    let layout = layout::of_model(&config);
    let weights = initialise(Checkpoint::default(), &layout, seed)?;
    Ok(MultiExitModel::new(config, &weights, &Device::Cpu)?)
}

/// Token ids that look like none in particular and are always the same.
fn encoding(model: &MultiExitModel, tokens: usize) -> Encoding {
    let vocabulary = model.config().backbone.vocabulary;
    let id = |place: usize| ((7 + 31 * place + 13 * place * place + tokens) % vocabulary) as u32;
    Encoding {
        ids: (0..tokens).map(id).collect(),
        type_ids: vec![0; tokens],
    }
}
