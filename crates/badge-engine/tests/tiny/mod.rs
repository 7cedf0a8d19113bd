//! Tiny random models and inputs, made in memory.
#![allow(dead_code, reason = "each test program uses its part")]

use badge_core::checkpoint::{Checkpoint, Tensor, layout, names};
use badge_core::config::ModelConfig;
use badge_engine::{Engine, EngineOptions, Result, TokenIds};

/// Numbers that look random and follow from a seed (xorshift).
#[derive(Debug, Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % end
    }

    /// Between -1 and 1.
    fn unit(&mut self) -> f32 {
        self.below(20_001) as f32 / 10_000.0 - 1.0
    }
}

/// One input.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

impl Row {
    pub(crate) fn random(length: usize, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let split = numbers.below(length + 1);
        Self {
            ids: (0..length).map(|_| numbers.below(99) as u32).collect(),
            type_ids: (0..length).map(|i| u32::from(i > split)).collect(),
        }
    }

    pub(crate) fn tokens(&self) -> TokenIds<'_> {
        TokenIds {
            ids: &self.ids,
            type_ids: &self.type_ids,
        }
    }
}

/// A backbone of V = 99, L = 5 blocks, 24 positions, with D, H, F and exits as given.
pub(crate) const MODELS: [&str; 6] = [
    r#"{"model_type": "albert", "embedding_size": 11, "hidden_size": 24, "num_attention_heads": 4,
        "intermediate_size": 37, "hidden_act": "gelu_new", EXITS [1, 2, 3, 4, 5],
        "pooler": "shared", "bypass": {"rank": 5, "activation": "gelu"}}}"#,
    r#"{"model_type": "albert", "embedding_size": 11, "hidden_size": 24, "num_attention_heads": 4,
        "intermediate_size": 37, "num_hidden_groups": 2, "inner_group_num": 2, EXITS [2, 3, 5],
        "pooler": "own", "bypass": {"rank": 5, "layer_norm": "shared", "bias": true}}}"#,
    r#"{"model_type": "bert", "hidden_size": 24, "num_attention_heads": 4,
        "intermediate_size": 37, EXITS [1, 2, 3, 4, 5], "pooler": "shared"}}"#,
    r#"{"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2,
        "intermediate_size": 37, "hidden_act": "relu", EXITS [1, 3, 4, 5], "pooler": "none",
        "bypass": {"rank": 3}}}"#,
    // Heads of five columns, which do not pair up in bf16.
    r#"{"model_type": "albert", "embedding_size": 15, "hidden_size": 15, "num_attention_heads": 3,
        "intermediate_size": 29, EXITS [1, 2, 3, 4, 5], "pooler": "own"}}"#,
    r#"{"model_type": "albert", "embedding_size": 11, "hidden_size": 24, "num_attention_heads": 4,
        "intermediate_size": 37, EXITS [1, 2, 3, 4, 5], "pooler": "shared", "lte": true,
        "bypass": {"rank": 5}}}"#,
];

/// The text of a policy, or of another one where it goes by a head that the model does not have.
pub(crate) fn fitting<'a>(policy: &'a str, engine: &Engine) -> &'a str {
    if policy.starts_with("lte:") && !engine.config().exits().lte {
        return "dge:tau=1.5,t=1";
    }
    policy
}

/// One of [`MODELS`] with weights that follow from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) weights: Checkpoint,
}

impl Model {
    pub(crate) fn random(index: usize, seed: u64) -> Self {
        let sizes = r#""vocab_size": 99, "num_hidden_layers": 5, "max_position_embeddings": 24,
            "num_labels": 3, "early_exit": {"version": 1, "exits":"#;
        let json = MODELS[index].replace("EXITS", sizes);
        let config = ModelConfig::from_json(json.as_bytes()).unwrap();
        let mut numbers = Numbers::new(seed);
        let mut weights = Checkpoint::default();
        for spec in layout::of_model(&config) {
            let is_norm =
                spec.name.contains("LayerNorm.weight") || spec.name.contains("layer_norm.weight");
            // Wide enough that exits disagree often and agree often.
            let (centre, width) = if is_norm { (1.0, 0.2) } else { (0.0, 0.4) };
            let count = spec.shape.iter().product::<usize>();
            let values = (0..count)
                .map(|_| centre + width * numbers.unit())
                .collect();
            let shape = spec.shape;
            let tensor = Tensor { shape, values };
            weights.insert("memory", spec.name, tensor).unwrap();
        }
        Self { config, weights }
    }

    /// The same with an embedding whose layer norm overflows.
    pub(crate) fn with_huge_word(mut self, word: usize) -> Self {
        let name = names::word_embeddings(self.config.backbone.family);
        let e = self.config.backbone.embedding;
        let mut table = self.weights.take(&name, &[99, e]).unwrap().unwrap();
        table.values[word * e..][..e].fill(f32::MAX);
        self.weights.insert("memory", name, table).unwrap();
        self
    }

    pub(crate) fn engine(&self, options: EngineOptions) -> Engine {
        self.try_engine(options).unwrap()
    }

    pub(crate) fn try_engine(&self, options: EngineOptions) -> Result<Engine> {
        Engine::new(self.config.clone(), self.weights.clone(), options)
    }
}
