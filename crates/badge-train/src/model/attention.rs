//! Multi-head self-attention with its residual sum and LayerNorm.

use std::sync::Arc;

use badge_core::checkpoint::names::LayerNames;
use badge_core::config::BackboneConfig;

use super::linear::{LayerNorm, Linear};
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, LayerIndex, attention_softmax, dropout};
use crate::parameters::Parameters;

/// `a = LN(x + O(softmax(Q Kᵀ / √K) V))`.
#[derive(Debug)]
pub(crate) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
    heads: usize,
    head_size: usize,
    index: LayerIndex,
    probability_dropout: f64,
    output_dropout: f64,
}

impl Attention {
    pub(crate) fn new(
        parameters: &Parameters,
        config: &BackboneConfig,
        (index, names): (LayerIndex, &LayerNames),
    ) -> Self {
        let linear = |name| Linear::new(parameters, name);
        Self {
            query: linear(&names.query),
            key: linear(&names.key),
            value: linear(&names.value),
            output: linear(&names.attention_output),
            norm: LayerNorm::new(parameters, &names.attention_norm, config.layer_norm_eps),
            heads: config.heads,
            head_size: config.head_size(),
            index,
            probability_dropout: config.attention_dropout,
            output_dropout: config.hidden_dropout,
        }
    }

    /// The residual sum `x + MHSA(x)` and its LayerNorm a.
    ///
    /// # Shapes
    /// `[B, T, D]` to the same twice; keys beyond a row's length get no weight.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        lengths: &Arc<[usize]>,
        stream: Option<&DropoutStream>,
    ) -> Result<(Tensor, Tensor)> {
        let query = self.split_heads(&self.query.forward(x)?)?; // [B, H, T, K]
        let key = self.split_heads(&self.key.forward(x)?)?; // [B, H, T, K]
        let value = self.split_heads(&self.value.forward(x)?)?; // [B, H, T, K]
        let scores = query.matmul(&key.t()?)?; // [B, H, T, T]
        let scale = 1.0 / (self.head_size as f64).sqrt();
        let probabilities = attention_softmax(&scores, scale, lengths)?;
        // BERT drops probabilities after the softmax, not scores before it.
        let site = DropoutSite::Probabilities(self.index);
        let probabilities = dropout(&probabilities, self.probability_dropout, (stream, site))?;
        let context = self.merge_heads(&probabilities.matmul(&value)?)?; // [B, T, D]
        let projected = self.output.forward(&context)?;
        let site = DropoutSite::AttentionOutput(self.index);
        let projected = dropout(&projected, self.output_dropout, (stream, site))?;
        let sum = (x + projected)?;
        let attended = self.norm.forward(&sum)?;
        Ok((sum, attended))
    }

    fn split_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        x.reshape((b, t, self.heads, self.head_size))?
            .transpose(1, 2)?
            .contiguous()
    }

    fn merge_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (b, _, t, _) = x.dims4()?;
        x.transpose(1, 2)?
            .contiguous()?
            .reshape((b, t, self.heads * self.head_size))
    }
}
