//! Multi-head attention in front of an exit's classifier: the paper's bottleneck and FastBERT's.

use std::sync::Arc;

use badge_core::checkpoint::names;
use badge_core::config::BackboneConfig;
use badge_core::exit_head::ExitHead;

use super::linear::Linear;
use super::taps::cls;
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, attention_softmax, dropout};
use crate::parameters::Parameters;

/// `O(softmax(q Kᵀ / √k) V)` for the \[CLS\] row's query q; no residual, no LayerNorm. Training drops
/// probabilities at the backbone's rate for its own, as FastBERT does.
#[derive(Debug)]
pub(crate) struct ExitAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
    block: usize,
    dropout: f64,
    /// FastBERT's dense layers before and behind the attention, both with a tanh.
    dense: Option<(Linear, Linear)>,
}

impl ExitAttention {
    pub(crate) fn new(
        parameters: &Parameters,
        backbone: &BackboneConfig,
        (head, block): (ExitHead, usize),
    ) -> Self {
        let names = names::exit_attention(block);
        let (heads, is_fastbert) = match head {
            ExitHead::MhaBottleneck { heads, .. } => (heads, false),
            ExitHead::MhaFastbert { heads, .. } => (heads, true),
        };
        let linear = |name| {
            if is_fastbert {
                Linear::new(parameters, name)
            } else {
                Linear::without_bias(parameters, name)
            }
        };
        Self {
            query: linear(&names.query),
            key: linear(&names.key),
            value: linear(&names.value),
            output: linear(&names.output),
            heads,
            block,
            dropout: backbone.attention_dropout,
            dense: is_fastbert.then(|| (linear(&names.input), linear(&names.dense))),
        }
    }

    /// # Shapes
    /// All rows of `H_m`, `[B, T, D]`, to the exit's features `[B, W]`; keys beyond a row's length
    /// get no weight.
    pub(crate) fn forward(
        &self,
        rows: &Tensor,
        lengths: &Arc<[usize]>,
        stream: Option<&DropoutStream>,
    ) -> Result<Tensor> {
        let rows = match &self.dense {
            Some((input, _)) => input.forward(rows)?.tanh()?, // [B, T, n]
            None => rows.clone(),
        };
        let query = self.split_heads(&self.query.forward(&cls(&rows)?)?.unsqueeze(1)?)?; // [B, H, 1, k]
        let key = self.split_heads(&self.key.forward(&rows)?)?; // [B, H, T, k]
        let value = self.split_heads(&self.value.forward(&rows)?)?; // [B, H, T, k]
        let scores = query.matmul(&key.t()?)?; // [B, H, 1, T]
        let scale = 1.0 / (query.dims()[3] as f64).sqrt();
        let probabilities = attention_softmax(&scores, scale, lengths)?;
        let site = DropoutSite::ExitProbabilities(self.block);
        let probabilities = dropout(&probabilities, self.dropout, (stream, site))?;
        let context = probabilities.matmul(&value)?; // [B, H, 1, k]
        let (b, h, _, k) = context.dims4()?;
        let output = self.output.forward(&context.reshape((b, h * k))?)?;
        match &self.dense {
            Some((_, dense)) => dense.forward(&output)?.tanh(),
            None => Ok(output),
        }
    }

    fn split_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (b, t, width) = x.dims3()?;
        x.reshape((b, t, self.heads, width / self.heads))?
            .transpose(1, 2)?
            .contiguous()
    }
}
