//! One transformer block: the unit of depth.

use std::sync::Arc;

use badge_core::checkpoint::names;
use badge_core::config::BackboneConfig;

use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::linear::LayerNorm;
use super::taps::{BlockTaps, Tap, cls};
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutStream, LayerIndex};
use crate::parameters::Parameters;

/// Block m; on ALBERT a group's inner layers one after the other.
#[derive(Debug)]
pub(crate) struct Block {
    layers: Vec<Layer>,
}

/// One transformer layer.
#[derive(Debug)]
struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
    norm: LayerNorm,
}

/// What a block leaves behind, `[B, T, D]` each.
#[derive(Debug)]
pub(crate) struct BlockOutput {
    /// `H_{m-1}`.
    input: Tensor,
    /// x, the last layer's input.
    layer_input: Tensor,
    /// `x + MHSA(x)`.
    attention_sum: Tensor,
    /// a, its LayerNorm.
    attended: Tensor,
    /// `H_{m,F}`, the feed-forward sum before the last LayerNorm.
    feed_forward: Tensor,
    /// `H_m`, which the next block reads.
    pub(crate) hidden: Tensor,
}

impl BlockOutput {
    /// What the heads read of it.
    pub(crate) fn taps(&self, taps: &[Tap]) -> Result<BlockTaps> {
        BlockTaps::collect(taps, |tap| match tap {
            Tap::Input => cls(&self.input),
            Tap::LayerInput => cls(&self.layer_input),
            Tap::AttentionSum => cls(&self.attention_sum),
            Tap::Attended => cls(&self.attended),
            Tap::FeedForward => cls(&self.feed_forward),
            Tap::Hidden => cls(&self.hidden),
            Tap::Rows => Ok(self.hidden.clone()),
        })
    }
}

impl Block {
    pub(crate) fn new(parameters: &Parameters, config: &BackboneConfig, block: usize) -> Self {
        let layers = (0..config.inner_layers)
            .map(|inner| {
                let names = names::layer(config, block, inner);
                let eps = config.layer_norm_eps;
                let index = LayerIndex { block, inner };
                Layer {
                    attention: Attention::new(parameters, config, (index, &names)),
                    feed_forward: FeedForward::new(parameters, config, (index, &names)),
                    norm: LayerNorm::new(parameters, &names.output_norm, eps),
                }
            })
            .collect();
        Self { layers }
    }

    /// # Shapes
    /// `H_{m-1}: [B, T, D]` to everything that the block leaves behind.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        lengths: &Arc<[usize]>,
        stream: Option<&DropoutStream>,
    ) -> Result<BlockOutput> {
        let (last, others) = self
            .layers
            .split_last()
            .expect("a block has at least one layer");
        let mut layer_input = x.clone();
        for layer in others {
            layer_input = layer.forward(&layer_input, lengths, stream)?.hidden;
        }
        let mut output = last.forward(&layer_input, lengths, stream)?;
        output.input = x.clone();
        Ok(output)
    }
}

impl Layer {
    fn forward(
        &self,
        x: &Tensor,
        lengths: &Arc<[usize]>,
        stream: Option<&DropoutStream>,
    ) -> Result<BlockOutput> {
        let (attention_sum, attended) = self.attention.forward(x, lengths, stream)?;
        let feed_forward = self.feed_forward.forward(&attended, stream)?;
        let hidden = self.norm.forward(&feed_forward)?;
        Ok(BlockOutput {
            input: x.clone(),
            layer_input: x.clone(),
            attention_sum,
            attended,
            feed_forward,
            hidden,
        })
    }
}
