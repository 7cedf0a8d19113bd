//! Whole runs on a tiny model: they learn, stop in time, and go on after an interruption as if
//! nothing had happened.

use std::path::Path;

use badge_core::bypass::BypassConfig;
use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::{EarlyExitConfig, HeadConfig, ModelConfig, ProblemType};
use badge_core::exit::{ExitPlan, Pooler};
use badge_tasks::split::{Part, SplitName};
use badge_tasks::{Encoding, Example, LabelSpace, MetricKind, Split, Target};
use badge_train::checkpoint::Progress;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::{Evaluator, ExitLogits};
use badge_train::method::{ExitWeights, MethodSpec};
use badge_train::model::MultiExitModel;
use badge_train::observer::{EpochReport, Observer, StepReport};
use badge_train::optimizer::AdamWConfig;
use badge_train::parameters::initialise;
use badge_train::precision::Precision;
use badge_train::step::PassSettings;
use badge_train::trainer::{Start, TrainConfig, TrainData, Trainer};
use badge_train::{Device, Error, Result};

const ROWS: usize = 50;

fn model_config() -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "intermediate_size": 20, "max_position_embeddings": 12,
        "initializer_range": 0.2
    });
    let head = HeadConfig {
        labels: ["even", "odd"].map(str::to_owned).to_vec(),
        problem: ProblemType::SingleLabel,
    };
    let bypass = Some(BypassConfig {
        rank: 3,
        ..BypassConfig::default()
    });
    let exits = EarlyExitConfig::new(ExitPlan::every_block(3), Pooler::Shared, bypass, 0.1);
    ModelConfig::from_json(json.to_string().as_bytes())
        .unwrap()
        .with_exits(head, exits)
}

fn fresh_model() -> MultiExitModel {
    let config = model_config();
    let weights = initialise(Checkpoint::default(), &layout::of_model(&config), 1).unwrap();
    MultiExitModel::new(config, &weights, &Device::Cpu).unwrap()
}

/// Rows whose second token is the label.
fn rows() -> (Vec<Encoding>, Vec<Target>) {
    (0..ROWS as u32)
        .map(|row| {
            let ids: Vec<u32> = [1, 2 + row % 2, 35]
                .into_iter()
                .chain(4..4 + row % 7)
                .collect();
            let encoding = Encoding {
                type_ids: vec![0; ids.len()],
                ids,
            };
            (encoding, Target::Class((row % 2) as usize))
        })
        .unzip()
}

fn dev_split(targets: &[Target]) -> Split {
    let example = |target: &Target| Example {
        target: Some(target.clone()),
        ..Example::of_text("x")
    };
    Split {
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
    }
}

fn train_config() -> TrainConfig {
    TrainConfig {
        method: MethodSpec::Joint {
            exit_weights: ExitWeights::Uniform,
        },
        lte: None,
        epochs_max: 4,
        patience: 4,
        batch_size: 8,
        accumulation: 2,
        learning_rate: 3e-3,
        head_learning_rate: None,
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

/// Breaks off behind a step, as a kill would.
struct Interrupt {
    behind: u64,
    epochs: Vec<EpochReport>,
}

impl Observer for Interrupt {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        if report.step == self.behind {
            return Err(Error::Setting {
                setting: "test",
                problem: "interrupted".to_owned(),
            });
        }
        Ok(())
    }

    fn epoch(&mut self, report: &EpochReport) -> Result<()> {
        self.epochs.push(report.clone());
        Ok(())
    }
}

fn run(
    config: &TrainConfig,
    (directory, start): (&Path, Start),
    behind: u64,
) -> Result<(Progress, Checkpoint)> {
    let (encodings, targets) = rows();
    let split = dev_split(&targets);
    let rows = EncodedSplit::from_encodings(encodings, targets, 0);
    let labels = LabelSpace::SingleLabel {
        labels: model_config().head.labels,
    };
    let model = fresh_model();
    let data = TrainData {
        train: &rows,
        dev: &rows,
        dev_split: &split,
        label_space: &labels,
        metric: MetricKind::Accuracy,
        train_sha256: "train",
    };
    let mut observer = Interrupt {
        behind,
        epochs: Vec::new(),
    };
    let trainer = Trainer::new(
        &model,
        data,
        config,
        (directory, start),
        vec![&mut observer],
    )?;
    let progress = trainer.run()?;
    Ok((progress, model.parameters().to_checkpoint()?))
}

/// Says of every row that it is even, whatever the model says, and keeps the weights it saw.
struct Even<'a> {
    seen: &'a mut Vec<Checkpoint>,
}

impl Evaluator for Even<'_> {
    fn evaluate(&mut self, model: &MultiExitModel, split: &EncodedSplit) -> Result<ExitLogits> {
        self.seen.push(model.parameters().to_checkpoint()?);
        let exits = model.config().exits().exits.count();
        Ok(ExitLogits {
            exits,
            outputs: 2,
            values: [1.0, 0.0].repeat(split.len() * exits),
            continue_probabilities: Vec::new(),
        })
    }
}

#[test]
fn dev_scores_are_those_of_the_evaluator() {
    let (encodings, targets) = rows();
    let split = dev_split(&targets);
    let rows = EncodedSplit::from_encodings(encodings, targets, 0);
    let labels = LabelSpace::SingleLabel {
        labels: model_config().head.labels,
    };
    let model = fresh_model();
    let data = TrainData {
        train: &rows,
        dev: &rows,
        dev_split: &split,
        label_space: &labels,
        metric: MetricKind::Accuracy,
        train_sha256: "train",
    };
    let folder = tempfile::tempdir().unwrap();
    let config = train_config();
    let mut seen = Vec::new();
    let evaluator = Even { seen: &mut seen };
    let trainer = Trainer::new(
        &model,
        data,
        &config,
        (folder.path(), Start::Fresh),
        Vec::new(),
    )
    .unwrap()
    .with_evaluator(evaluator);
    let progress = trainer.run().unwrap();
    let scores: Vec<_> = progress.history.iter().map(|e| e.scores.average).collect();
    assert_eq!(scores, [0.5; 4]);
    // It is asked once an epoch, of the weights as they are then.
    assert_eq!(seen.len(), 4);
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[3], model.parameters().to_checkpoint().unwrap());
}

/// A step that no run reaches.
const NEVER: u64 = u64::MAX;

fn without_clock(mut progress: Progress) -> Progress {
    progress.seconds = 0.0;
    progress
        .history
        .iter_mut()
        .for_each(|epoch| epoch.seconds = 0.0);
    progress
}

#[test]
fn an_interrupted_run_goes_on_bit_by_bit_from_any_step() {
    for precision in [Precision::F32, Precision::Bf16] {
        goes_on_bit_by_bit(precision);
    }
}

fn goes_on_bit_by_bit(precision: Precision) {
    let mut config = train_config();
    config.passes.precision = precision;
    let straight = tempfile::tempdir().unwrap();
    let (progress, weights) = run(&config, (straight.path(), Start::Fresh), NEVER).unwrap();
    assert_eq!(progress.steps, 16);
    // In the first epoch, at the end of one, and in the middle of a later one.
    for behind in [2, 4, 9] {
        let broken = tempfile::tempdir().unwrap();
        run(&config, (broken.path(), Start::Fresh), behind).unwrap_err();
        // What is recomputed changes no bit, not even in the middle of a run.
        config.passes.recompute = behind == 4;
        let (resumed, resumed_weights) =
            run(&config, (broken.path(), Start::Resume), NEVER).unwrap();
        assert_eq!(
            without_clock(resumed),
            without_clock(progress.clone()),
            "behind {behind}"
        );
        assert_eq!(resumed_weights, weights, "behind step {behind}");
        let kept = |directory: &Path| std::fs::read(directory.join("model.safetensors")).unwrap();
        assert_eq!(
            kept(broken.path()),
            kept(straight.path()),
            "behind step {behind}"
        );
    }
}

#[test]
fn a_run_learns_and_its_summaries_are_mean_and_maximum() {
    let config = TrainConfig {
        epochs_max: 12,
        patience: 12,
        ..train_config()
    };
    let directory = tempfile::tempdir().unwrap();
    let (progress, _) = run(&config, (directory.path(), Start::Fresh), NEVER).unwrap();
    let (first, last) = (&progress.history[0], &progress.history[11]);
    assert!(
        last.loss < 0.8 * first.loss,
        "loss {} -> {}",
        first.loss,
        last.loss
    );
    for epoch in &progress.history {
        let exits = &epoch.scores.exits;
        let mean = exits.iter().sum::<f64>() / exits.len() as f64;
        assert!((epoch.scores.average - mean).abs() < 1e-12);
        assert_eq!(epoch.scores.best, exits.iter().copied().fold(0.0, f64::max));
    }
    let best = progress.best.unwrap();
    let top = progress
        .history
        .iter()
        .map(|e| e.scores.average)
        .fold(0.0, f64::max);
    assert_eq!(best.scores.average, top);
    assert_eq!(best.scores, progress.history[best.epoch - 1].scores);
}

#[test]
fn a_run_stops_when_patience_ends() {
    // A rate this small changes no answer: the first epoch stays the best.
    let config = TrainConfig {
        learning_rate: 1e-12,
        epochs_max: 20,
        patience: 3,
        ..train_config()
    };
    let directory = tempfile::tempdir().unwrap();
    let (progress, _) = run(&config, (directory.path(), Start::Fresh), NEVER).unwrap();
    assert_eq!((progress.epochs, progress.best.unwrap().epoch), (4, 1));
    assert_eq!(progress.history.last().unwrap().epochs_without_gain, 3);
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_the_setting_that_differs() {
    let config = train_config();
    let directory = tempfile::tempdir().unwrap();
    run(&config, (directory.path(), Start::Fresh), 5).unwrap_err();
    let other = TrainConfig {
        batch_size: 10,
        ..config
    };
    let error = run(&other, (directory.path(), Start::Resume), NEVER)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("batch_size is 8 there and 10 here"),
        "{error}"
    );
}

/// Loss and gradient norm of the first step.
#[derive(Default)]
struct FirstStep(Option<(f64, f64)>);

impl Observer for FirstStep {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.0.get_or_insert((report.loss, report.gradient_norm));
        Ok(())
    }
}

fn first_step(config: &TrainConfig) -> (f64, f64) {
    // Uniform lengths and no dropout, so that both ways see the same numbers.
    let encoding = |row: u32| Encoding {
        ids: vec![1, 2 + row, 9],
        type_ids: vec![0; 3],
    };
    let (encodings, targets): (Vec<_>, Vec<_>) =
        (0..16).map(|row| (encoding(row), Target::Class(1))).unzip();
    let split = dev_split(&targets);
    let rows = EncodedSplit::from_encodings(encodings, targets, 0);
    let labels = LabelSpace::SingleLabel {
        labels: model_config().head.labels,
    };
    let model_config = without_dropout();
    let fresh = initialise(Checkpoint::default(), &layout::of_model(&model_config), 1).unwrap();
    let model = MultiExitModel::new(model_config, &fresh, &Device::Cpu).unwrap();
    let data = TrainData {
        train: &rows,
        dev: &rows,
        dev_split: &split,
        label_space: &labels,
        metric: MetricKind::Accuracy,
        train_sha256: "train",
    };
    let directory = tempfile::tempdir().unwrap();
    let mut first = FirstStep::default();
    let place = (directory.path(), Start::Fresh);
    Trainer::new(&model, data, config, place, vec![&mut first])
        .unwrap()
        .run()
        .unwrap();
    first.0.unwrap()
}

#[test]
fn two_half_batches_accumulate_to_one_whole_batch() {
    let whole = TrainConfig {
        accumulation: 1,
        batch_size: 16,
        epochs_max: 1,
        ..train_config()
    };
    let halves = TrainConfig {
        accumulation: 2,
        batch_size: 8,
        ..whole.clone()
    };
    let ((loss, norm), (half_loss, half_norm)) = (first_step(&whole), first_step(&halves));
    assert!(
        (loss - half_loss).abs() < 1e-6,
        "losses {loss} and {half_loss}"
    );
    assert!(
        norm > 0.1 && (norm - half_norm).abs() < 1e-5 * norm,
        "norms {norm} and {half_norm}"
    );
}

fn without_dropout() -> ModelConfig {
    let mut config = model_config();
    config.backbone.hidden_dropout = 0.0;
    config.backbone.attention_dropout = 0.0;
    if let Some(exits) = &mut config.early_exit {
        exits.exit_dropout = 0.0;
    }
    config
}
