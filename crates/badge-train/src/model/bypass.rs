//! The block-wise bypass (paper, section 3.1) and its placements around a part of the block.

use badge_core::activation::Activation;
use badge_core::bypass::{BypassConfig, BypassLayerNorm, BypassPlacement};
use badge_core::checkpoint::names::{self, ModuleName};
use badge_core::config::BackboneConfig;

use super::feed_forward::FeedForward;
use super::linear::{LayerNorm, Linear};
use super::taps::{BlockTaps, Tap};
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, LayerIndex, activate};
use crate::parameters::Parameters;

/// `H'_m = LN(H_{m,F} + g(H_{m-1} W_down) W_up)` — paper, Eq. (1) and (2).
#[derive(Debug)]
pub(crate) struct Bypass {
    down: Linear,
    up: Linear,
    activation: Activation,
    /// Closes the sum that the bypass adds to.
    norm: LayerNorm,
    placement: BypassPlacement,
    /// The rest of the block, which runs again behind a bypass around the attention.
    again: Option<(FeedForward, LayerNorm)>,
    block: usize,
}

impl Bypass {
    pub(crate) fn new(
        parameters: &Parameters,
        config: &BypassConfig,
        backbone: &BackboneConfig,
        block: usize,
    ) -> Self {
        let linear = |name| {
            if config.bias {
                Linear::new(parameters, name)
            } else {
                Linear::without_bias(parameters, name)
            }
        };
        let norm = |name: &ModuleName| LayerNorm::new(parameters, name, backbone.layer_norm_eps);
        let again = (config.placement == BypassPlacement::Mhsa).then(|| {
            let inner = backbone.inner_layers - 1;
            let names = names::layer(backbone, block, inner);
            let index = LayerIndex { block, inner };
            let feed_forward = FeedForward::new(parameters, backbone, (index, &names));
            (feed_forward, norm(&names.output_norm))
        });
        Self {
            down: linear(&names::bypass_down(block)),
            up: linear(&names::bypass_up(block)),
            activation: config.activation,
            norm: match config.layer_norm {
                BypassLayerNorm::Own => norm(&names::bypass_norm(block)),
                BypassLayerNorm::Shared => {
                    norm(&names::bypassed_norm(backbone, config.placement, block))
                }
            },
            placement: config.placement,
            again,
            block,
        }
    }

    /// What a bypass reads, and the sum that it adds to.
    pub(crate) fn taps(placement: BypassPlacement) -> [Tap; 2] {
        match placement {
            BypassPlacement::Block => [Tap::Input, Tap::FeedForward],
            BypassPlacement::Mhsa => [Tap::LayerInput, Tap::AttentionSum],
            BypassPlacement::Ffn => [Tap::Attended, Tap::FeedForward],
        }
    }

    /// # Shapes
    /// The block's taps to the exit's features `[B, D]`.
    pub(crate) fn forward(
        &self,
        taps: &BlockTaps,
        stream: Option<&DropoutStream>,
    ) -> Result<Tensor> {
        let [input, sum] = Self::taps(self.placement).map(|tap| taps.get(tap));
        let narrow = activate(&self.down.forward(input)?, self.activation)?; // [B, r]
        let closed = self.norm.forward(&(sum + self.up.forward(&narrow)?)?)?;
        match &self.again {
            None => Ok(closed),
            Some((feed_forward, norm)) => {
                let site = DropoutSite::ExitFeedForward(self.block);
                norm.forward(&feed_forward.forward_at(&closed, (stream, site))?)
            }
        }
    }
}
