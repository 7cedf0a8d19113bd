//! Every weight name, spelled once: Hugging Face's for the backbone and the deepest exit, ours
//! beside them for the other exits and the bypasses. Indices in names count from 0.

use crate::bypass::BypassPlacement;
use crate::config::{BackboneConfig, Family};

/// The name of a linear layer or LayerNorm without `.weight` and `.bias`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleName(String);

impl ModuleName {
    fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The tensor that multiplies.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.0)
    }

    /// The tensor that is added.
    pub fn bias(&self) -> String {
        format!("{}.bias", self.0)
    }
}

/// The modules of one transformer layer.
#[derive(Debug, Clone)]
pub struct LayerNames {
    /// Query projection.
    pub query: ModuleName,
    /// Key projection.
    pub key: ModuleName,
    /// Value projection.
    pub value: ModuleName,
    /// Projection of the concatenated heads.
    pub attention_output: ModuleName,
    /// LayerNorm after attention and residual.
    pub attention_norm: ModuleName,
    /// Feed-forward `D -> F`.
    pub intermediate: ModuleName,
    /// Feed-forward `F -> D`.
    pub output: ModuleName,
    /// LayerNorm after the feed-forward and residual: the block's last.
    pub output_norm: ModuleName,
}

/// The prefix of the backbone in directories that we write.
pub fn prefix(family: Family) -> &'static str {
    match family {
        Family::Albert => "albert.",
        Family::Bert | Family::ElasticBert => "bert.",
    }
}

/// `[V, E]`.
pub fn word_embeddings(family: Family) -> String {
    format!("{}embeddings.word_embeddings.weight", prefix(family))
}

/// `[positions, E]`.
pub fn position_embeddings(family: Family) -> String {
    format!("{}embeddings.position_embeddings.weight", prefix(family))
}

/// `[token types, E]`.
pub fn token_type_embeddings(family: Family) -> String {
    format!("{}embeddings.token_type_embeddings.weight", prefix(family))
}

/// LayerNorm of the embedding sum.
pub fn embeddings_norm(family: Family) -> ModuleName {
    ModuleName::new(format!("{}embeddings.LayerNorm", prefix(family)))
}

/// ALBERT's projection of embeddings, `E -> D`.
pub fn embedding_mapping() -> ModuleName {
    ModuleName::new("albert.encoder.embedding_hidden_mapping_in")
}

/// The modules of inner layer `inner` of block `block`; blocks of one ALBERT group share names.
pub fn layer(config: &BackboneConfig, block: usize, inner: usize) -> LayerNames {
    match config.family {
        Family::Albert => albert_layer(config.group_of(block), inner),
        Family::Bert | Family::ElasticBert => bert_layer(block),
    }
}

fn albert_layer(group: usize, inner: usize) -> LayerNames {
    let stem = format!("albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}");
    let name = |module: &str| ModuleName::new(format!("{stem}.{module}"));
    LayerNames {
        query: name("attention.query"),
        key: name("attention.key"),
        value: name("attention.value"),
        attention_output: name("attention.dense"),
        attention_norm: name("attention.LayerNorm"),
        intermediate: name("ffn"),
        output: name("ffn_output"),
        output_norm: name("full_layer_layer_norm"),
    }
}

fn bert_layer(block: usize) -> LayerNames {
    let name = |module: &str| ModuleName::new(format!("bert.encoder.layer.{block}.{module}"));
    LayerNames {
        query: name("attention.self.query"),
        key: name("attention.self.key"),
        value: name("attention.self.value"),
        attention_output: name("attention.output.dense"),
        attention_norm: name("attention.output.LayerNorm"),
        intermediate: name("intermediate.dense"),
        output: name("output.dense"),
        output_norm: name("output.LayerNorm"),
    }
}

/// The backbone's pooler, which exits share or the deepest exit owns.
pub fn backbone_pooler(family: Family) -> ModuleName {
    ModuleName::new(match family {
        Family::Albert => "albert.pooler",
        Family::Bert | Family::ElasticBert => "bert.pooler.dense",
    })
}

/// The own pooler of the exit after block `block`; the deepest exit's is the backbone's.
pub fn exit_pooler(config: &BackboneConfig, block: usize) -> ModuleName {
    if block + 1 == config.blocks {
        backbone_pooler(config.family)
    } else {
        ModuleName::new(format!("exits.{block}.pooler"))
    }
}

/// The classifier of the exit after block `block`; the deepest one has Hugging Face's name.
pub fn exit_classifier(config: &BackboneConfig, block: usize) -> ModuleName {
    if block + 1 == config.blocks {
        ModuleName::new("classifier")
    } else {
        ModuleName::new(format!("exits.{block}.classifier"))
    }
}

/// `W_down` of the bypass around block `block` (paper, Eq. 1).
pub fn bypass_down(block: usize) -> ModuleName {
    ModuleName::new(format!("bypasses.{block}.down"))
}

/// `W_up` of the bypass around block `block` (paper, Eq. 1).
pub fn bypass_up(block: usize) -> ModuleName {
    ModuleName::new(format!("bypasses.{block}.up"))
}

/// The bypass's own LayerNorm (paper, Eq. 2).
pub fn bypass_norm(block: usize) -> ModuleName {
    ModuleName::new(format!("bypasses.{block}.LayerNorm"))
}

/// The block's own LayerNorm whose place the bypass's takes: the one that closes the sum that the
/// bypass adds to.
pub fn bypassed_norm(
    config: &BackboneConfig,
    placement: BypassPlacement,
    block: usize,
) -> ModuleName {
    let last = layer(config, block, config.inner_layers - 1);
    match placement {
        BypassPlacement::Block | BypassPlacement::Ffn => last.output_norm,
        BypassPlacement::Mhsa => last.attention_norm,
    }
}

/// The attention of an exit that reads all rows (`ExitHead`).
#[derive(Debug, Clone)]
pub struct ExitAttentionNames {
    /// FastBERT's projection in front of the attention, `D -> n`.
    pub input: ModuleName,
    /// Query projection.
    pub query: ModuleName,
    /// Key projection.
    pub key: ModuleName,
    /// Value projection.
    pub value: ModuleName,
    /// Projection of the concatenated heads.
    pub output: ModuleName,
    /// FastBERT's dense layer behind the attention.
    pub dense: ModuleName,
}

/// The attention of the exit after block `block`.
pub fn exit_attention(block: usize) -> ExitAttentionNames {
    let name = |module: &str| ModuleName::new(format!("exits.{block}.mha.{module}"));
    ExitAttentionNames {
        input: name("input"),
        query: name("query"),
        key: name("key"),
        value: name("value"),
        output: name("output"),
        dense: name("dense"),
    }
}

/// Global Past-Future's imitation of the pooled state of block `block` by earlier exits.
pub fn future_state(block: usize) -> ModuleName {
    ModuleName::new(format!("gpf.future.{block}"))
}

/// What Global Past-Future's gate reads of the exit after block `block`.
pub fn gate_features(block: usize) -> ModuleName {
    ModuleName::new(format!("gpf.gate_features.{block}"))
}

/// Global Past-Future's gate between past and future, which all exits share.
pub fn past_future_gate() -> ModuleName {
    ModuleName::new("gpf.gate")
}

/// The learning-to-exit head, which all exits share.
pub fn learning_to_exit() -> ModuleName {
    ModuleName::new("lte")
}

/// Whether AdamW decays the tensor: the rule that BERT's authors and every early-exit code use.
///
/// Names with `bias` or `LayerNorm.weight` are excluded. ALBERT's `full_layer_layer_norm.weight`
/// does not match and is decayed, as in Hugging Face's scripts.
pub fn decays(name: &str) -> bool {
    !name.contains("bias") && !name.contains("LayerNorm.weight")
}
