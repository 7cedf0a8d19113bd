//! Word, position and segment embeddings, LayerNorm, and ALBERT's projection to the hidden size.

use badge_core::checkpoint::names;
use badge_core::config::{BackboneConfig, Family};

use super::input::ModelInput;
use super::linear::{LayerNorm, Linear};
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, dropout};
use crate::parameters::Parameters;

/// Everything below the first block.
#[derive(Debug)]
pub(crate) struct Embeddings {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    norm: LayerNorm,
    /// ALBERT's `E -> D`.
    mapping: Option<Linear>,
    dropout: f64,
}

impl Embeddings {
    pub(crate) fn new(parameters: &Parameters, config: &BackboneConfig) -> Self {
        let family = config.family;
        Self {
            words: parameters.tensor(&names::word_embeddings(family)),
            positions: parameters.tensor(&names::position_embeddings(family)),
            token_types: parameters.tensor(&names::token_type_embeddings(family)),
            norm: LayerNorm::new(
                parameters,
                &names::embeddings_norm(family),
                config.layer_norm_eps,
            ),
            mapping: (family == Family::Albert)
                .then(|| Linear::new(parameters, &names::embedding_mapping())),
            dropout: config.hidden_dropout,
        }
    }

    /// # Shapes
    /// Ids `[B, T]` to the first block's input `[B, T, D]`.
    pub(crate) fn forward(
        &self,
        input: &ModelInput,
        stream: Option<&DropoutStream>,
    ) -> Result<Tensor> {
        let (b, t) = input.ids.dims2()?;
        let width = self.words.dims()[1];
        let look_up = |table: &Tensor, ids: &Tensor| {
            table
                .index_select(&ids.flatten_all()?, 0)?
                .reshape((b, t, width))
        };
        let words = look_up(&self.words, &input.ids)?;
        let segments = look_up(&self.token_types, &input.type_ids)?;
        let positions = self.positions.narrow(0, 0, t)?;
        let sum = (words + segments)?.broadcast_add(&positions)?; // [B, T, E]
        let site = DropoutSite::Embeddings;
        let x = dropout(&self.norm.forward(&sum)?, self.dropout, (stream, site))?;
        match &self.mapping {
            Some(mapping) => mapping.forward(&x), // [B, T, D]
            None => Ok(x),
        }
    }
}
