//! Memory that layers use one after the other.

use badge_core::config::BackboneConfig;
use badge_kernels::attention::AttentionScratch;
use badge_kernels::matrix::Matrix;
use badge_kernels::threads::Pool;
use badge_kernels::training::attention::BackwardScratch;
use badge_kernels::training::layer_norm::NormScratch;
use badge_kernels::training::products::GradientScratch;

use super::Precision;
use super::layer::shape;
use super::rows::{Factors, Stream};

/// Working memory of a pass over up to `rows` tokens; letters as in `Layer::forward`.
#[derive(Debug)]
pub(super) struct Scratch {
    /// The \[CLS\] rows of a layer's input.
    pub(super) cls: Stream,
    pub(super) attention: AttentionScratch,
    /// `c W_O`, later `g(z) W₂`.
    pub(super) projected: Matrix<f32>,
    /// a
    pub(super) attended: Stream,
    /// g(z)
    pub(super) activated: Factors,
    pub(super) gradients: Gradients,
}

/// Gradients on their way down.
#[derive(Debug)]
pub(super) struct Gradients {
    /// Of a layer's output and then of its input.
    pub(super) hidden: Matrix<f32>,
    /// Of F, then of s.
    pub(super) sum: Matrix<f32>,
    /// The same behind the dropout, as products multiply it.
    pub(super) branch: Factors,
    /// Of a.
    pub(super) attended: Matrix<f32>,
    /// Of g(z), then of z.
    pub(super) inner: Factors,
    /// Of c.
    pub(super) context: Factors,
    pub(super) queries: Factors,
    pub(super) keys: Factors,
    pub(super) values: Factors,
    pub(super) attention: BackwardScratch,
    pub(super) norm: NormScratch,
    pub(super) products: GradientScratch,
}

impl Scratch {
    /// Room for `rows` tokens, none of them in a sample of more than `longest`.
    pub(super) fn new(
        pool: &Pool,
        (rows, longest): (usize, usize),
        config: &BackboneConfig,
        precision: Precision,
    ) -> Self {
        let (d, f) = (config.hidden, config.intermediate);
        let factors = |columns| Factors::zeros(rows, columns, precision);
        let shape = shape(config);
        Self {
            cls: Stream::zeros(rows, d, precision),
            attention: AttentionScratch::new(pool.threads(), longest, &shape),
            projected: Matrix::zeros(rows, d),
            attended: Stream::zeros(rows, d, precision),
            activated: factors(f),
            gradients: Gradients {
                hidden: Matrix::zeros(rows, d),
                sum: Matrix::zeros(rows, d),
                branch: factors(d),
                attended: Matrix::zeros(rows, d),
                inner: factors(f),
                context: factors(d),
                queries: factors(d),
                keys: factors(d),
                values: factors(d),
                attention: BackwardScratch::new(pool.threads(), longest, &shape),
                norm: NormScratch::new(rows, d.max(config.embedding)),
                products: GradientScratch::new(pool),
            },
        }
    }
}
