//! The model of the quickstart and how it is trained: small enough for a minute on two cores.

use anyhow::Result;
use badge_core::bypass::BypassConfig;
use badge_core::config::{EarlyExitConfig, ModelConfig};
use badge_core::exit::{ExitPlan, Pooler};
use badge_tasks::hash::sha256_hex;
use badge_tasks::split::{Part, SplitName, content_sha256};
use badge_tasks::task::{Column, Columns, Files, Header, Layout, Malformed, SplitRule};
use badge_tasks::{Example, LabelSpace, MetricKind, Split, Target, Task, TaskData, Tokenizer};
use badge_train::method::{ExitWeights, MethodSpec};
use badge_train::optimizer::AdamWConfig;
use badge_train::step::PassSettings;
use badge_train::trainer::TrainConfig;

use super::corpus::{Corpus, GradedExample, LABELS};
use super::tokenizer::vocabulary;
use crate::fine_tune::{Backbone, head_of};

/// Longest text in tokens, and rows of the position table.
pub const TOKENS_MAX: usize = 64;

/// Blocks, all with an exit.
const BLOCKS: usize = 6;

/// Rows of each epoch. The corpus grades its training texts in stages, whose order matters: the
/// model first learns what words say, then to follow one speaker to the next.
const CURRICULUM: [usize; 10] = [6144, 6144, 6144, 6144, 6144, 4608, 4608, 4608, 4608, 4608];

/// Shared blocks (ALBERT) of width 64: what one block learns about following a speaker, the next
/// one does again.
pub(super) fn backbone(tokenizer: Tokenizer, seed: u64) -> Result<Backbone> {
    let json = serde_json::json!({
        "model_type": "albert",
        "vocab_size": vocabulary().len(),
        "embedding_size": 64, "hidden_size": 64, "num_attention_heads": 2,
        "intermediate_size": 64, "num_hidden_layers": BLOCKS,
        "num_hidden_groups": 1, "inner_group_num": 1,
        "hidden_act": "gelu_new", "max_position_embeddings": TOKENS_MAX, "type_vocab_size": 2,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.0,
        // Wider than a large model's 0.02: nothing is pre-trained here.
        "initializer_range": 0.08,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3
    });
    let plain = ModelConfig::from_json(json.to_string().as_bytes())?;
    let exits = EarlyExitConfig::new(
        ExitPlan::every_block(BLOCKS),
        Pooler::Shared,
        Some(BypassConfig::default()),
        0.0,
    );
    Backbone::fresh(
        plain.with_exits(head_of(&label_space()), exits),
        tokenizer,
        seed,
    )
}

/// Joint training, one pass over the stages.
pub fn training(seed: u64) -> TrainConfig {
    TrainConfig {
        method: MethodSpec::Joint {
            exit_weights: ExitWeights::Uniform,
        },
        lte: None,
        epochs_max: CURRICULUM.len(),
        patience: CURRICULUM.len(),
        batch_size: 32,
        accumulation: 1,
        learning_rate: 1e-3,
        head_learning_rate: None,
        warmup_ratio: 0.1,
        optimizer: AdamWConfig {
            weight_decay: 0.01,
            ..AdamWConfig::default()
        },
        curriculum: Some(CURRICULUM.to_vec()),
        max_length: TOKENS_MAX,
        seed,
        passes: PassSettings::default(),
        checkpoint_seconds: 600.0,
    }
}

fn label_space() -> LabelSpace {
    LabelSpace::SingleLabel {
        labels: LABELS.map(str::to_owned).to_vec(),
    }
}

/// The corpus as a task with its splits.
pub(super) fn task_data(corpus: &Corpus, seed: u64) -> TaskData {
    let split = |name, examples: &[GradedExample]| {
        let examples: Vec<Example> = examples.iter().map(example).collect();
        let rows = examples.len();
        Split {
            name,
            sha256: content_sha256(&examples),
            rows_sha256: sha256_hex(format!("all {rows} rows in order").as_bytes()),
            origin: format!("made by the program with seed {seed}"),
            files: Vec::new(),
            parts: vec![Part {
                name: "corpus".to_owned(),
                rows,
            }],
            examples,
        }
    };
    TaskData {
        task: task(),
        train: split(SplitName::Train, &corpus.train),
        dev: split(SplitName::Dev, &corpus.dev),
        test: split(SplitName::Test, &corpus.test),
        seed,
    }
}

fn example(graded: &GradedExample) -> Example {
    let target = Some(Target::Class(graded.label));
    Example {
        text: graded.text.clone(),
        pair: graded.pair.clone(),
        target,
    }
}

/// A task without files: its rows are made, not read.
fn task() -> Task {
    let column = |name: &str| Column {
        names: vec![name.to_owned()],
    };
    Task {
        name: "quickstart".to_owned(),
        label_space: label_space(),
        metric: MetricKind::Accuracy,
        layout: Layout {
            format: None,
            header: Header::FirstLine,
            columns: Columns {
                text: column("text"),
                pair: None,
                label: column("label"),
            },
            label_delimiter: ',',
            malformed: Malformed::Refuse,
        },
        files: Files::default(),
        split_rule: SplitRule::Given {
            dev: 0.1,
            test: 0.1,
        },
        split_seed: None,
        folder: None,
    }
}
