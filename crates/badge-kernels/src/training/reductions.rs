//! Sums over many numbers, in an order that does not depend on the number of threads.

use std::ops::Range;

use super::Factor;
use crate::matrix::{Rows, SharedSlice};
use crate::simd::{Number, Operation, Simd};
use crate::threads::{Pool, Task};

/// Columns of a task: a row's part is long enough for the hardware to see it coming.
const COLUMNS: usize = 192;

/// Vectors whose sums stay in registers.
const VECTORS: usize = 12;

/// `G ← G + Σ_t dY[t]`, the gradient of the bias of `Y = X Wᵀ + b`.
///
/// # Shapes
/// `dY: [T, N]`, `gradient: [N]`.
///
/// # Accuracy
/// Sums in f32 and in the order of tokens, so within `2⁻²⁴ (T + 2) (Σ|dy| + |g|)` of the exact result.
///
/// # Panics
/// When shapes disagree.
pub fn bias_gradient(pool: &Pool, dy: Factor<'_>, gradient: &mut [f32]) {
    let n = dy.columns();
    assert_eq!(n, gradient.len(), "columns and gradient");
    let gradient = SharedSlice::new(gradient);
    pool.run(n.div_ceil(COLUMNS), &|Task { index, .. }| {
        let columns = index * COLUMNS..n.min((index + 1) * COLUMNS);
        // SAFETY: these columns are one task.
        let gradient = unsafe { gradient.part(columns.clone()) };
        match dy {
            Factor::F32(rows) => pool.isa().run(SumRows {
                rows: rows.slice(columns),
                gradient,
            }),
            Factor::Bf16(rows) => pool.isa().run(SumRows {
                rows: rows.slice(columns),
                gradient,
            }),
        }
    });
}

/// Adds all rows to the gradient.
struct SumRows<'a, T> {
    rows: Rows<'a, T>,
    gradient: &'a mut [f32],
}

impl<T: Number> Operation for SumRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = VECTORS * S::LANES;
        let mut start = 0;
        while start + whole <= self.gradient.len() {
            let mut sums = [s.splat(0.0); VECTORS];
            for token in 0..self.rows.count() {
                let row = &self.rows.row(token)[start..start + whole];
                for (sum, dy) in sums.iter_mut().zip(row.chunks_exact(S::LANES)) {
                    *sum = s.add(*sum, T::load(s, dy));
                }
            }
            let gradient = self.gradient[start..start + whole].chunks_exact_mut(S::LANES);
            for (gradient, sum) in gradient.zip(sums) {
                s.store(s.add(s.load(gradient), sum), gradient);
            }
            start += whole;
        }
        for (index, gradient) in self.gradient[start..].chunks_mut(S::LANES).enumerate() {
            let start = start + index * S::LANES;
            let columns = start..start + gradient.len();
            let mut sum = s.splat(0.0);
            for token in 0..self.rows.count() {
                sum = s.add(sum, T::load(s, &self.rows.row(token)[columns.clone()]));
            }
            s.store_part(s.add(s.load_part(gradient, 0.0), sum), gradient);
        }
    }
}

/// Parts that a sum of squares is made of, whatever the number of threads.
const PARTS: usize = 64;

/// Sums that grow side by side.
const SUMS: usize = 32;

/// `Σ xᵢ²`, in f64. The same bits on every instruction set and with any number of threads; not finite
/// where a number is not.
pub fn sum_of_squares(pool: &Pool, x: &[f32]) -> f64 {
    let mut sums = [0.0; PARTS];
    let shared = SharedSlice::new(&mut sums);
    pool.run(PARTS, &|Task { index, .. }| {
        let part: Range<usize> = x.len() * index / PARTS..x.len() * (index + 1) / PARTS;
        // SAFETY: each part is one task.
        let sum = unsafe { shared.element(index) };
        *sum = pool.isa().run(Squares(&x[part]));
    });
    sums.iter().sum()
}

/// The sum of the squares of one part. Plain arithmetic that compilers turn into vectors: no two
/// instruction sets round differently.
struct Squares<'a>(&'a [f32]);

impl Operation for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut sums = [0.0_f64; SUMS];
        let (blocks, rest) = self.0.as_chunks::<SUMS>();
        for block in blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                let x = f64::from(*x);
                *sum += x * x;
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            let x = f64::from(*x);
            *sum += x * x;
        }
        sums.iter().sum()
    }
}
