//! An exit: what it reads of its block, pooler and classifier.

use std::sync::Arc;

use badge_core::checkpoint::names;
use badge_core::config::{EarlyExitConfig, ModelConfig};
use badge_core::exit::Pooler;

use super::bypass::Bypass;
use super::exit_attention::ExitAttention;
use super::linear::Linear;
use super::taps::{BlockTaps, Tap};
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, dropout};
use crate::parameters::Parameters;

/// The exit after one block.
#[derive(Debug)]
pub(crate) struct Exit {
    reader: Reader,
    pooler: Option<Linear>,
    classifier: Linear,
    block: usize,
    dropout: f64,
}

/// How an exit comes by its features.
#[derive(Debug)]
enum Reader {
    /// The \[CLS\] row of `H_m`.
    Cls,
    /// The \[CLS\] row of `H'_m`.
    Bypass(Bypass),
    /// Attention over all rows of `H_m`.
    Attention(ExitAttention),
}

impl Exit {
    pub(crate) fn new(
        parameters: &Parameters,
        config: &ModelConfig,
        exits: &EarlyExitConfig,
        block: usize,
    ) -> Self {
        let backbone = &config.backbone;
        let linear = |name| Linear::new(parameters, &name);
        Self {
            reader: match (exits.exit_head, &exits.bypass) {
                (Some(head), _) => {
                    Reader::Attention(ExitAttention::new(parameters, backbone, (head, block)))
                }
                (None, Some(bypass)) => {
                    Reader::Bypass(Bypass::new(parameters, bypass, backbone, block))
                }
                (None, None) => Reader::Cls,
            },
            pooler: match exits.pooler {
                Pooler::Shared => Some(linear(names::backbone_pooler(backbone.family))),
                Pooler::Own => Some(linear(names::exit_pooler(backbone, block))),
                Pooler::None => None,
            },
            classifier: linear(names::exit_classifier(backbone, block)),
            block,
            dropout: exits.exit_dropout,
        }
    }

    /// What the exits of a model read.
    pub(crate) fn taps(exits: &EarlyExitConfig) -> Vec<Tap> {
        match (exits.exit_head, exits.bypass) {
            (Some(_), _) => vec![Tap::Rows],
            (None, Some(bypass)) => Bypass::taps(bypass.placement).to_vec(),
            (None, None) => vec![Tap::Hidden],
        }
    }

    /// The exit's state `c_m`, before dropout: features, through the pooler if there is one.
    ///
    /// # Shapes
    /// The block's taps to `[B, W]`.
    pub(crate) fn state(
        &self,
        taps: &BlockTaps,
        lengths: &Arc<[usize]>,
        stream: Option<&DropoutStream>,
    ) -> Result<Tensor> {
        let features = match &self.reader {
            Reader::Cls => taps.get(Tap::Hidden).clone(),
            Reader::Bypass(bypass) => bypass.forward(taps, stream)?,
            Reader::Attention(attention) => {
                attention.forward(taps.get(Tap::Rows), lengths, stream)?
            }
        };
        match &self.pooler {
            Some(pooler) => pooler.forward(&features)?.tanh(),
            None => Ok(features),
        }
    }

    /// What the classifier reads of the state.
    pub(crate) fn drop(&self, state: &Tensor, stream: Option<&DropoutStream>) -> Result<Tensor> {
        dropout(state, self.dropout, (stream, DropoutSite::Exit(self.block)))
    }

    /// # Shapes
    /// `[B, W]` to logits `[B, C]`.
    pub(crate) fn classify(&self, read: &Tensor) -> Result<Tensor> {
        self.classifier.forward(read)
    }
}
