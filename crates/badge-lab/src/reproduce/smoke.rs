//! The same grids in small: the quickstart's corpus and a tiny random encoder, for a test of every
//! code path in seconds. What comes out says nothing about the methods.

use std::path::{Path, PathBuf};

use anyhow::Result;
use badge_core::activation::Activation;
use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::{CONFIG_FILE, ModelConfig};
use badge_tasks::split::content_sha256;
use badge_tasks::{Split, TaskData, file};
use badge_train::parameters::initialise;
use badge_train::weights::SAFETENSORS_FILE;

use super::experiment::{BackboneAxis, Budget, Curves, Experiment, SplitOfTask, TaskAxis};
use super::materials::{Sources, TaskRows};
use crate::quickstart::{Quickstart, tokenizer};

/// Rows to learn from, and rows of dev and test.
const ROWS: (usize, usize) = (192, 96);

/// Blocks of the tiny encoder.
const BLOCKS: usize = 4;

/// Wide enough for the largest bottleneck of the paper's Table 3.
const HIDDEN: usize = 64;

/// The task's name.
const TASK: &str = "quickstart";

impl Experiment {
    /// The same methods, placements, ranks and curves on small rows with a tiny encoder; a search
    /// stays a search, over fewer candidates.
    #[must_use]
    pub fn smoke(&self) -> Self {
        let longest = |length: fn(&TaskAxis) -> usize| self.tasks.iter().map(length).max();
        let is_searched = longest(|axis| axis.learning_rates.len()) > Some(1);
        let has_activations = longest(|axis| axis.activations.len()) > Some(1);
        let task = TaskAxis {
            task: TASK.to_owned(),
            folder: None,
            paper: None,
            splits: vec![SplitOfTask::Test],
            batch_sizes: vec![32],
            learning_rates: if is_searched {
                vec![1e-3, 2e-3]
            } else {
                vec![1e-3]
            },
            activations: if has_activations {
                vec![Activation::Gelu, Activation::Tanh]
            } else {
                vec![Activation::Gelu]
            },
            note: Some(
                "A trial of the program on a corpus that it made: the figures say nothing \
                        about the methods."
                    .to_owned(),
            ),
        };
        let backbones = 1..=self.backbones.len().min(2);
        let backbones = backbones.map(|number| BackboneAxis {
            name: format!("tiny-{number}"),
            source: format!("a random encoder of {BLOCKS} blocks"),
            blocks: BLOCKS,
            paper: None,
        });
        Self {
            seeds: self.seeds.iter().copied().take(2).collect(),
            budget: Budget {
                epochs: 2,
                patience: 2,
                max_length: 64,
                rows_per_pass: 16,
                hours: None,
                ..self.budget.clone()
            },
            curves: self.curves.as_ref().map(|curves| Curves {
                timed_rows: curves.timed_rows.min(3),
                ..curves.clone()
            }),
            tasks: vec![task],
            backbones: backbones.collect(),
            ..self.clone()
        }
    }
}

/// Rows and encoder of the trial.
#[derive(Debug)]
pub struct Smoke {
    data: TaskData,
    encoder: PathBuf,
}

impl Smoke {
    /// Makes the rows, and writes the encoder to a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let Quickstart { mut data, .. } = Quickstart::new(7)?;
        shorten(&mut data.train, ROWS.0);
        shorten(&mut data.dev, ROWS.1);
        shorten(&mut data.test, ROWS.1);
        write_encoder(folder)?;
        Ok(Self {
            data,
            encoder: folder.to_owned(),
        })
    }
}

impl Sources for Smoke {
    fn task(&self, _: &TaskAxis) -> Result<TaskRows> {
        Ok(TaskRows {
            data: self.data.clone(),
            official: None,
        })
    }

    fn backbone(&self, _: &BackboneAxis) -> Result<PathBuf> {
        Ok(self.encoder.clone())
    }
}

fn shorten(split: &mut Split, rows: usize) {
    split.examples.truncate(rows);
    split.sha256 = content_sha256(&split.examples);
    split.parts.truncate(1);
    split.parts[0].rows = split.examples.len();
}

fn write_encoder(folder: &Path) -> Result<()> {
    let config = serde_json::json!({
        "model_type": "albert",
        "vocab_size": tokenizer::vocabulary().len(),
        "embedding_size": 16, "hidden_size": HIDDEN, "num_attention_heads": 4,
        "intermediate_size": HIDDEN, "num_hidden_layers": BLOCKS,
        "num_hidden_groups": 1, "inner_group_num": 1,
        "hidden_act": "gelu_new", "max_position_embeddings": 64, "type_vocab_size": 2,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.0, "initializer_range": 0.08,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3
    });
    let text = config.to_string();
    let plain = ModelConfig::from_json(text.as_bytes())?;
    let weights = initialise(Checkpoint::default(), &layout::of_model(&plain), 7)?;
    file::create_folder(folder)?;
    let write = |name: &str, bytes: &[u8]| file::write_atomic(&folder.join(name), bytes);
    write("tokenizer.json", tokenizer::tokenizer_json().as_bytes())?;
    write(SAFETENSORS_FILE, &weights.to_safetensors())?;
    write(CONFIG_FILE, text.as_bytes())?;
    Ok(())
}
