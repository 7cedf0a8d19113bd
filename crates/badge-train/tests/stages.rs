//! Runs of several stages: each starts from the best epoch of the one before, touches only what
//! it trains, and goes on after an interruption as if nothing had happened.

use std::path::Path;

use badge_core::bypass::{BypassConfig, BypassPlacement};
use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::{EarlyExitConfig, HeadConfig, ModelConfig, ProblemType};
use badge_core::exit::{ExitPlan, Pooler};
use badge_core::exit_head::ExitHead;
use badge_tasks::split::{Part, SplitName};
use badge_tasks::{Encoding, Example, LabelSpace, MetricKind, Split, Target};
use badge_train::checkpoint::Progress;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::evaluate;
use badge_train::method::{LteTraining, MethodSpec, SecondStage};
use badge_train::model::MultiExitModel;
use badge_train::observer::{Observer, StepReport};
use badge_train::optimizer::AdamWConfig;
use badge_train::parameters::initialise;
use badge_train::step::PassSettings;
use badge_train::trainer::{Start, TrainConfig, TrainData, Trainer};
use badge_train::weights::read_checkpoint;
use badge_train::{Device, Error, Result};

const ROWS: u32 = 40;
/// A step that no run reaches.
const NEVER: u64 = u64::MAX;
/// Steps of an epoch: 40 rows, 8 to a batch.
const STEPS: u64 = 5;

fn model_config(change: impl Fn(&mut EarlyExitConfig)) -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "intermediate_size": 20, "max_position_embeddings": 12,
        "initializer_range": 0.2
    });
    let head = HeadConfig {
        labels: ["even", "odd"].map(str::to_owned).to_vec(),
        problem: ProblemType::SingleLabel,
    };
    let mut exits = EarlyExitConfig::new(ExitPlan::every_block(3), Pooler::Shared, None, 0.1);
    change(&mut exits);
    ModelConfig::from_json(json.to_string().as_bytes())
        .unwrap()
        .with_exits(head, exits)
}

fn fresh_model(config: &ModelConfig) -> MultiExitModel {
    let weights = initialise(Checkpoint::default(), &layout::of_model(config), 1).unwrap();
    MultiExitModel::new(config.clone(), &weights, &Device::Cpu).unwrap()
}

/// Rows whose second token is the label.
fn rows() -> (Vec<Encoding>, Vec<Target>) {
    (0..ROWS)
        .map(|row| {
            let first = [1, 2 + row % 2, 35];
            let ids: Vec<u32> = first.into_iter().chain(4..4 + row % 7).collect();
            let type_ids = vec![0; ids.len()];
            let target = Target::Class((row % 2) as usize);
            (Encoding { ids, type_ids }, target)
        })
        .unzip()
}

fn train_config(method: MethodSpec) -> TrainConfig {
    TrainConfig {
        method,
        lte: None,
        epochs_max: 3,
        patience: 3,
        batch_size: 8,
        accumulation: 1,
        learning_rate: 3e-3,
        head_learning_rate: Some(2e-2),
        warmup_ratio: 0.1,
        optimizer: AdamWConfig {
            weight_decay: 0.01,
            ..AdamWConfig::default()
        },
        curriculum: None,
        max_length: 12,
        seed: 11,
        passes: PassSettings::default(),
        checkpoint_seconds: 0.0,
    }
}

const TWO_STAGE: MethodSpec = MethodSpec::TwoStage {
    second: SecondStage::CrossEntropy,
};

/// Breaks off behind a step, as a kill would, and keeps the steps.
struct Watch {
    behind: u64,
    steps: Vec<StepReport>,
}

impl Observer for Watch {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.steps.push(report.clone());
        if report.step == self.behind {
            return Err(Error::Setting {
                setting: "test",
                problem: "interrupted".to_owned(),
            });
        }
        Ok(())
    }
}

struct Ran {
    progress: Progress,
    model: MultiExitModel,
    steps: Vec<StepReport>,
}

fn run(
    (model, config): (&ModelConfig, &TrainConfig),
    (directory, start): (&Path, Start),
    behind: u64,
) -> Result<Ran> {
    let (encodings, targets) = rows();
    let example = |target: &Target| Example {
        target: Some(target.clone()),
        ..Example::of_text("x")
    };
    let split = Split {
        name: SplitName::Dev,
        examples: targets.iter().map(example).collect(),
        sha256: "dev".to_owned(),
        rows_sha256: String::new(),
        origin: String::new(),
        files: Vec::new(),
        parts: vec![Part {
            name: "dev".to_owned(),
            rows: targets.len(),
        }],
    };
    let rows = EncodedSplit::from_encodings(encodings, targets, 0);
    let labels = LabelSpace::SingleLabel {
        labels: model.head.labels.clone(),
    };
    let model = fresh_model(model);
    let data = TrainData {
        train: &rows,
        dev: &rows,
        dev_split: &split,
        label_space: &labels,
        metric: MetricKind::Accuracy,
        train_sha256: "train",
    };
    let mut watch = Watch {
        behind,
        steps: Vec::new(),
    };
    let place = (directory, start);
    let progress = Trainer::new(&model, data, config, place, vec![&mut watch])?.run()?;
    let steps = watch.steps;
    Ok(Ran {
        progress,
        model,
        steps,
    })
}

fn weights(model: &MultiExitModel) -> Checkpoint {
    model.parameters().to_checkpoint().unwrap()
}

fn straight(model: &ModelConfig, config: &TrainConfig) -> (tempfile::TempDir, Ran) {
    let directory = tempfile::tempdir().unwrap();
    let ran = run((model, config), (directory.path(), Start::Fresh), NEVER).unwrap();
    (directory, ran)
}

#[test]
fn the_second_stage_starts_from_the_best_epoch_of_the_first_and_leaves_it_bit_identical() {
    let model = model_config(|exits| {
        exits.bypass = Some(BypassConfig {
            rank: 3,
            ..BypassConfig::default()
        });
    });
    let config = train_config(TWO_STAGE);
    let directory = tempfile::tempdir().unwrap();
    let place = (directory.path(), Start::Fresh);
    // Broken off in the first step of the second stage, when the directory holds the first's best.
    run((&model, &config), place, 3 * STEPS + 1).err().unwrap();
    let first = read_checkpoint(directory.path()).unwrap();
    let place = (directory.path(), Start::Resume);
    let ran = run((&model, &config), place, NEVER).unwrap();
    assert_eq!(ran.progress.history.len(), 6);
    let after = read_checkpoint(directory.path()).unwrap();
    let learns = |name: &str| {
        let of_exit = |m: usize| {
            name.starts_with(&format!("exits.{m}.")) || name.starts_with(&format!("bypasses.{m}."))
        };
        of_exit(0) || of_exit(1)
    };
    for (name, tensor) in first.iter() {
        let is_same = after.get(name) == Some(tensor);
        assert_eq!(is_same, !learns(name), "{name}");
    }
    // The first stage left the exits alone, though they are part of the model.
    let fresh = weights(&fresh_model(&model));
    // Nobody reads the last block's LayerNorm: every exit has its bypass's.
    let unread = |name: &str| name.starts_with("bert.encoder.layer.2.output.LayerNorm");
    for (name, tensor) in fresh.iter() {
        let is_same = first.get(name) == Some(tensor);
        assert_eq!(is_same, learns(name) || unread(name), "{name}");
    }
}

/// With a step too small to see, bypasses stay as they began.
#[test]
fn bypasses_of_the_second_stage_start_from_the_fine_tuned_blocks() {
    let model = model_config(|exits| exits.bypass = Some(BypassConfig::default()));
    let config = TrainConfig {
        head_learning_rate: Some(1e-12),
        ..train_config(TWO_STAGE)
    };
    let (_, ran) = straight(&model, &config);
    let (after, fresh) = (weights(&ran.model), weights(&fresh_model(&model)));
    let largest_difference = |a: &[f32], b: &[f32]| {
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0_f32, f32::max)
    };
    for block in 0..2 {
        let of_block = format!("bert.encoder.layer.{block}.output.LayerNorm.weight");
        let of_bypass = format!("bypasses.{block}.LayerNorm.weight");
        let values = |checkpoint: &Checkpoint, name| checkpoint.get(name).unwrap().values.clone();
        let bypass = values(&after, &of_bypass);
        assert!(largest_difference(&bypass, &values(&after, &of_block)) < 1e-6);
        // The block's own has moved since.
        assert!(largest_difference(&bypass, &values(&fresh, &of_bypass)) > 1e-3);
    }
}

#[test]
fn an_interrupted_run_of_stages_goes_on_bit_by_bit_from_any_step() {
    let model = model_config(|exits| exits.lte = true);
    let config = TrainConfig {
        lte: Some(LteTraining::Frozen),
        ..train_config(TWO_STAGE)
    };
    let (_, whole) = straight(&model, &config);
    assert_eq!(whole.progress.steps, 9 * STEPS);
    let stage = 3 * STEPS;
    // In every stage, at the border between two, and right behind it.
    for behind in [2, stage, stage + 1, stage + 7, 2 * stage + 3] {
        let broken = tempfile::tempdir().unwrap();
        let place = |start| (broken.path(), start);
        run((&model, &config), place(Start::Fresh), behind)
            .err()
            .unwrap();
        let resumed = run((&model, &config), place(Start::Resume), NEVER).unwrap();
        assert_eq!(
            weights(&resumed.model),
            weights(&whole.model),
            "behind {behind}"
        );
        let epochs = resumed.progress.history.iter().zip(&whole.progress.history);
        for (resumed, whole) in epochs {
            assert_eq!(resumed.scores, whole.scores, "behind {behind}");
            // The log of epochs is kept as text, which may round the last bit.
            let difference = (resumed.loss - whole.loss).abs();
            assert!(difference < 1e-12, "behind {behind}: {difference:e}");
        }
        assert_eq!(resumed.progress.best, whole.progress.best);
    }
}

#[test]
fn stages_have_names_schedules_and_rates_of_their_own() {
    let model = model_config(|exits| exits.lte = true);
    let config = TrainConfig {
        lte: Some(LteTraining::Frozen),
        warmup_ratio: 0.0,
        ..train_config(TWO_STAGE)
    };
    let (_, ran) = straight(&model, &config);
    let names = ["backbone", "exits", "learning-to-exit"];
    for (stage, steps) in ran.steps.chunks(3 * STEPS as usize).enumerate() {
        let peak = if stage == 0 { 3e-3 } else { 2e-2 };
        assert!(
            steps
                .iter()
                .all(|step| step.stage.as_deref() == Some(names[stage]))
        );
        assert!(
            (steps[0].learning_rate - peak).abs() < 1e-12,
            "stage {stage}"
        );
        assert!(steps.last().unwrap().learning_rate < 0.1 * peak);
    }
    assert_eq!(ran.steps.len() as u64, ran.steps[0].steps_total);
}

#[test]
fn stored_features_give_what_running_the_backbone_gives() {
    // Every form of exit that reads [CLS] rows alone: what heads answer on stored rows is what the
    // whole model answers, up to the order of sums in batches of other shapes.
    let bypass = |placement| {
        Some(BypassConfig {
            rank: 3,
            placement,
            ..BypassConfig::default()
        })
    };
    for (name, bypass) in [
        ("linear", None),
        ("block", bypass(BypassPlacement::Block)),
        ("mhsa", bypass(BypassPlacement::Mhsa)),
        ("ffn", bypass(BypassPlacement::Ffn)),
    ] {
        let model = model_config(|exits| exits.bypass = bypass);
        let (_, ran) = straight(&model, &train_config(TWO_STAGE));
        let (encodings, targets) = rows();
        let split = EncodedSplit::from_encodings(encodings, targets, 0);
        let logits = evaluate(&ran.model, &split, |_| {}).unwrap();
        let last = ran.progress.history.last().unwrap();
        for (exit, score) in last.scores.exits.iter().enumerate() {
            let labels = LabelSpace::SingleLabel {
                labels: model.head.labels.clone(),
            };
            let right = logits
                .answers(exit, &labels)
                .into_iter()
                .zip(split.targets());
            let right = right.filter(|(answer, truth)| answer == *truth).count();
            assert!(
                (score - right as f64 / f64::from(ROWS)).abs() < 1e-9,
                "{name}"
            );
        }
    }
}

#[test]
fn attention_exits_learn_on_a_frozen_backbone_without_stored_features() {
    let model = model_config(|exits| {
        exits.exit_head = Some(ExitHead::MhaBottleneck { rank: 4, heads: 2 });
    });
    let (_, ran) = straight(&model, &train_config(TWO_STAGE));
    let (before, after) = (weights(&fresh_model(&model)), weights(&ran.model));
    for name in ["exits.0.mha.query.weight", "exits.1.mha.output.weight"] {
        assert_ne!(before.get(name), after.get(name), "{name}");
    }
}

#[test]
fn a_learning_to_exit_head_on_the_frozen_model_lowers_its_loss_and_touches_nothing_else() {
    let model = model_config(|exits| exits.lte = true);
    let joint = MethodSpec::Joint {
        exit_weights: badge_train::method::ExitWeights::Uniform,
    };
    let config = TrainConfig {
        lte: Some(LteTraining::Frozen),
        head_learning_rate: Some(0.1),
        epochs_max: 6,
        patience: 6,
        ..train_config(joint)
    };
    let (_, ran) = straight(&model, &config);
    let of_head: Vec<_> = ran
        .steps
        .iter()
        .filter(|s| s.stage.as_deref() == Some("learning-to-exit"))
        .collect();
    let mean =
        |steps: &[&StepReport]| steps.iter().map(|s| s.loss).sum::<f64>() / steps.len() as f64;
    let (early, late) = (mean(&of_head[..5]), mean(&of_head[of_head.len() - 5..]));
    assert!(late < early, "{early} to {late}");
    let (_, without) = straight(
        &model_config(|_| {}),
        &TrainConfig {
            lte: None,
            ..config
        },
    );
    let history = |ran: &Ran| ran.progress.history[5].scores.clone();
    assert_eq!(
        history(&ran),
        history(&without),
        "the exits learn as without the head"
    );
}

#[test]
fn methods_refuse_models_that_they_cannot_train() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |method, change: fn(&mut EarlyExitConfig)| {
        let model = model_config(change);
        let place = (directory.path(), Start::Fresh);
        let error = run((&model, &train_config(method)), place, NEVER)
            .err()
            .unwrap();
        error.to_string()
    };
    let message = refused(MethodSpec::Single, |_| {});
    assert!(
        message.contains("--method: single") && message.contains("one exit, not 3"),
        "{message}"
    );
    let message = refused(TWO_STAGE, |exits| exits.global_past_future = true);
    assert!(message.contains("two-stage"), "{message}");
}
