//! Products with few outputs, as classifiers and the first half of a bypass are.
//!
//! [`crate::gemm`] pads outputs to a panel of 32, so that two outputs read sixteen times their
//! weights; an exit with a single row then waits for memory. Here weights lie as in checkpoints, an
//! output a row, and each element of the result is one dot product.

use crate::activation::{Activation, Function, Visitor};
use crate::matrix::{Matrix, Rows, RowsMut, SharedRows, for_each_row};
use crate::simd::{Operation, Simd};
use crate::threads::Pool;

/// Outputs that share the loads of a row of `X`.
const ABREAST: usize = 4;

/// `Y = g(X Wᵀ + b)` in f32, for a `W` of few rows.
///
/// Each element is summed in an order that `K` alone decides, so neither neighbours nor threads
/// change a bit of it.
///
/// # Shapes
/// `X: [M, K]`, `W: [N, K]`, `b: [N]`, `Y: [M, N]`.
///
/// # Accuracy
/// Within `2⁻²⁴ (K / 8 + 8) Σ|x w|` of the exact product.
///
/// # Panics
/// When shapes disagree.
pub fn narrow_product(
    pool: &Pool,
    x: Rows<'_, f32>,
    weights: &Matrix<f32>,
    (bias, activation): (Option<&[f32]>, Activation),
    mut out: RowsMut<'_, f32>,
) {
    let (m, n) = (x.count(), weights.row_count());
    assert_eq!(x.columns(), weights.columns(), "inputs of the weights");
    assert_eq!(
        (out.count(), out.columns()),
        (m, n),
        "output of another shape"
    );
    assert!(bias.is_none_or(|bias| bias.len() == n), "bias of {n}");
    let out = out.share();
    let isa = pool.isa();
    for_each_row(pool, m, &|index| {
        isa.run(NarrowRow {
            x: x.row(index),
            index,
            weights,
            bias,
            activation,
            out,
        });
    });
}

/// One row of [`narrow_product`], which is the only one to write it.
struct NarrowRow<'a> {
    x: &'a [f32],
    index: usize,
    weights: &'a Matrix<f32>,
    bias: Option<&'a [f32]>,
    activation: Activation,
    out: SharedRows<f32>,
}

impl Operation for NarrowRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: each row is one task.
        let out = unsafe { self.out.row(self.index) };
        for (index, out) in out.chunks_mut(ABREAST).enumerate() {
            let first = index * ABREAST;
            // A short last group computes its last output more than once.
            let rows = std::array::from_fn(|i| self.weights.row(first + i.min(out.len() - 1)));
            out.copy_from_slice(&dots(s, self.x, rows)[..out.len()]);
        }
        self.activation.visit(Finish {
            simd: s,
            bias: self.bias,
            out,
        });
    }
}

/// `x · w` for [`ABREAST`] rows `w`; even and odd vectors are summed apart, for one sum alone would
/// wait for its last addition.
#[inline(always)]
fn dots<S: Simd>(s: S, x: &[f32], w: [&[f32]; ABREAST]) -> [f32; ABREAST] {
    let mut sums = [[s.splat(0.0); ABREAST]; 2];
    let full = x.len() - x.len() % (2 * S::LANES);
    for start in (0..full).step_by(2 * S::LANES) {
        for (half, sums) in sums.iter_mut().enumerate() {
            let place = start + half * S::LANES..start + (half + 1) * S::LANES;
            let v = s.load(&x[place.clone()]);
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = s.mul_add(v, s.load(&w[place.clone()]), *sum);
            }
        }
    }
    for start in (full..x.len()).step_by(S::LANES) {
        let place = start..x.len().min(start + S::LANES);
        let v = s.load_part(&x[place.clone()], 0.0);
        for (sum, w) in sums[0].iter_mut().zip(w) {
            *sum = s.mul_add(v, s.load_part(&w[place.clone()], 0.0), *sum);
        }
    }
    std::array::from_fn(|i| s.sum(s.add(sums[0][i], sums[1][i])))
}

/// Adds the bias and applies the activation.
struct Finish<'a, S> {
    simd: S,
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl<S: Simd> Visitor for Finish<'_, S> {
    type Output = ();

    #[inline(always)]
    fn visit<F: Function>(self, function: F) {
        let s = self.simd;
        for (index, out) in self.out.chunks_mut(S::LANES).enumerate() {
            let mut y = s.load_part(out, 0.0);
            if let Some(bias) = self.bias {
                y = s.add(y, s.load_part(&bias[index * S::LANES..][..out.len()], 0.0));
            }
            s.store_part(function.apply(s, y), out);
        }
    }
}
