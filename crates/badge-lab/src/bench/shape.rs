//! Full-size models with random weights, for speed alone.

use anyhow::Result;
use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::{EarlyExitConfig, HeadConfig, ModelConfig, ProblemType};
use badge_core::exit::{ExitPlan, Pooler};
use badge_train::parameters::initialise;
use serde::Serialize;
use serde_json::json;

/// The sizes of a known model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Shape {
    /// ALBERT-base: twelve times one block of width 768.
    #[serde(rename = "albert-base")]
    AlbertBase,
    /// BERT-base: twelve blocks of width 768.
    #[serde(rename = "bert-base")]
    BertBase,
    /// MiniLM's and arctic-embed-s's: twelve blocks of width 384.
    #[serde(rename = "12x384")]
    Small12,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AlbertBase, Self::BertBase, Self::Small12];

    /// As it is typed and recorded.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlbertBase => "albert-base",
            Self::BertBase => "bert-base",
            Self::Small12 => "12x384",
        }
    }

    /// A model of two classes with an exit at every block: no poolers, no bypasses, no dropout,
    /// as the PyTorch step has that it is held against.
    pub fn config(self) -> ModelConfig {
        let mut backbone = match self {
            Self::AlbertBase => json!({
                "model_type": "albert", "vocab_size": 30_000, "embedding_size": 128,
                "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
                "hidden_act": "gelu_new",
            }),
            Self::BertBase => json!({
                "model_type": "bert", "vocab_size": 30_522,
                "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
            }),
            Self::Small12 => json!({
                "model_type": "bert", "vocab_size": 30_522,
                "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536,
            }),
        };
        backbone["num_hidden_layers"] = 12.into();
        for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
            backbone[key] = 0.0.into();
        }
        let plain = ModelConfig::from_json(backbone.to_string().as_bytes());
        let head = HeadConfig {
            labels: ["0", "1"].map(str::to_owned).to_vec(),
            problem: ProblemType::SingleLabel,
        };
        let exits = EarlyExitConfig::new(ExitPlan::every_block(12), Pooler::None, None, 0.0);
        plain
            .expect("the sizes above fit together")
            .with_exits(head, exits)
    }
}

/// Random weights for a model: the same ones for the same seed.
///
/// # Errors
///
/// Never for a configuration that was read; the signature is that of the way from files.
pub fn random_weights(config: &ModelConfig, seed: u64) -> Result<Checkpoint> {
    let layout = layout::of_model(config);
    Ok(initialise(Checkpoint::default(), &layout, seed)?)
}
