//! The position-wise feed-forward network with its residual sum.

use badge_core::activation::Activation;
use badge_core::checkpoint::names::LayerNames;
use badge_core::config::{BackboneConfig, Family};

use super::linear::Linear;
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, LayerIndex, activate, dropout};
use crate::parameters::Parameters;

/// `F = a + W₂ g(W₁ a)`, before the block's last LayerNorm: the sum a bypass adds to.
#[derive(Debug)]
pub(crate) struct FeedForward {
    intermediate: Linear,
    output: Linear,
    activation: Activation,
    index: LayerIndex,
    dropout: f64,
}

impl FeedForward {
    pub(crate) fn new(
        parameters: &Parameters,
        config: &BackboneConfig,
        (index, names): (LayerIndex, &LayerNames),
    ) -> Self {
        Self {
            intermediate: Linear::new(parameters, &names.intermediate),
            output: Linear::new(parameters, &names.output),
            activation: config.activation,
            index,
            // ALBERT drops nothing here.
            dropout: if config.family == Family::Albert {
                0.0
            } else {
                config.hidden_dropout
            },
        }
    }

    /// # Shapes
    /// `[B, T, D] -> [B, T, D]`
    pub(crate) fn forward(&self, a: &Tensor, stream: Option<&DropoutStream>) -> Result<Tensor> {
        let site = DropoutSite::FeedForwardOutput(self.index);
        self.forward_at(a, (stream, site))
    }

    /// The same on other rows than the block's own, which have dropout masks of their own.
    ///
    /// # Shapes
    /// `[..., D] -> [..., D]`
    pub(crate) fn forward_at(
        &self,
        a: &Tensor,
        masks: (Option<&DropoutStream>, DropoutSite),
    ) -> Result<Tensor> {
        let inner = activate(&self.intermediate.forward(a)?, self.activation)?; // [..., F]
        let outer = self.output.forward(&inner)?; // [..., D]
        a + dropout(&outer, self.dropout, masks)?
    }
}
