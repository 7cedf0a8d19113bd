//! An exit: bypass, pooler and classifier on the \[CLS\] row.

use std::ops::Range;

use badge_core::checkpoint::names;
use badge_core::config::EarlyExitConfig;
use badge_core::exit::Pooler;
use badge_kernels::activation::Activation;
use badge_kernels::gemm::Output;
use badge_kernels::layer_norm::{LayerNorm, layer_norm};

use super::bypass::Bypass;
use crate::error::Result;
use crate::machine::Machine;
use crate::packed::{Linear, NarrowLinear, Next, PackedModel, Packer};
use crate::profile::Operation;
use crate::workspace::{ExitSpace, Features};

/// The exit after one block.
#[derive(Debug)]
pub(crate) struct Exit {
    bypass: Option<Bypass>,
    /// Its own; a shared one belongs to the model.
    pooler: Option<Linear>,
    classifier: NarrowLinear,
}

/// Computes the logits of all rows that `space` lists; they may belong to exits of several depths.
/// A shared pooler multiplies them all at once.
///
/// # Shapes
/// The \[CLS\] rows of a block's input and of its feed-forward sum, `space.inputs` and
/// `space.sums: [B, D]`, to `space.logits: [B, C]` and, where the model has a learning-to-exit
/// head, `space.continue_logits: [B, 1]`.
pub(crate) fn forward_exits(machine: &mut Machine, model: &PackedModel, space: &mut ExitSpace) {
    each_depth(model, space, |exit, rows, space| {
        let depth = space.entries[rows.start].depth;
        let block = &model.blocks[model.block_of[depth.index().0]];
        exit.features(machine, rows, &block.last.norm, space);
    });
    if let Some(pooler) = &model.pooler {
        let rows = 0..space.entries.len();
        machine.run(Operation::Pooler, |pool| {
            let pooled = Output::F32(space.pooled.rows_in_mut(rows.clone()));
            pooler.forward(pool, space.features.input(rows), Activation::Tanh, pooled); // [B, D]
        });
    }
    let has_shared_pooler = model.pooler.is_some();
    each_depth(model, space, |exit, rows, space| {
        exit.pool_alone(machine, rows.clone(), space);
        let is_pooled = has_shared_pooler || exit.pooler.is_some();
        let Features { wide, .. } = &space.features;
        let input = if is_pooled { &space.pooled } else { wide };
        let input = input.rows_in(rows.clone());
        machine.run(Operation::Classifier, |pool| {
            let logits = space.logits.rows_in_mut(rows.clone());
            exit.classifier
                .forward(pool, input, Activation::Identity, logits); // [B, C]
            if let Some(head) = &model.learning_to_exit {
                let logits = space.continue_logits.rows_in_mut(rows);
                head.forward(pool, input, Activation::Identity, logits); // [B, 1]
            }
        });
    });
}

/// Calls `work` with each exit that has rows, and with its rows.
fn each_depth(
    model: &PackedModel,
    space: &mut ExitSpace,
    mut work: impl FnMut(&Exit, Range<usize>, &mut ExitSpace),
) {
    let mut start = 0;
    while start < space.entries.len() {
        let depth = space.entries[start].depth;
        let rest = &space.entries[start..];
        let count = rest.iter().take_while(|entry| entry.depth == depth).count();
        let exit = model.exits[depth.index().0].as_ref();
        let exit = exit.expect("policies ask for exits of the plan only");
        work(exit, start..start + count, space);
        start += count;
    }
}

impl Exit {
    pub(crate) fn pack(
        packer: &mut Packer<'_>,
        exits: &EarlyExitConfig,
        block: usize,
    ) -> Result<Self> {
        let config = packer.config;
        let backbone = &config.backbone;
        let bypass = exits.bypass.as_ref();
        let shape = [config.head.outputs(), backbone.hidden];
        let classifier = names::exit_classifier(backbone, block);
        Ok(Self {
            bypass: bypass
                .map(|bypass| Bypass::pack(packer, bypass, block))
                .transpose()?,
            pooler: match exits.pooler {
                Pooler::Own => Some(packer.pooler(&names::exit_pooler(backbone, block))?),
                Pooler::Shared | Pooler::None => None,
            },
            classifier: packer.narrow_linear(&classifier, shape, true)?,
        })
    }

    /// Where the weights lie that this exit multiplies, in this order.
    pub(crate) fn upcoming(&self, model: &PackedModel) -> Next {
        let [down, up] = self
            .bypass
            .as_ref()
            .map(Bypass::upcoming)
            .unwrap_or_default();
        let pooler = model.pooler.as_ref().or(self.pooler.as_ref());
        let pooler = pooler.map(Linear::upcoming).unwrap_or_default();
        [down, up, pooler, self.classifier.upcoming()]
    }

    /// What pooler or classifier reads: the bypass's result, or the block's output.
    fn features(
        &self,
        machine: &mut Machine,
        rows: Range<usize>,
        block_norm: &LayerNorm,
        space: &mut ExitSpace,
    ) {
        machine.run(Operation::Bypass, |pool| {
            if let Some(bypass) = &self.bypass {
                bypass.forward(pool, rows, block_norm, space);
                return;
            }
            let sums = space.sums.rows_in(rows.clone());
            let features = space.features.norm_output(rows);
            layer_norm(pool, sums, None, block_norm, features);
        });
    }

    /// The exit's own pooler, if it has one.
    fn pool_alone(&self, machine: &mut Machine, rows: Range<usize>, space: &mut ExitSpace) {
        let Some(pooler) = &self.pooler else { return };
        machine.run(Operation::Pooler, |pool| {
            let pooled = Output::F32(space.pooled.rows_in_mut(rows.clone()));
            pooler.forward(pool, space.features.input(rows), Activation::Tanh, pooled);
        });
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bypass.as_ref().map_or(0, Bypass::bytes)
            + self.pooler.as_ref().map_or(0, Linear::bytes)
            + self.classifier.bytes()
    }
}
