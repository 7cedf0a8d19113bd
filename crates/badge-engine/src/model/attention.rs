//! Multi-head self-attention with its residual sum and LayerNorm.

use badge_core::checkpoint::names::LayerNames;
use badge_kernels::activation::Activation;
use badge_kernels::attention::{Sequences, attention};
use badge_kernels::gemm::Output;
use badge_kernels::layer_norm::{LayerNorm, layer_norm};

use crate::activations::{Activations, Factors};
use crate::error::Result;
use crate::machine::Machine;
use crate::packed::{Linear, Packer, norm_bytes};
use crate::profile::Operation;
use crate::schedule::Selection;
use crate::workspace::ProductSpace;

/// `a = LN(x + O(softmax(Q Kᵀ / √K) V))`.
///
/// Keys and values are computed of all rows, the rest of those whose output is needed.
#[derive(Debug)]
pub(crate) struct Attention {
    query: Linear,
    /// Keys and values side by side: `[2 D, D]`.
    key_value: Linear,
    output: Linear,
    norm: LayerNorm,
}

impl Attention {
    pub(crate) fn pack(packer: &mut Packer<'_>, names: &LayerNames) -> Result<Self> {
        let (config, precision) = (&packer.config.backbone, packer.precisions.blocks);
        let square = [config.hidden, config.hidden];
        Ok(Self {
            query: packer.linear(&names.query, square, precision)?,
            key_value: packer.side_by_side(&[&names.key, &names.value], square, precision)?,
            output: packer.linear(&names.attention_output, square, precision)?,
            norm: packer.norm(&names.attention_norm, config.hidden)?,
        })
    }

    /// # Shapes
    /// All `T` rows `x: [T, D]` to `space.keys_values: [T, 2 D]`.
    pub(crate) fn keys_values(
        &self,
        machine: &mut Machine,
        x: &Activations,
        t: usize,
        space: &mut ProductSpace,
    ) {
        let output = space.keys_values.output(t);
        machine.run(Operation::KeysValues, |pool| {
            self.key_value
                .forward(pool, x.input(t), Activation::Identity, output);
        });
    }

    /// # Shapes
    /// The `M` selected rows `x: [M, D]` to `space.attended: [M, D]`.
    pub(crate) fn forward(
        &self,
        machine: &mut Machine,
        x: &Activations,
        selection: &Selection,
        space: &mut ProductSpace,
    ) {
        let (m, t) = (selection.rows(), selection.pass_rows());
        let queries = space.queries.output(m);
        machine.run(Operation::Queries, |pool| {
            self.query
                .forward(pool, x.input(m), Activation::Identity, queries); // [M, D]
        });
        let factors = Factors::attention(&space.queries, m, &space.keys_values, t);
        let sequences = Sequences {
            queries: selection.queries(),
            keys: selection.keys(),
        };
        machine.run(Operation::Attention, |pool| {
            space.context.fill(pool, m, |context| {
                attention(pool, factors, sequences, &space.scratch, context);
            }); // [M, D]
        });
        let sum = space.sum.rows_mut(m);
        machine.run(Operation::AttentionOutput, |pool| {
            let context = space.context.input(m);
            self.output
                .forward_and_add(pool, context, (x.wide(m), &[]), Output::F32(sum)); // [M, D]
        });
        machine.run(Operation::LayerNorm, |pool| {
            let attended = space.attended.norm_output(0..m);
            layer_norm(pool, space.sum.rows(m), None, &self.norm, attended);
        });
    }

    pub(crate) fn bytes(&self) -> usize {
        self.query.bytes() + self.key_value.bytes() + self.output.bytes() + norm_bytes(&self.norm)
    }
}
