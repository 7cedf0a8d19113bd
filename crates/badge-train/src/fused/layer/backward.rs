//! One transformer layer, backwards.

use badge_kernels::gemm::{Input, Output};
use badge_kernels::training::activation::activation_backward;
use badge_kernels::training::activation::activation_forward;
use badge_kernels::training::attention::{
    AttentionGradient, ProjectionGradients, attention_backward,
};
use badge_kernels::training::layer_norm::{NormBranch, NormInput};

use super::{Layer, Saved, attention_pass};
use crate::fused::masks::Mask;
use crate::fused::packed_batch::{QueryRows, add, clear};
use crate::fused::pass::Pass;
use crate::fused::rows::Stream;
use crate::fused::scratch::{Gradients, Scratch};

/// The gradients of what heads read inside a layer: of \[CLS\] rows, `[B, D]` each.
#[derive(Debug, Default)]
pub(in crate::fused) struct InnerGradients {
    /// Of s.
    pub(in crate::fused) attention_sum: Option<Vec<f32>>,
    /// Of a.
    pub(in crate::fused) attended: Option<Vec<f32>>,
    /// Of F.
    pub(in crate::fused) feed_forward: Option<Vec<f32>>,
}

impl InnerGradients {
    pub(in crate::fused) fn is_empty(&self) -> bool {
        self.attention_sum.is_none() && self.attended.is_none() && self.feed_forward.is_none()
    }
}

impl Layer {
    /// From the gradient of H to that of x, both in the scratch; the parameters' gradients are
    /// added to. Parameters that nothing depends on get none: without `hidden` nothing behind the
    /// layer reads H, and heads read what `inner` says.
    pub(in crate::fused) fn backward(
        &mut self,
        pass: &Pass<'_>,
        x: &Stream,
        (saved, scratch): (&mut Saved, &mut Scratch),
        (hidden, inner): (bool, &InnerGradients),
    ) {
        let gradients = &mut scratch.gradients;
        if hidden {
            self.output_norm_backward(pass, saved, gradients);
        } else {
            gradients.clear_sum(pass.queries());
        }
        let feed_forward = inner.feed_forward.as_deref();
        gradients.add_to_sum(pass, feed_forward, &saved.feed_forward_mask);
        let reached = hidden || feed_forward.is_some();
        if reached {
            self.feed_forward_backward(pass, (saved, scratch));
        }
        let gradients = &mut scratch.gradients;
        if !reached && inner.attended.is_some() {
            clear(&mut gradients.attended, pass.queries());
        }
        if let Some(attended) = &inner.attended {
            let to = &mut gradients.attended;
            pass.batch.add_to_cls(attended, to, pass.query_rows);
        }
        if reached || inner.attended.is_some() {
            self.attention_norm_backward(pass, saved, gradients);
        } else {
            gradients.clear_sum(pass.queries());
        }
        let attention_sum = inner.attention_sum.as_deref();
        gradients.add_to_sum(pass, attention_sum, &saved.attention_mask);
        self.attention_backward(pass, x, (saved, scratch));
    }

    /// From H to F.
    fn output_norm_backward(&mut self, pass: &Pass<'_>, saved: &Saved, gradients: &mut Gradients) {
        let rows = pass.queries();
        let input = (
            gradients.hidden.rows(rows),
            saved.feed_forward.rows(rows),
            &saved.statistics,
        );
        let branch = NormBranch {
            dropout: saved.feed_forward_mask.get(),
            out: gradients.branch.output(rows),
        };
        let out = (gradients.sum.rows_mut(rows), Some(branch));
        self.output_norm
            .backward(pass.pool, input, &mut gradients.norm, out);
    }

    /// From F to a, all ways.
    fn feed_forward_backward(
        &mut self,
        pass: &Pass<'_>,
        (saved, scratch): (&mut Saved, &mut Scratch),
    ) {
        let (pool, rows) = (pass.pool, pass.queries());
        let Scratch {
            attended,
            activated,
            gradients,
            ..
        } = scratch;
        let z = saved.inner.factor(rows);
        activation_forward(pool, self.activation, z, activated.output(rows));
        let factors = (gradients.branch.factor(rows), activated.factor(rows));
        self.output
            .accumulate(pool, factors, &mut gradients.products);
        let (dy, out) = (gradients.branch.input(rows), gradients.inner.output(rows));
        self.output.backward(pool, dy, None, out);
        activation_backward(pool, self.activation, z, gradients.inner.output(rows));
        // a again, as it was.
        let input = NormInput {
            x: saved.attention_sum.rows(rows),
            dropout: None,
            residual: None,
        };
        let out = attended.norm_output(rows, None, &mut saved.attention_statistics);
        self.attention_norm.forward(pool, input, out);
        let factors = (gradients.inner.factor(rows), attended.factor(rows));
        self.intermediate
            .accumulate(pool, factors, &mut gradients.products);
        let (dy, residual) = (gradients.inner.input(rows), gradients.sum.rows(rows));
        let out = Output::F32(gradients.attended.rows_mut(rows));
        self.intermediate.backward(pool, dy, Some(residual), out);
    }

    /// From a to s.
    fn attention_norm_backward(
        &mut self,
        pass: &Pass<'_>,
        saved: &Saved,
        gradients: &mut Gradients,
    ) {
        let rows = pass.queries();
        let input = (
            gradients.attended.rows(rows),
            saved.attention_sum.rows(rows),
            &saved.attention_statistics,
        );
        let branch = NormBranch {
            dropout: saved.attention_mask.get(),
            out: gradients.branch.output(rows),
        };
        let out = (gradients.sum.rows_mut(rows), Some(branch));
        self.attention_norm
            .backward(pass.pool, input, &mut gradients.norm, out);
    }

    /// From s to x, all ways.
    fn attention_backward(
        &mut self,
        pass: &Pass<'_>,
        x: &Stream,
        (saved, scratch): (&Saved, &mut Scratch),
    ) {
        let (pool, rows, keys) = (pass.pool, pass.queries(), pass.rows());
        let gradients = &mut scratch.gradients;
        let factors = (gradients.branch.factor(rows), saved.context.factor(rows));
        self.attention_output
            .accumulate(pool, factors, &mut gradients.products);
        let (dy, out) = (gradients.branch.input(rows), gradients.context.output(rows));
        self.attention_output.backward(pool, dy, None, out);
        let projections = (&saved.queries, &saved.keys, &saved.values);
        let input = AttentionGradient {
            pass: attention_pass(projections, &saved.probability_mask, pass),
            statistics: &saved.softmax,
            gradient: gradients.context.factor(rows),
        };
        let out = ProjectionGradients::Apart {
            queries: gradients.queries.output(rows),
            keys: gradients.keys.output(keys),
            values: gradients.values.output(keys),
        };
        attention_backward(pool, &input, &gradients.attention, out);
        let of_queries = pass.rows_of_queries(x, &mut scratch.cls);
        let products = &mut gradients.products;
        let factors = (gradients.queries.factor(rows), of_queries.factor(rows));
        self.query.accumulate(pool, factors, products);
        let factors = (gradients.keys.factor(keys), x.factor(keys));
        self.key.accumulate(pool, factors, products);
        let factors = (gradients.values.factor(keys), x.factor(keys));
        self.value.accumulate(pool, factors, products);
        self.input_gradient(pass, gradients);
    }

    /// `dx = ds + dQ W_Q + dK W_K + dV W_V`
    fn input_gradient(&self, pass: &Pass<'_>, gradients: &mut Gradients) {
        let (pool, rows, keys) = (pass.pool, pass.queries(), pass.rows());
        let Gradients {
            hidden,
            attended: other,
            sum,
            ..
        } = gradients;
        let (dq, dk, dv): (Input, Input, Input) = (
            gradients.queries.input(rows),
            gradients.keys.input(keys),
            gradients.values.input(keys),
        );
        match pass.query_rows {
            QueryRows::All => {
                let out = Output::F32(other.rows_mut(rows));
                self.query.backward(pool, dq, Some(sum.rows(rows)), out);
                let out = Output::F32(sum.rows_mut(keys));
                self.key.backward(pool, dk, Some(other.rows(keys)), out);
                let out = Output::F32(hidden.rows_mut(keys));
                self.value.backward(pool, dv, Some(sum.rows(keys)), out);
            }
            QueryRows::Cls => {
                let out = Output::F32(other.rows_mut(keys));
                self.key.backward(pool, dk, None, out);
                let out = Output::F32(hidden.rows_mut(keys));
                self.value.backward(pool, dv, Some(other.rows(keys)), out);
                let out = Output::F32(other.rows_mut(rows));
                self.query.backward(pool, dq, Some(sum.rows(rows)), out);
                for (sample, row) in pass.batch.cls_rows(QueryRows::All).enumerate() {
                    add(hidden.row_mut(row), other.row(sample));
                }
            }
        }
    }
}

impl Gradients {
    /// Adds what heads give back to a sum's \[CLS\] rows, behind the dropout too.
    fn add_to_sum(&mut self, pass: &Pass<'_>, values: Option<&[f32]>, mask: &Mask) {
        let Some(values) = values else { return };
        pass.batch
            .add_to_cls(values, &mut self.sum, pass.query_rows);
        for row in pass.batch.cls_rows(pass.query_rows) {
            let dropped = mask.of_row(row, self.sum.row(row));
            self.branch.set_row(row, dropped);
        }
    }

    /// Starts from nothing behind a sum.
    fn clear_sum(&mut self, rows: usize) {
        clear(&mut self.sum, rows);
        (0..rows).for_each(|row| self.branch.set_row(row, std::iter::repeat(0.0)));
    }
}
