//! An exit: bypass, pooler and classifier on the \[CLS\] row.

use badge_core::checkpoint::names;
use badge_core::config::{EarlyExitConfig, ModelConfig};
use badge_core::exit::Pooler;

use super::block::{Block, BlockOutput};
use super::bypass::Bypass;
use super::linear::Linear;
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, dropout};
use crate::parameters::Parameters;

/// The exit after one block.
#[derive(Debug)]
pub(crate) struct Exit {
    bypass: Option<Bypass>,
    pooler: Option<Linear>,
    classifier: Linear,
    index: usize,
    dropout: f64,
}

impl Exit {
    pub(crate) fn new(
        parameters: &Parameters,
        config: &ModelConfig,
        exits: &EarlyExitConfig,
        (index, block): (usize, &Block),
    ) -> Self {
        let backbone = &config.backbone;
        let linear = |name| Linear::new(parameters, &name);
        Self {
            bypass: exits.bypass.as_ref().map(|bypass| {
                Bypass::new(parameters, bypass, block, (index, backbone.layer_norm_eps))
            }),
            pooler: match exits.pooler {
                Pooler::Shared => Some(linear(names::backbone_pooler(backbone.family))),
                Pooler::Own => Some(linear(names::exit_pooler(backbone, index))),
                Pooler::None => None,
            },
            classifier: linear(names::exit_classifier(backbone, index)),
            index,
            dropout: exits.exit_dropout,
        }
    }

    /// # Shapes
    /// The block's input `[B, T, D]` and output to logits `[B, C]`.
    pub(crate) fn forward(
        &self,
        input: &Tensor,
        output: &BlockOutput,
        stream: Option<&DropoutStream>,
    ) -> Result<Tensor> {
        let features = match &self.bypass {
            Some(bypass) => bypass.forward(&cls(input)?, &cls(&output.feed_forward)?)?,
            None => cls(&output.hidden)?,
        }; // [B, D]
        let pooled = match &self.pooler {
            Some(pooler) => pooler.forward(&features)?.tanh()?,
            None => features,
        };
        let site = DropoutSite::Exit(self.index);
        self.classifier
            .forward(&dropout(&pooled, self.dropout, (stream, site))?)
    }
}

/// The first row of every sample: `[B, T, D] -> [B, D]`.
fn cls(x: &Tensor) -> Result<Tensor> {
    x.narrow(1, 0, 1)?.squeeze(1)
}
