//! Every kernel against the reference, on every instruction set of the machine, with one thread and
//! with several, within the bounds that its documentation states.

mod attention;
mod embedding;
mod gemm;
mod layer_norm;
mod narrow;
mod quantise;
mod training_activation;
mod training_attention;
mod training_dropout;
mod training_embedding;
mod training_layer_norm;
mod training_products;

use badge_kernels::isa::Isa;
use badge_kernels::matrix::{Matrix, Rows};
use badge_kernels::reference::Row;
use badge_kernels::threads::Pool;

/// Pools of one and of three threads for each instruction set.
fn pools() -> Vec<Pool> {
    let sets = Isa::available().into_iter();
    sets.flat_map(|isa| [1, 3].map(|threads| Pool::new(isa, threads)))
        .collect()
}

/// What to call a pool in a message.
fn name(pool: &Pool) -> String {
    format!("{}, {} threads", pool.isa(), pool.threads())
}

/// Lengths around every multiple of a vector up to twice the largest block of four, and some of
/// real models.
fn lengths() -> impl Iterator<Item = usize> {
    (1..=129).chain([312, 767, 768])
}

/// Numbers without order: the generator SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `-1..1`.
    fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Matrix<f32> {
        let mut matrix = Matrix::zeros(rows, columns);
        for i in 0..rows {
            matrix.row_mut(i).copy_from_slice(&self.numbers(columns));
        }
        matrix
    }
}

/// Numbers in -1..1, the same everywhere.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    Random(seed).numbers(count)
}

/// Asserts that each element is within `bound(row, column)` of what is expected.
fn assert_close(
    what: &str,
    actual: Rows<'_, f32>,
    expected: &[Row],
    bound: impl Fn(usize, usize) -> f64,
) {
    assert_eq!(actual.count(), expected.len(), "{what}: rows");
    for (i, expected) in expected.iter().enumerate() {
        assert_eq!(actual.columns(), expected.len(), "{what}: columns");
        for (j, (y, expected)) in actual.row(i).iter().zip(expected).enumerate() {
            let (error, bound) = ((f64::from(*y) - expected).abs(), bound(i, j));
            assert!(
                error <= bound,
                "{what}: {y} instead of {expected} at [{i}, {j}], error {error:e} > {bound:e}"
            );
        }
    }
}

/// The rows as bits, which tell -0 from 0 and compare NaN.
fn bits(rows: Rows<'_, f32>) -> Vec<Vec<u32>> {
    (0..rows.count())
        .map(|i| rows.row(i).iter().map(|x| x.to_bits()).collect())
        .collect()
}

/// A matrix full of a number that no kernel computes.
fn sentinels(rows: usize, columns: usize) -> Matrix<f32> {
    let mut matrix = Matrix::zeros(rows, columns);
    for i in 0..rows {
        matrix.row_mut(i).fill(SENTINEL);
    }
    matrix
}

const SENTINEL: f32 = -12345.0;

/// Asserts that rows from `first` on were not touched.
fn assert_untouched(what: &str, matrix: &Matrix<f32>, first: usize) {
    for i in first..matrix.row_count() {
        let row = matrix.row(i);
        assert!(row.iter().all(|x| *x == SENTINEL), "{what}: row {i}");
    }
}
