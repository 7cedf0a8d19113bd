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
/// The error is at most `2⁻²¹ (max |x| / √(variance + ε) |w| + |b|)`: about 2e-6 for a common row.
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
    let (mean, factor) = statistics(s, x, norm.eps);
    scale_and_shift(s, x, (mean, factor), (&norm.weight, &norm.bias), out);
}

/// Mean and `1 / √(variance + ε)` of a row.
#[inline(always)]
pub(crate) fn statistics<S: Simd>(s: S, x: &[f32], eps: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = sum(s, x, Plain) / count;
    let variance = sum(s, x, Square { mean }) / count;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `(x - mean) factor w + b`
#[inline(always)]
pub(crate) fn scale_and_shift<S: Simd>(
    s: S,
    x: &[f32],
    (mean, factor): (f32, f32),
    (weights, biases): (&[f32], &[f32]),
    out: &mut [f32],
) {
    let scaling = Scaling {
        mean: s.splat(mean),
        factor: s.splat(factor),
    };
    let full = x.len() - x.len() % S::LANES;
    let parameters = weights
        .chunks_exact(S::LANES)
        .zip(biases.chunks_exact(S::LANES));
    let rows = x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES));
    for ((x, out), (weight, bias)) in rows.zip(parameters) {
        let y = scaling.apply(s, s.load(x), s.load(weight), s.load(bias));
        s.store(y, out);
    }
    let [x, weight, bias] = [x, weights, biases].map(|row| s.load_part(&row[full..], 0.0));
    s.store_part(scaling.apply(s, x, weight, bias), &mut out[full..]);
}

/// What makes a row's mean 0 and its variance 1.
struct Scaling<V> {
    mean: V,
    factor: V,
}

impl<V: Copy> Scaling<V> {
    #[inline(always)]
    fn apply<S: Simd<F32 = V>>(&self, s: S, x: V, weight: V, bias: V) -> V {
        let y = s.mul(s.sub(x, self.mean), self.factor);
        s.mul_add(y, weight, bias)
    }
}

/// What is summed of each element.
trait Term: Copy {
    /// An element that adds nothing.
    fn nothing(self) -> f32;
    /// `sum` and the term of `x`.
    fn add<S: Simd>(self, s: S, sum: S::F32, x: S::F32) -> S::F32;
}

/// The element.
#[derive(Clone, Copy)]
struct Plain;
impl Term for Plain {
    #[inline(always)]
    fn nothing(self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn add<S: Simd>(self, s: S, sum: S::F32, x: S::F32) -> S::F32 {
        s.add(sum, x)
    }
}

/// The square of its distance from the mean.
#[derive(Clone, Copy)]
struct Square {
    mean: f32,
}
impl Term for Square {
    #[inline(always)]
    fn nothing(self) -> f32 {
        self.mean
    }
    #[inline(always)]
    fn add<S: Simd>(self, s: S, sum: S::F32, x: S::F32) -> S::F32 {
        let difference = s.sub(x, s.splat(self.mean));
        s.mul_add(difference, difference, sum)
    }
}

/// The sum over a row, in an order that its length alone decides.
#[inline(always)]
fn sum<S: Simd, T: Term>(s: S, x: &[f32], term: T) -> f32 {
    // Four sums, for one alone would wait for its last addition at every step.
    let mut sums = [s.splat(0.0); 4];
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for block in &mut blocks {
        for (sum, x) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *sum = term.add(s, *sum, s.load(x));
        }
    }
    for x in blocks.remainder().chunks(S::LANES) {
        sums[0] = term.add(s, sums[0], s.load_part(x, term.nothing()));
    }
    let [a, b, c, d] = sums;
    s.sum(s.add(s.add(a, b), s.add(c, d)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::matrix::{Element, Matrix};
    use crate::quantise::QuantisedMatrix;

    fn assert_padded<T: Element + Copy + Into<f64>>(rows: Rows<'_, T>) {
        for row in rows.elements().chunks_exact(rows.stride()) {
            let mut padding = row[rows.columns()..].iter().copied().map(Into::into);
            assert!(padding.all(|x: f64| x == 0.0));
        }
    }

    /// Products read the padding, so nothing may ever write it.
    #[test]
    fn padding_stays_zero_at_every_width() {
        for isa in Isa::available() {
            let pool = Pool::new(isa, 1);
            for columns in 1..=70 {
                let x = Matrix::from_rows(&vec![0.5; 3 * columns], columns);
                let norm = LayerNorm::new(vec![1.0; columns], vec![1.0; columns], 1e-5);
                let mut wide = Matrix::zeros(3, columns);
                let mut short = Matrix::zeros(3, columns);
                let mut bytes = QuantisedMatrix::zeros(3, columns);
                let narrow = [
                    Narrow::Bf16(short.rows_mut(3)),
                    Narrow::Int8(bytes.rows_mut(3)),
                ];
                for narrow in narrow {
                    let f32 = wide.rows_mut(3);
                    layer_norm(&pool, x.rows(3), None, &norm, NormOutput { f32, narrow });
                }
                assert_padded(wide.rows(3));
                assert_padded(short.rows(3));
                assert_padded(bytes.rows(3).values);
            }
        }
    }
}
