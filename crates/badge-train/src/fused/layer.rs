//! One transformer layer: weights, what is saved, the forward pass.

use badge_core::checkpoint::names;
use badge_core::config::{BackboneConfig, Family};
use badge_kernels::activation::Activation;
use badge_kernels::attention::{AttentionInput, AttentionShape, Projections};
use badge_kernels::gemm::Output;
use badge_kernels::matrix::Matrix;
use badge_kernels::threads::Pool;
use badge_kernels::training::activation::activation_forward;
use badge_kernels::training::attention::{AttentionPass, SoftmaxStatistics, attention_forward};
use badge_kernels::training::layer_norm::{NormInput, NormStatistics};

use super::Precision;
use super::masks::Mask;
use super::pass::Pass;
use super::rows::{Factors, Stream};
use super::scratch::Scratch;
use super::weights::{GradientsByName, Linear, Norm, kernel_activation};
use crate::framework::Result;
use crate::ops::{DropoutSite, LayerIndex};
use crate::parameters::Parameters;

mod backward;

pub(super) use backward::InnerGradients;

/// The weights of a layer, which several blocks may share, and their gradients.
#[derive(Debug)]
pub(super) struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
    activation: Activation,
    shape: AttentionShape,
    dropout: Rates,
}

/// Dropout rates of a layer.
#[derive(Debug, Clone, Copy)]
struct Rates {
    probabilities: f64,
    attention: f64,
    feed_forward: f64,
}

/// What backward needs of a layer's forward pass besides its input; letters as in
/// [`Layer::forward`].
#[derive(Debug)]
pub(super) struct Saved {
    queries: Factors,
    keys: Factors,
    values: Factors,
    softmax: SoftmaxStatistics,
    /// c
    context: Factors,
    /// s
    pub(super) attention_sum: Matrix<f32>,
    attention_statistics: NormStatistics,
    /// z
    inner: Factors,
    /// F
    pub(super) feed_forward: Matrix<f32>,
    statistics: NormStatistics,
    probability_mask: Mask,
    attention_mask: Mask,
    feed_forward_mask: Mask,
}

impl Saved {
    /// Room for `rows` tokens, of which `queries` have rows behind keys and values.
    pub(super) fn new(
        (rows, queries): (usize, usize),
        config: &BackboneConfig,
        precision: Precision,
    ) -> Self {
        let (d, f) = (config.hidden, config.intermediate);
        let factors = |rows, columns| Factors::zeros(rows, columns, precision);
        Self {
            queries: factors(queries, d),
            keys: factors(rows, d),
            values: factors(rows, d),
            softmax: SoftmaxStatistics::new(queries, &shape(config)),
            context: factors(queries, d),
            attention_sum: Matrix::zeros(queries, d),
            attention_statistics: NormStatistics::new(queries),
            inner: factors(queries, f),
            feed_forward: Matrix::zeros(queries, d),
            statistics: NormStatistics::new(queries),
            probability_mask: Mask::default(),
            attention_mask: Mask::default(),
            feed_forward_mask: Mask::default(),
        }
    }
}

/// What attention reads.
fn attention_pass<'a>(
    projections: (&'a Factors, &'a Factors, &'a Factors),
    mask: &'a Mask,
    pass: &Pass<'a>,
) -> AttentionPass<'a> {
    let (queries, keys) = (pass.queries(), pass.rows());
    let input = match projections {
        (Factors::F32(q), Factors::F32(k), Factors::F32(v)) => AttentionInput::F32(Projections {
            queries: q.rows(queries),
            keys: k.rows(keys),
            values: v.rows(keys),
        }),
        (Factors::Bf16(q), Factors::Bf16(k), Factors::Bf16(v)) => {
            AttentionInput::Bf16(Projections {
                queries: q.rows(queries),
                keys: k.rows(keys),
                values: v.rows(keys),
            })
        }
        _ => unreachable!("all projections have one precision"),
    };
    AttentionPass {
        input,
        sequences: pass.batch.sequences(pass.query_rows),
        dropout: mask.get(),
    }
}

/// The heads of a backbone.
pub(super) fn shape(config: &BackboneConfig) -> AttentionShape {
    AttentionShape {
        heads: config.heads,
        head_size: config.head_size(),
    }
}

impl Layer {
    pub(super) fn new(
        parameters: &Parameters,
        config: &BackboneConfig,
        index: LayerIndex,
        precision: Precision,
    ) -> Result<Self> {
        let names = names::layer(config, index.block, index.inner);
        let linear = |name| Linear::new(parameters, name, precision);
        let norm = |name| Norm::new(parameters, name, config.layer_norm_eps);
        Ok(Self {
            query: linear(&names.query)?,
            key: linear(&names.key)?,
            value: linear(&names.value)?,
            attention_output: linear(&names.attention_output)?,
            attention_norm: norm(&names.attention_norm),
            intermediate: linear(&names.intermediate)?,
            output: linear(&names.output)?,
            output_norm: norm(&names.output_norm),
            activation: kernel_activation(config.activation),
            shape: shape(config),
            dropout: Rates {
                probabilities: config.attention_dropout,
                attention: config.hidden_dropout,
                // ALBERT drops nothing here.
                feed_forward: if config.family == Family::Albert {
                    0.0
                } else {
                    config.hidden_dropout
                },
            },
        })
    }

    fn linears(&mut self) -> [&mut Linear; 6] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.attention_output,
            &mut self.intermediate,
            &mut self.output,
        ]
    }

    /// Takes over the parameters' present values.
    pub(super) fn load(&mut self, pool: &Pool, parameters: &Parameters) -> Result<()> {
        for linear in self.linears() {
            linear.load(pool, parameters)?;
        }
        self.attention_norm.load(parameters)?;
        self.output_norm.load(parameters)
    }

    /// Gives all gradients away.
    pub(super) fn take(&mut self, gradients: &mut GradientsByName) -> Result<()> {
        for linear in self.linears() {
            linear.take(gradients)?;
        }
        self.attention_norm.take(gradients)?;
        self.output_norm.take(gradients)
    }

    /// `c = attention(x W_Q, x W_K, x W_V)`, `s = x + c W_O`, `a = LN(s)`, `z = a W₁`,
    /// `F = a + g(z) W₂`, `H = LN(F)`; biases and dropout left out.
    ///
    /// Where the pass wants \[CLS\] alone, all but the keys and values have a row for each sample.
    /// a stays behind in the scratch.
    pub(super) fn forward(
        &self,
        pass: &Pass<'_>,
        x: &Stream,
        (saved, scratch): (&mut Saved, &mut Scratch),
        out: &mut Stream,
    ) {
        self.draw_masks(pass, saved);
        self.attend(pass, x, (saved, scratch));
        self.feed_forward(pass, (saved, scratch), out);
    }

    fn draw_masks(&self, pass: &Pass<'_>, saved: &mut Saved) {
        let rates = self.dropout;
        let mask = &mut saved.probability_mask;
        let site = (DropoutSite::Probabilities(pass.layer), rates.probabilities);
        mask.draw_probabilities(pass, site, self.shape.heads);
        let columns = self.shape.heads * self.shape.head_size;
        let site = (DropoutSite::AttentionOutput(pass.layer), rates.attention);
        saved.attention_mask.draw_rows(pass, site, columns);
        let site = (
            DropoutSite::FeedForwardOutput(pass.layer),
            rates.feed_forward,
        );
        saved.feed_forward_mask.draw_rows(pass, site, columns);
    }

    /// From x to a.
    fn attend(&self, pass: &Pass<'_>, x: &Stream, (saved, scratch): (&mut Saved, &mut Scratch)) {
        let (pool, queries, keys) = (pass.pool, pass.queries(), pass.rows());
        let Scratch {
            cls,
            attention,
            projected,
            attended,
            ..
        } = scratch;
        let of_queries = pass.rows_of_queries(x, cls);
        let (input, out) = (of_queries.input(queries), saved.queries.output(queries));
        self.query.forward(pool, input, out);
        self.key
            .forward(pool, x.input(keys), saved.keys.output(keys));
        self.value
            .forward(pool, x.input(keys), saved.values.output(keys));
        let Saved {
            queries: q,
            keys: k,
            values: v,
            softmax,
            context,
            probability_mask,
            ..
        } = saved;
        let out = context.output(queries);
        let reads = attention_pass((q, k, v), probability_mask, pass);
        attention_forward(pool, &reads, attention, softmax, out);
        let out = Output::F32(projected.rows_mut(queries));
        self.attention_output
            .forward(pool, saved.context.input(queries), out);
        let input = NormInput {
            x: projected.rows(queries),
            dropout: saved.attention_mask.get(),
            residual: Some(of_queries.rows(queries)),
        };
        let sum = saved.attention_sum.rows_mut(queries);
        let statistics = &mut saved.attention_statistics;
        let out = attended.norm_output(queries, Some(sum), statistics);
        self.attention_norm.forward(pool, input, out);
    }

    /// From a to H.
    fn feed_forward(
        &self,
        pass: &Pass<'_>,
        (saved, scratch): (&mut Saved, &mut Scratch),
        out: &mut Stream,
    ) {
        let (pool, rows) = (pass.pool, pass.queries());
        let Scratch {
            projected,
            attended,
            activated,
            ..
        } = scratch;
        self.intermediate
            .forward(pool, attended.input(rows), saved.inner.output(rows));
        let z = saved.inner.factor(rows);
        activation_forward(pool, self.activation, z, activated.output(rows));
        let product = Output::F32(projected.rows_mut(rows));
        self.output.forward(pool, activated.input(rows), product);
        let input = NormInput {
            x: projected.rows(rows),
            dropout: saved.feed_forward_mask.get(),
            residual: Some(attended.rows(rows)),
        };
        let sum = saved.feed_forward.rows_mut(rows);
        let out = out.norm_output(rows, Some(sum), &mut saved.statistics);
        self.output_norm.forward(pool, input, out);
    }
}
