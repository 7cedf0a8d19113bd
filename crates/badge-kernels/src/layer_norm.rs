//! Layer norm over rows, with the copies in lower precision that products want.

use half::bf16;

use crate::matrix::{Rows, RowsMut, SharedRows, for_each_row};
use crate::quantise::{QuantisedRowsMut, SharedQuantised, narrow_row};
use crate::simd::{Operation, Simd};
use crate::threads::Pool;

/// Weights of a layer norm.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

/// Where normalised rows go.
#[derive(Debug)]
pub struct NormOutput<'a> {
    /// The result.
    pub f32: RowsMut<'a, f32>,
    /// A copy in the precision of the next product.
    pub narrow: Narrow<'a>,
}

/// A copy of rows in lower precision.
#[derive(Debug)]
pub enum Narrow<'a> {
    /// None: products read the f32 rows.
    None,
    /// Rounded to the nearest bf16.
    Bf16(RowsMut<'a, bf16>),
    /// Quantised row by row.
    Int8(QuantisedRowsMut<'a>),
}

#[derive(Clone, Copy)]
enum SharedNarrow {
    None,
    Bf16(SharedRows<bf16>),
    Int8(SharedQuantised),
}

impl LayerNorm {
    /// Weights `[D]`, bias `[D]` and the ε under the root.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, eps: f32) -> Self {
        assert_eq!(weight.len(), bias.len(), "weight and bias of a layer norm");
        Self { weight, bias, eps }
    }

    /// `w`
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// `b`
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// `ε`
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// Elements of a row, `D`.
    pub fn columns(&self) -> usize {
        self.weight.len()
    }
}

/// Output row `i` is `(x - mean) / √(variance + ε) w + b` of row `source[i]` of `x` (of row `i`
/// without `source`): mean and population variance over the row, both in f32 in two passes.
///
/// `source` lets rows close ranks on their way: what leaves a batch is not copied.
///
/// # Accuracy
/// Within 2e-6 of f64 for rows of unit variance, times the largest weight.
///
/// # Panics
/// When shapes disagree or `source` names a row that does not exist.
pub fn layer_norm(
    pool: &Pool,
    x: Rows<'_, f32>,
    source: Option<&[u32]>,
    norm: &LayerNorm,
    mut out: NormOutput<'_>,
) {
    let rows = source.map_or(x.count(), <[u32]>::len);
    let shape = (rows, norm.columns());
    assert_eq!(x.columns(), norm.columns(), "columns of a layer norm");
    assert_eq!(
        (out.f32.count(), out.f32.columns()),
        shape,
        "output of another shape"
    );
    let narrow = match &mut out.narrow {
        Narrow::None => SharedNarrow::None,
        Narrow::Bf16(rows) => {
            assert_eq!(
                (rows.count(), rows.columns()),
                shape,
                "bf16 copy of another shape"
            );
            SharedNarrow::Bf16(rows.share())
        }
        Narrow::Int8(quantised) => {
            let rows = &quantised.values;
            assert_eq!(
                (rows.count(), rows.columns()),
                shape,
                "int8 copy of another shape"
            );
            SharedNarrow::Int8(quantised.share())
        }
    };
    let wide = out.f32.share();
    let isa = pool.isa();
    for_each_row(pool, rows, &|index| {
        isa.run(NormRow {
            x: x.row(source.map_or(index, |source| source[index] as usize)),
            index,
            norm,
            wide,
            narrow,
        });
    });
}

/// One row of [`layer_norm`], which is the only one to write it.
struct NormRow<'a> {
    x: &'a [f32],
    index: usize,
    norm: &'a LayerNorm,
    wide: SharedRows<f32>,
    narrow: SharedNarrow,
}

impl Operation for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: each row is one task.
        let out = unsafe { self.wide.row(self.index) };
        normalise(s, self.x, self.norm, out);
        match self.narrow {
            SharedNarrow::None => {}
            // SAFETY: as above.
            SharedNarrow::Bf16(rows) => narrow_row(s, out, unsafe { rows.row(self.index) }),
            // SAFETY: as above.
            SharedNarrow::Int8(rows) => unsafe { rows.write(s, self.index, out) },
        }
    }
}

#[inline(always)]
fn normalise<S: Simd>(s: S, x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
    let count = x.len() as f32;
    let mut sum = s.splat(0.0);
    for x in x.chunks(S::LANES) {
        sum = s.add(sum, s.load_part(x, 0.0));
    }
    let mean = s.sum(sum) / count;
    let (center, mut squares) = (s.splat(mean), s.splat(0.0));
    for x in x.chunks(S::LANES) {
        // Lanes beyond the row must not count, so they hold the mean.
        let difference = s.sub(s.load_part(x, mean), center);
        squares = s.mul_add(difference, difference, squares);
    }
    let variance = s.sum(squares) / count;
    let factor = s.splat(1.0 / (variance + norm.eps).sqrt());
    let weights = norm.weight.chunks(S::LANES).zip(norm.bias.chunks(S::LANES));
    let rows = x.chunks(S::LANES).zip(out.chunks_mut(S::LANES));
    for ((x, out), (weight, bias)) in rows.zip(weights) {
        let y = s.mul(s.sub(s.load_part(x, 0.0), center), factor);
        let y = s.mul_add(y, s.load_part(weight, 0.0), s.load_part(bias, 0.0));
        s.store_part(y, out);
    }
}
