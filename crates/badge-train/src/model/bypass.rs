//! The block-wise bypass (paper, section 3.1).

use badge_core::activation::Activation;
use badge_core::bypass::{BypassConfig, BypassLayerNorm};
use badge_core::checkpoint::names;

use super::block::Block;
use super::linear::{LayerNorm, Linear};
use crate::framework::{Result, Tensor};
use crate::ops::activate;
use crate::parameters::Parameters;

/// `H'_m = LN(H_{m,F} + g(H_{m-1} W_down) W_up)` — paper, Eq. (1) and (2).
#[derive(Debug)]
pub(crate) struct Bypass {
    down: Linear,
    up: Linear,
    activation: Activation,
    norm: LayerNorm,
}

impl Bypass {
    pub(crate) fn new(
        parameters: &Parameters,
        config: &BypassConfig,
        block: &Block,
        (index, eps): (usize, f64),
    ) -> Self {
        let linear = |name| {
            if config.bias {
                Linear::new(parameters, name)
            } else {
                Linear::without_bias(parameters, name)
            }
        };
        Self {
            down: linear(&names::bypass_down(index)),
            up: linear(&names::bypass_up(index)),
            activation: config.activation,
            norm: match config.layer_norm {
                BypassLayerNorm::Own => LayerNorm::new(parameters, &names::bypass_norm(index), eps),
                BypassLayerNorm::Shared => block.last_norm().clone(),
            },
        }
    }

    /// # Shapes
    /// The \[CLS\] rows of the block's input and of its feed-forward sum, `[B, D]` each, to the
    /// exit's features `[B, D]`.
    pub(crate) fn forward(&self, input: &Tensor, feed_forward: &Tensor) -> Result<Tensor> {
        let narrow = activate(&self.down.forward(input)?, self.activation)?; // [B, r]
        self.norm
            .forward(&(feed_forward + self.up.forward(&narrow)?)?)
    }
}
