//! Rows of activations as bytes: `x ≈ scale (q - zero point)`.
//!
//! Each row has its own scale and zero point, found from its smallest and largest element at the
//! moment of use (dynamic quantisation). Only operations that IEEE 754 rounds the same way
//! everywhere are used, so the bytes are identical on every instruction set.

use std::ops::Range;

use half::bf16;

use crate::matrix::{Matrix, Rows, RowsMut, SharedRows, SharedSlice, for_each_row};
use crate::simd::{Operation, Simd};
use crate::threads::Pool;

/// Quantised rows that own their memory.
#[derive(Debug)]
pub struct QuantisedMatrix {
    values: Matrix<u8>,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
}

/// Quantised rows, to read.
#[derive(Debug, Clone, Copy)]
pub struct QuantisedRows<'a> {
    /// `q`
    pub values: Rows<'a, u8>,
    /// One a row.
    pub scales: &'a [f32],
    /// One a row, in `0..=255`.
    pub zero_points: &'a [i32],
}

/// Quantised rows, to write.
#[derive(Debug)]
pub struct QuantisedRowsMut<'a> {
    /// `q`
    pub values: RowsMut<'a, u8>,
    /// One a row.
    pub scales: &'a mut [f32],
    /// One a row.
    pub zero_points: &'a mut [i32],
}

impl QuantisedMatrix {
    /// `rows` rows of `columns` zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self {
            values: Matrix::zeros(rows, columns),
            scales: vec![1.0; rows],
            zero_points: vec![0; rows],
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.values.bytes() + size_of_val(&self.scales[..]) + size_of_val(&self.zero_points[..])
    }

    /// The first `count` rows.
    pub fn rows(&self, count: usize) -> QuantisedRows<'_> {
        QuantisedRows {
            values: self.values.rows(count),
            scales: &self.scales[..count],
            zero_points: &self.zero_points[..count],
        }
    }

    /// The first `count` rows, to write.
    pub fn rows_mut(&mut self, count: usize) -> QuantisedRowsMut<'_> {
        self.rows_in_mut(0..count)
    }

    /// The rows of a range, to write.
    pub fn rows_in_mut(&mut self, range: Range<usize>) -> QuantisedRowsMut<'_> {
        QuantisedRowsMut {
            values: self.values.rows_in_mut(range.clone()),
            scales: &mut self.scales[range.clone()],
            zero_points: &mut self.zero_points[range],
        }
    }

    /// Copies row `from` of `source` to row `to`.
    pub fn copy_row(&mut self, to: usize, source: &Self, from: usize) {
        self.values
            .row_mut(to)
            .copy_from_slice(source.values.row(from));
        self.scales[to] = source.scales[from];
        self.zero_points[to] = source.zero_points[from];
    }
}

/// Quantised rows that several threads write, each its own rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedQuantised {
    values: SharedRows<u8>,
    scales: SharedSlice<f32>,
    zero_points: SharedSlice<i32>,
}

impl QuantisedRowsMut<'_> {
    pub(crate) fn share(&mut self) -> SharedQuantised {
        let rows = self.values.count();
        assert!(self.scales.len() == rows && self.zero_points.len() == rows);
        SharedQuantised {
            values: self.values.share(),
            scales: SharedSlice::new(self.scales),
            zero_points: SharedSlice::new(self.zero_points),
        }
    }
}

impl SharedQuantised {
    /// Quantises `x` into row `index`.
    ///
    /// # Safety
    /// The rows are alive, and no other thread uses row `index` at the same time.
    #[inline(always)]
    pub(crate) unsafe fn write<S: Simd>(&self, s: S, index: usize, x: &[f32]) {
        // SAFETY: the caller's promise.
        let (values, scale, zero_point) = unsafe {
            let scale = self.scales.element(index);
            (
                self.values.row(index),
                scale,
                self.zero_points.element(index),
            )
        };
        (*scale, *zero_point) = quantise_row(s, x, values);
    }
}

/// Quantises one row.
#[inline(always)]
fn quantise_row<S: Simd>(s: S, x: &[f32], out: &mut [u8]) -> (f32, i32) {
    assert_eq!(x.len(), out.len());
    let (low, high) = extremes(s, x);
    let scale = match (high - low) / 255.0 {
        scale if scale >= f32::MIN_POSITIVE => scale,
        // All as good as zero. The inverse of a smaller scale could be infinite.
        _ => 1.0,
    };
    let inverse = 1.0 / scale;
    let zero_point = (-low * inverse).round_ties_even().clamp(0.0, 255.0);
    let factors = Factors {
        inverse: s.splat(inverse),
        zero_point: s.splat(zero_point),
    };
    let mut vectors = out.chunks_exact_mut(S::LANES);
    for (x, out) in x.chunks_exact(S::LANES).zip(&mut vectors) {
        s.store_u8(factors.apply(s, s.load(x)), out);
    }
    let rest = vectors.into_remainder();
    let x = s.load_part(&x[x.len() - rest.len()..], 0.0);
    s.store_u8(factors.apply(s, x), rest);
    (scale, zero_point as i32)
}

/// What turns a row into bytes.
struct Factors<V> {
    inverse: V,
    zero_point: V,
}

impl<V: Copy> Factors<V> {
    #[inline(always)]
    fn apply<S: Simd<F32 = V>>(&self, s: S, x: V) -> V {
        let q = s.add(s.round(s.mul(x, self.inverse)), self.zero_point);
        // In this order of arguments NaN becomes zero.
        s.min(s.max(q, s.splat(0.0)), s.splat(255.0))
    }
}

/// The smallest and the largest element, zero being one; NaN does not count.
#[inline(always)]
fn extremes<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    // Four of each, for one alone would wait for its last result at every step.
    let (mut low, mut high) = ([s.splat(0.0); 4], [s.splat(0.0); 4]);
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for block in &mut blocks {
        let both = low.iter_mut().zip(&mut high);
        for ((low, high), x) in both.zip(block.chunks_exact(S::LANES)) {
            let v = s.load(x);
            (*low, *high) = (s.min(v, *low), s.max(v, *high));
        }
    }
    for x in blocks.remainder().chunks(S::LANES) {
        let v = s.load_part(x, 0.0);
        (low[0], high[0]) = (s.min(v, low[0]), s.max(v, high[0]));
    }
    let low = s.min(s.min(low[0], low[1]), s.min(low[2], low[3]));
    let high = s.max(s.max(high[0], high[1]), s.max(high[2], high[3]));
    (s.smallest(low), s.largest(high))
}

/// Quantises every row of `x: [M, N]`, to the bit as [`crate::reference::quantise`] says.
///
/// NaN does not count for the range and becomes the byte 0. A row with an infinity, or whose range
/// is beyond f32, gets an infinite scale: it reads back as NaN.
///
/// # Accuracy
/// `|x - scale (q - zero point)| <= 0.5001 scale`.
///
/// # Panics
/// When shapes disagree.
pub fn quantise_rows(pool: &Pool, x: Rows<'_, f32>, mut out: QuantisedRowsMut<'_>) {
    assert_eq!(
        (x.count(), x.columns()),
        (out.values.count(), out.values.columns())
    );
    let out = out.share();
    let isa = pool.isa();
    for_each_row(pool, x.count(), &|index| {
        isa.run(QuantiseRow {
            x: x.row(index),
            index,
            out,
        });
    });
}

/// One row of [`quantise_rows`], which is the only one to write it.
struct QuantiseRow<'a> {
    x: &'a [f32],
    index: usize,
    out: SharedQuantised,
}

impl Operation for QuantiseRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: each row is one task.
        unsafe { self.out.write(simd, self.index, self.x) }
    }
}

/// Rounds a row to bf16.
#[inline(always)]
pub(crate) fn narrow_row<S: Simd>(s: S, x: &[f32], out: &mut [bf16]) {
    assert_eq!(x.len(), out.len());
    let mut vectors = out.chunks_exact_mut(S::LANES);
    for (x, out) in x.chunks_exact(S::LANES).zip(&mut vectors) {
        s.store_bf16(s.load(x), out);
    }
    let rest = vectors.into_remainder();
    s.store_bf16(s.load_part(&x[x.len() - rest.len()..], 0.0), rest);
}
