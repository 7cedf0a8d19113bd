//! The border to the heads: taps out of a pass, their gradients into it.

use std::collections::BTreeMap;

use badge_kernels::matrix::Matrix;

use super::layer::InnerGradients;
use super::memory::Memory;
use super::packed_batch::{QueryRows, clear};
use super::pass::Pass;
use crate::framework::{Result, Tensor, Var};
use crate::model::Tap;
use crate::ops::with_values;

/// The gradients of one block's taps.
pub(crate) type TapGradients = BTreeMap<Tap, Tensor>;

/// What comes back from one exit, times its junction's factor.
#[derive(Debug, Default)]
pub(super) struct ExitGradients {
    pub(super) input: Option<Vec<f32>>,
    pub(super) layer_input: Option<Vec<f32>>,
    pub(super) inner: InnerGradients,
    pub(super) hidden: Option<Vec<f32>>,
    /// Padded, `[B, T, D]`.
    pub(super) rows: Option<Vec<f32>>,
}

impl ExitGradients {
    pub(super) fn new(taps: &TapGradients, factor: f64) -> Result<Self> {
        let mut exit = Self::default();
        // A factor of 0 stops: what is behind it does not depend on the exit.
        let taps = taps.iter().filter(|_| factor != 0.0);
        for (tap, gradient) in taps {
            let scale = |values: &[f32]| values.iter().map(|v| v * factor as f32).collect();
            let values = Some(with_values(gradient, scale)?);
            match tap {
                Tap::Input => exit.input = values,
                Tap::LayerInput => exit.layer_input = values,
                Tap::AttentionSum => exit.inner.attention_sum = values,
                Tap::Attended => exit.inner.attended = values,
                Tap::FeedForward => exit.inner.feed_forward = values,
                Tap::Hidden => exit.hidden = values,
                Tap::Rows => exit.rows = values,
            }
        }
        Ok(exit)
    }
}

impl Memory {
    /// Adds what comes back from heads, of \[CLS\] rows and of all, to the gradient of the stream
    /// that the pass's layer gives; whether there was any. What is not `reached` counts as 0.
    pub(super) fn add_to_hidden(
        &mut self,
        pass: &Pass<'_>,
        reached: bool,
        (cls, all): (&Option<Vec<f32>>, &Option<Vec<f32>>),
    ) -> bool {
        let hidden = &mut self.scratch.gradients.hidden;
        if !reached && (cls.is_some() || all.is_some()) {
            clear(hidden, pass.queries());
        }
        if let Some(cls) = cls {
            pass.batch.add_to_cls(cls, hidden, pass.query_rows);
        }
        if let Some(all) = all {
            pass.batch.add_to_all(all, hidden);
        }
        cls.is_some() || all.is_some()
    }

    /// A tap of the block that ends with the pass's layer, `layer` counted over all blocks, as a
    /// leaf of a graph. Some of what is tapped only lies here until the next layer runs.
    pub(super) fn tap(
        &mut self,
        tap: Tap,
        (layer, inner_layers): (usize, usize),
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let all = QueryRows::All;
        let cls = |matrix: &Matrix<f32>, rows| pass.batch.cls(matrix, rows);
        let rows = pass.query_rows;
        let values = match tap {
            Tap::Input => cls(&self.streams[layer + 1 - inner_layers].wide, all),
            Tap::LayerInput => cls(&self.streams[layer].wide, all),
            Tap::AttentionSum => cls(&self.layer(layer).saved.attention_sum, rows),
            Tap::Attended => cls(&self.scratch.attended.wide, rows),
            Tap::FeedForward => cls(&self.layer(layer).saved.feed_forward, rows),
            Tap::Hidden => cls(&self.streams[layer + 1].wide, rows),
            Tap::Rows => pass.batch.padded(&self.streams[layer + 1].wide),
        }?;
        Ok(Var::from_tensor(&values)?.into_inner())
    }
}
