//! One transformer block: the unit of depth.

use badge_core::checkpoint::names;
use badge_kernels::layer_norm::{LayerNorm, layer_norm};

use super::attention::Attention;
use super::feed_forward::FeedForward;
use crate::activations::Activations;
use crate::error::Result;
use crate::machine::Machine;
use crate::packed::{Packer, norm_bytes};
use crate::profile::Operation;
use crate::schedule::Selection;
use crate::workspace::LayerSpace;

/// Block m; on ALBERT a group's inner layers one after the other.
#[derive(Debug)]
pub(crate) struct Block {
    /// All but the last.
    inner: Vec<Layer>,
    /// The layer whose output exits and the next block read.
    pub(crate) last: Layer,
}

/// One transformer layer.
#[derive(Debug)]
pub(crate) struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
    /// What closes the layer; an exit may use it a second time.
    pub(crate) norm: LayerNorm,
}

impl Block {
    pub(crate) fn pack(packer: &mut Packer<'_>, block: usize) -> Result<Self> {
        let last = packer.config.backbone.inner_layers - 1;
        let inner = (0..last).map(|inner| Layer::pack(packer, block, inner));
        Ok(Self {
            inner: inner.collect::<Result<_>>()?,
            last: Layer::pack(packer, block, last)?,
        })
    }

    /// Runs all layers but the last, in place. `everything` selects all rows.
    ///
    /// # Shapes
    /// `x: [T, D]`
    pub(crate) fn forward_inner(
        &self,
        machine: &mut Machine,
        x: &mut Activations,
        everything: &Selection,
        space: &mut LayerSpace,
    ) {
        let t = everything.pass_rows();
        for layer in &self.inner {
            layer.keys_values(machine, x, t, space);
            layer.feed_forward_sum(machine, x, everything, space);
            machine.run(Operation::LayerNorm, |pool| {
                let sum = space.products.sum.rows(t);
                layer_norm(pool, sum, None, &layer.norm, x.norm_output(0..t));
            });
        }
    }

    /// Whether a block is more than its last layer.
    pub(crate) fn has_inner(&self) -> bool {
        !self.inner.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner.iter().map(Layer::bytes).sum::<usize>() + self.last.bytes()
    }
}

impl Layer {
    fn pack(packer: &mut Packer<'_>, block: usize, inner: usize) -> Result<Self> {
        let names = names::layer(&packer.config.backbone, block, inner);
        let d = packer.config.backbone.hidden;
        Ok(Self {
            attention: Attention::pack(packer, &names)?,
            feed_forward: FeedForward::pack(packer, &names)?,
            norm: packer.norm(&names.output_norm, d)?,
        })
    }

    /// Keys and values of all `t` rows of the pass.
    pub(crate) fn keys_values(
        &self,
        machine: &mut Machine,
        x: &Activations,
        t: usize,
        space: &mut LayerSpace,
    ) {
        self.attention
            .keys_values(machine, x, t, &mut space.products);
    }

    /// The rest of the layer, up to `H_{m,F}`, for the selected rows; keys and values of all rows
    /// must be there.
    ///
    /// # Shapes
    /// `x: [T, D]` to `space.products.sum: [M, D]`.
    pub(crate) fn feed_forward_sum(
        &self,
        machine: &mut Machine,
        x: &Activations,
        selection: &Selection,
        space: &mut LayerSpace,
    ) {
        if selection.is_everything() {
            self.attention
                .forward(machine, x, selection, &mut space.products);
        } else {
            let gathered = &mut space.gathered;
            machine.run(Operation::Gather, |_| {
                gathered.gather(x, selection.source_rows());
            });
            self.attention
                .forward(machine, gathered, selection, &mut space.products);
        }
        self.feed_forward
            .forward(machine, selection.rows(), &mut space.products);
    }

    fn bytes(&self) -> usize {
        self.attention.bytes() + self.feed_forward.bytes() + norm_bytes(&self.norm)
    }
}
