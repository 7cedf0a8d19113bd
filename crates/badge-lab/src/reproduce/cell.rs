//! One training run of a grid: its coordinates, and the name they give it.

use std::fmt::Write as _;

use badge_core::activation::Activation;
use badge_tasks::hash::sha256_hex;
use badge_train::optimizer::AdamWConfig;
use badge_train::step::PassSettings;
use badge_train::trainer::TrainConfig;
use serde::{Deserialize, Serialize};

use super::experiment::{Budget, CurvesOf, SplitOfTask};
use super::variant::Variant;

/// What a search chooses on dev.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HyperParameters {
    /// Rows of an optimiser step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The bypasses' non-linearity, of methods that have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}

/// Everything that a run follows from, besides the contents of data and backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The task.
    pub task: String,
    /// Splits that the model is scored on.
    pub splits: Vec<SplitOfTask>,
    /// The backbone's name.
    pub backbone: String,
    /// What is compared.
    pub variant: Variant,
    /// Blocks that are kept, of single exits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// What may be searched.
    pub hyper: HyperParameters,
    /// Seed of data order, dropout and fresh weights.
    pub seed: u64,
    /// How long the run may be.
    pub budget: Budget,
    /// The curves that are drawn of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves: Option<CellCurves>,
}

/// The curves of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellCurves {
    /// The policies on models of the cell's method.
    pub of: CurvesOf,
    /// Points of each curve, at most.
    pub points: usize,
    /// Test rows whose time is taken.
    pub timed_rows: usize,
}

/// Raised when the same coordinates stand for something else than before.
const FORMAT: &str = "badge reproduce 1\n";

/// Digits of a cell's id.
const ID_DIGITS: usize = 16;

impl Cell {
    /// The first digits of the SHA-256 of its coordinates: cells are equal when their ids are.
    pub fn id(&self) -> String {
        let json = serde_json::to_string(self).expect("coordinates are plain data");
        let mut hash = sha256_hex((FORMAT.to_owned() + &json).as_bytes());
        hash.truncate(ID_DIGITS);
        hash
    }

    /// The name of its directory: what people look for, then the id.
    pub fn directory(&self) -> String {
        let plain = |text: &str| -> String {
            let letters = text.chars();
            letters
                .map(|c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_ascii_lowercase()
                    } else {
                        '-'
                    }
                })
                .collect()
        };
        // A task file is called by its name, not by the folders it lies in.
        let task = self.task.rsplit('/').next().unwrap_or_default();
        let mut name = format!("{}-{}", plain(task), self.variant);
        if let Some(depth) = self.depth {
            let _ = write!(name, "-depth{depth:02}");
        }
        let _ = write!(name, "-seed{}-{}", self.seed, self.id());
        name
    }

    /// What people are told is under way.
    pub fn title(&self) -> String {
        let Self {
            task,
            backbone,
            variant,
            seed,
            ..
        } = self;
        let HyperParameters {
            batch_size,
            learning_rate,
            activation,
        } = &self.hyper;
        let depth = self
            .depth
            .map_or(String::new(), |depth| format!(" depth {depth}"));
        let activation = activation.map_or(String::new(), |g| format!(", {}", g.name()));
        format!(
            "{task} · {backbone} · {variant}{depth} · seed {seed} (batch {batch_size}, lr \
             {learning_rate:e}{activation})"
        )
    }

    /// The settings of its training, which is saved after so many seconds of work.
    pub fn training(&self, checkpoint_seconds: f64) -> TrainConfig {
        let (batch_size, accumulation) = self.budget.passes(self.hyper.batch_size);
        TrainConfig {
            method: self.variant.method.spec(),
            lte: self.variant.lte_training(),
            epochs_max: self.budget.epochs,
            patience: self.budget.patience,
            batch_size,
            accumulation,
            learning_rate: self.hyper.learning_rate,
            head_learning_rate: None,
            warmup_ratio: self.budget.warmup_ratio,
            optimizer: AdamWConfig {
                weight_decay: self.budget.weight_decay,
                ..AdamWConfig::default()
            },
            curriculum: None,
            max_length: self.budget.max_length,
            seed: self.seed,
            passes: PassSettings {
                precision: self.budget.precision,
                recompute: false,
            },
            checkpoint_seconds,
        }
    }
}
