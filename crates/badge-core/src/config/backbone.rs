//! The backbone: embeddings and the stack of blocks.

use serde_json::{Map, Value};

use super::keys::Keys;
use crate::activation::Activation;
use crate::cost::BackboneShape;
use crate::error::Result;

/// The architectures that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Factorised embeddings, blocks that share weights within a group.
    Albert,
    /// Own weights per block.
    Bert,
    /// BERT pre-trained with one pooler per block.
    ElasticBert,
}

impl Family {
    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Albert => "albert",
            Self::Bert => "bert",
            Self::ElasticBert => "elasticbert",
        }
    }

    /// The stem of Hugging Face's class names.
    pub fn class(self) -> &'static str {
        match self {
            Self::Albert => "Albert",
            Self::Bert => "Bert",
            Self::ElasticBert => "ElasticBert",
        }
    }
}

/// Sizes and constants of a backbone; letters as in `docs/glossary.md`.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneConfig {
    /// Architecture.
    pub family: Family,
    /// Vocabulary, `V`.
    pub vocabulary: usize,
    /// Width of the embedding tables; equal to `hidden` except on ALBERT.
    pub embedding: usize,
    /// Hidden size, `D`.
    pub hidden: usize,
    /// Number of blocks, `L` (the paper's M).
    pub blocks: usize,
    /// ALBERT: groups of blocks that share weights.
    pub groups: usize,
    /// ALBERT: transformer layers inside one block.
    pub inner_layers: usize,
    /// Attention heads, `H`.
    pub heads: usize,
    /// Feed-forward size, `F`.
    pub intermediate: usize,
    /// The feed-forward non-linearity (`hidden_act`).
    pub activation: Activation,
    /// Longest input in tokens.
    pub positions: usize,
    /// Segment ids.
    pub token_types: usize,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Dropout on embeddings and on the two sums of a layer.
    pub hidden_dropout: f64,
    /// Dropout on attention probabilities.
    pub attention_dropout: f64,
    /// Dropout before a classifier.
    pub classifier_dropout: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Token id that fills short rows.
    pub pad_token: u32,
}

/// Layers in all blocks together; no real model has a tenth of them.
const LAYERS_MAX: usize = 4096;

impl BackboneConfig {
    pub(super) fn from_keys(keys: &Keys) -> Result<Self> {
        let family = family(keys)?;
        let is_albert = family == Family::Albert;
        let hidden = keys.size("hidden_size", None)?;
        let hidden_dropout =
            keys.dropout("hidden_dropout_prob", if is_albert { 0.0 } else { 0.1 })?;
        let activation: Activation = keys
            .text("hidden_act")?
            .unwrap_or(if is_albert { "gelu_new" } else { "gelu" })
            .parse()
            .map_err(|problem| Keys::wrong("hidden_act", problem))?;
        let albert_size = |key, default| {
            if is_albert {
                keys.size(key, Some(default))
            } else {
                Ok(default)
            }
        };
        let config = Self {
            family,
            vocabulary: keys.size("vocab_size", None)?,
            embedding: if is_albert {
                keys.size("embedding_size", Some(128))?
            } else {
                hidden
            },
            hidden,
            blocks: keys.size("num_hidden_layers", None)?,
            groups: albert_size("num_hidden_groups", 1)?,
            inner_layers: albert_size("inner_group_num", 1)?,
            heads: keys.size("num_attention_heads", None)?,
            intermediate: keys.size("intermediate_size", None)?,
            activation,
            positions: keys.size("max_position_embeddings", Some(512))?,
            token_types: keys.size("type_vocab_size", Some(2))?,
            layer_norm_eps: keys.number("layer_norm_eps", 1e-12)?,
            hidden_dropout,
            attention_dropout: keys.dropout(
                "attention_probs_dropout_prob",
                if is_albert { 0.0 } else { 0.1 },
            )?,
            classifier_dropout: if is_albert {
                keys.dropout("classifier_dropout_prob", 0.1)?
            } else {
                keys.dropout("classifier_dropout", hidden_dropout)?
            },
            initializer_range: keys.number("initializer_range", 0.02)?,
            pad_token: keys.token_id("pad_token_id")?,
        };
        config.check()?;
        Ok(config)
    }

    /// Relations between keys that no single key can break.
    fn check(&self) -> Result<()> {
        if !self.hidden.is_multiple_of(self.heads) {
            let problem = format!(
                "{} heads do not divide hidden_size {}",
                self.heads, self.hidden
            );
            return Err(Keys::wrong("num_attention_heads", problem));
        }
        if self.blocks > 1024 {
            return Err(Keys::wrong(
                "num_hidden_layers",
                "more than 1024 blocks".to_owned(),
            ));
        }
        // Every layer has tensors by name, in the file or not.
        if self.blocks * self.inner_layers > LAYERS_MAX {
            let problem = format!(
                "{} layers in each of {} blocks are more than {LAYERS_MAX}",
                self.inner_layers, self.blocks
            );
            return Err(Keys::wrong("inner_group_num", problem));
        }
        if self.groups > self.blocks {
            let problem = format!("{} groups for {} blocks", self.groups, self.blocks);
            return Err(Keys::wrong("num_hidden_groups", problem));
        }
        if self.layer_norm_eps.is_nan() || self.layer_norm_eps <= 0.0 {
            return Err(Keys::wrong("layer_norm_eps", "must be positive".to_owned()));
        }
        if self.pad_token as usize >= self.vocabulary {
            let problem = format!(
                "{} is outside the vocabulary of {}",
                self.pad_token, self.vocabulary
            );
            return Err(Keys::wrong("pad_token_id", problem));
        }
        Ok(())
    }

    /// The sizes that costs follow from.
    pub fn shape(&self) -> BackboneShape {
        BackboneShape {
            embedding: (self.family == Family::Albert).then_some(self.embedding),
            hidden: self.hidden,
            heads: self.heads,
            intermediate: self.intermediate,
            blocks: self.blocks,
            inner_layers: self.inner_layers,
        }
    }

    /// Size of one attention head, `K = D / H`.
    pub fn head_size(&self) -> usize {
        self.hidden / self.heads
    }

    /// The group whose weights block `block` uses (ALBERT).
    ///
    /// In floating point as Hugging Face computes it: whole numbers would differ in rare cases.
    pub fn group_of(&self, block: usize) -> usize {
        (block as f64 / (self.blocks as f64 / self.groups as f64)) as usize
    }

    pub(super) fn write_keys(&self, object: &mut Map<String, Value>) {
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("model_type", self.family.model_type().into());
        put("vocab_size", self.vocabulary.into());
        put("hidden_size", self.hidden.into());
        put("num_hidden_layers", self.blocks.into());
        put("num_attention_heads", self.heads.into());
        put("intermediate_size", self.intermediate.into());
        put(
            "hidden_act",
            hugging_face_activation(self.activation).into(),
        );
        put("max_position_embeddings", self.positions.into());
        put("type_vocab_size", self.token_types.into());
        put("layer_norm_eps", self.layer_norm_eps.into());
        put("hidden_dropout_prob", self.hidden_dropout.into());
        put(
            "attention_probs_dropout_prob",
            self.attention_dropout.into(),
        );
        put("initializer_range", self.initializer_range.into());
        put("pad_token_id", self.pad_token.into());
        // Weights are written in f32, whatever they were read from; `dtype` is the key's new name.
        put("torch_dtype", "float32".into());
        put("dtype", "float32".into());
        if self.family == Family::Albert {
            put("embedding_size", self.embedding.into());
            put("num_hidden_groups", self.groups.into());
            put("inner_group_num", self.inner_layers.into());
            put("classifier_dropout_prob", self.classifier_dropout.into());
        } else {
            put("classifier_dropout", self.classifier_dropout.into());
        }
    }
}

fn family(keys: &Keys) -> Result<Family> {
    if let Some(kind) = keys.text("position_embedding_type")?
        && kind != "absolute"
    {
        let problem = format!("`{kind}` is not supported; only absolute positions are");
        return Err(Keys::wrong("position_embedding_type", problem));
    }
    match keys.text("model_type")? {
        Some("albert") => Ok(Family::Albert),
        Some("bert") => Ok(Family::Bert),
        Some("elasticbert") => Ok(Family::ElasticBert),
        Some(other) => {
            let problem = format!("`{other}` is not one of albert, bert, elasticbert");
            Err(Keys::wrong("model_type", problem))
        }
        None => {
            let problem = "is missing; it must be one of albert, bert, elasticbert".to_owned();
            Err(Keys::wrong("model_type", problem))
        }
    }
}

/// `transformers` knows the identity as `linear`.
fn hugging_face_activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Identity => "linear",
        other => other.name(),
    }
}
