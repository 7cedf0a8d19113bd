//! One transformer block: the unit of depth.

use std::sync::Arc;

use badge_core::checkpoint::names;
use badge_core::config::BackboneConfig;

use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::linear::LayerNorm;
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

/// What a block leaves behind.
#[derive(Debug)]
pub(crate) struct BlockOutput {
    /// `H_m`, which the next block reads: `[B, T, D]`.
    pub(crate) hidden: Tensor,
    /// `H_{m,F}`, the feed-forward sum before the last LayerNorm: `[B, T, D]`.
    pub(crate) feed_forward: Tensor,
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
    /// `H_{m-1}: [B, T, D]` to `H_m` and `H_{m,F}`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        lengths: &Arc<[usize]>,
        stream: Option<&DropoutStream>,
    ) -> Result<BlockOutput> {
        let mut output = BlockOutput {
            hidden: x.clone(),
            feed_forward: x.clone(),
        };
        for layer in &self.layers {
            let attended = layer.attention.forward(&output.hidden, lengths, stream)?;
            output.feed_forward = layer.feed_forward.forward(&attended, stream)?;
            output.hidden = layer.norm.forward(&output.feed_forward)?;
        }
        Ok(output)
    }

    /// The block's last LayerNorm, which a bypass may share.
    pub(crate) fn last_norm(&self) -> &LayerNorm {
        &self
            .layers
            .last()
            .expect("a block has at least one layer")
            .norm
    }
}
