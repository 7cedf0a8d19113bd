//! The block-wise bypass (paper, section 3.1).

use std::ops::Range;

use badge_core::bypass::{BypassConfig, BypassLayerNorm};
use badge_core::checkpoint::names;
use badge_kernels::activation::Activation;
use badge_kernels::gemm::{Input, Output, Upcoming};
use badge_kernels::layer_norm::{LayerNorm, layer_norm};
use badge_kernels::threads::Pool;

use crate::error::Result;
use crate::packed::{Linear, NarrowLinear, Packer, activation, norm_bytes};
use crate::workspace::ExitSpace;

/// `H'_m = LN(H_{m,F} + g(H_{m-1} W_down) W_up)` — paper, Eq. (1) and (2).
#[derive(Debug)]
pub(crate) struct Bypass {
    down: NarrowLinear,
    up: Linear,
    activation: Activation,
    /// `None` where the block's last LayerNorm is used a second time.
    norm: Option<LayerNorm>,
}

impl Bypass {
    pub(crate) fn pack(
        packer: &mut Packer<'_>,
        config: &BypassConfig,
        block: usize,
    ) -> Result<Self> {
        let (d, r) = (packer.config.backbone.hidden, config.rank);
        let (up, shape) = (names::bypass_up(block), [d, r]);
        let precision = packer.precisions.exits;
        Ok(Self {
            down: packer.narrow_linear(&names::bypass_down(block), [r, d], config.bias)?,
            up: if config.bias {
                packer.linear(&up, shape, precision)?
            } else {
                packer.linear_without_bias(&up, shape, precision)?
            },
            activation: activation(config.activation),
            norm: match config.layer_norm {
                BypassLayerNorm::Own => Some(packer.norm(&names::bypass_norm(block), d)?),
                BypassLayerNorm::Shared => None,
            },
        })
    }

    /// # Shapes
    /// The \[CLS\] rows of the block's input and of its feed-forward sum, `[B, D]` each, to the
    /// exit's features `[B, D]`.
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        rows: Range<usize>,
        block_norm: &LayerNorm,
        space: &mut ExitSpace,
    ) {
        let input = space.inputs.rows_in(rows.clone());
        let narrow = space.narrow.rows_in_mut(rows.clone());
        self.down.forward(pool, input, self.activation, narrow); // [B, r]
        let narrow = Input::F32(space.narrow.rows_in(rows.clone()));
        let sums = space.sums.rows_in(rows.clone());
        let adjusted = Output::F32(space.adjusted.rows_in_mut(rows.clone()));
        self.up.forward_and_add(pool, narrow, (sums, &[]), adjusted); // [B, D]
        let norm = self.norm.as_ref().unwrap_or(block_norm);
        let adjusted = space.adjusted.rows_in(rows.clone());
        layer_norm(pool, adjusted, None, norm, space.features.norm_output(rows));
    }

    /// Where the weights lie.
    pub(crate) fn upcoming(&self) -> [Upcoming; 2] {
        [self.down.upcoming(), self.up.upcoming()]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.down.bytes() + self.up.bytes() + self.norm.as_ref().map_or(0, norm_bytes)
    }
}
