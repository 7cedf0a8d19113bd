//! The position-wise feed-forward network with its residual sum.

use badge_core::checkpoint::names::LayerNames;
use badge_kernels::activation::Activation;
use badge_kernels::gemm::Output;

use crate::error::Result;
use crate::machine::Machine;
use crate::packed::{Linear, Packer, activation};
use crate::profile::Operation;
use crate::workspace::ProductSpace;

/// `F = a + W₂ g(W₁ a)`, before the block's last LayerNorm: the sum a bypass adds to.
#[derive(Debug)]
pub(crate) struct FeedForward {
    intermediate: Linear,
    output: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(crate) fn pack(packer: &mut Packer<'_>, names: &LayerNames) -> Result<Self> {
        let (config, precision) = (&packer.config.backbone, packer.precisions.blocks);
        let (d, f) = (config.hidden, config.intermediate);
        Ok(Self {
            intermediate: packer.linear(&names.intermediate, [f, d], precision)?,
            output: packer.linear(&names.output, [d, f], precision)?,
            activation: activation(config.activation),
        })
    }

    /// `space.next` is what is multiplied afterwards.
    ///
    /// # Shapes
    /// `space.attended: [M, D]` to `space.sum: [M, D]`.
    pub(crate) fn forward(&self, machine: &mut Machine, m: usize, space: &mut ProductSpace) {
        let ProductSpace {
            attended,
            inner,
            sum,
            next,
            ..
        } = space;
        machine.run(Operation::Intermediate, |pool| {
            inner.fill(pool, m, |inner| {
                let attended = attended.input(m);
                self.intermediate
                    .forward(pool, attended, self.activation, inner);
            }); // [M, F]
        });
        machine.run(Operation::FeedForward, |pool| {
            let sum = Output::F32(sum.rows_mut(m));
            self.output
                .forward_and_add(pool, inner.input(m), (attended.wide(m), &*next), sum); // [M, D]
        });
    }

    pub(crate) fn bytes(&self) -> usize {
        self.intermediate.bytes() + self.output.bytes()
    }
}
