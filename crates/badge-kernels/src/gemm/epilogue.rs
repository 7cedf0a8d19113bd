//! From the sums of a tile to the output: scales, bias, activation, residual, rounding.

use std::ops::Range;

use half::bf16;

use super::tile::Buffer;
use crate::activation::{Activation, Function, Visitor};
use crate::isa::Isa;
use crate::matrix::{Rows, SharedRows};
use crate::simd::{Operation, Simd};

/// The output as all threads share it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Destination {
    F32(SharedRows<f32>),
    Bf16(SharedRows<bf16>),
}

/// What the buffer holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sums<'a> {
    /// f32, ready for use.
    Floats,
    /// i32 of quantised factors: `scale of the row * scale of the output * (sum - zero point *
    /// sum of the output's values)`.
    Integers {
        scales: &'a [f32],
        sums: &'a [i32],
        row_scales: &'a [f32],
        zero_points: &'a [i32],
    },
}

/// A tile on its way out.
#[derive(Debug)]
pub(super) struct Finish<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) sums: Sums<'a>,
    /// Rows of the output.
    pub(super) rows: Range<usize>,
    /// Columns of the output, at most a panel.
    pub(super) columns: Range<usize>,
    /// Of these columns.
    pub(super) bias: Option<&'a [f32]>,
    /// Of these columns.
    pub(super) residual: Option<Rows<'a, f32>>,
    pub(super) destination: Destination,
}

impl Finish<'_> {
    /// Computes and writes the outputs.
    ///
    /// # Safety
    /// No other thread writes these rows and columns at the same time.
    pub(super) unsafe fn run(&self, isa: Isa, activation: Activation) {
        isa.run(FinishWith {
            finish: self,
            activation,
        });
    }
}

/// The operation; only [`Finish::run`] makes one, so its caller's promise holds.
struct FinishWith<'a> {
    finish: &'a Finish<'a>,
    activation: Activation,
}

impl Operation for FinishWith<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.activation.visit(Writer {
            simd,
            finish: self.finish,
        });
    }
}

/// Knows the vectors and, once visited, the activation.
struct Writer<'a, S> {
    simd: S,
    finish: &'a Finish<'a>,
}

impl<S: Simd> Visitor for Writer<'_, S> {
    type Output = ();

    #[inline(always)]
    fn visit<F: Function>(self, function: F) {
        let Finish { rows, columns, .. } = self.finish;
        for row in 0..rows.len() {
            match &self.finish.destination {
                Destination::F32(out) => {
                    // SAFETY: `Finish::run` was promised that nobody else writes this part.
                    let out = unsafe { out.part(rows.start + row, columns.clone()) };
                    for (index, out) in out.chunks_mut(S::LANES).enumerate() {
                        let y = self.value(function, row, index * S::LANES, out.len());
                        self.simd.store_part(y, out);
                    }
                }
                Destination::Bf16(out) => {
                    // SAFETY: as above.
                    let out = unsafe { out.part(rows.start + row, columns.clone()) };
                    for (index, out) in out.chunks_mut(S::LANES).enumerate() {
                        let y = self.value(function, row, index * S::LANES, out.len());
                        self.simd.store_bf16(y, out);
                    }
                }
            }
        }
    }
}

impl<S: Simd> Writer<'_, S> {
    /// `lanes` outputs of tile row `row` from column `start` of the tile on.
    #[inline(always)]
    fn value<F: Function>(&self, function: F, row: usize, start: usize, lanes: usize) -> S::F32 {
        let (simd, finish) = (self.simd, self.finish);
        let columns = start..start + lanes;
        let mut y = match finish.sums {
            Sums::Floats => simd.load_part(&finish.buffer.floats(row)[columns.clone()], 0.0),
            Sums::Integers {
                scales,
                sums,
                row_scales,
                zero_points,
            } => {
                let integers = &finish.buffer.integers(row)[columns.clone()];
                let sums = &sums[columns.clone()];
                let whole = simd.without_zero_point(integers, sums, zero_points[row]);
                let scale = simd.load_part(&scales[columns.clone()], 0.0);
                simd.mul(whole, simd.mul(scale, simd.splat(row_scales[row])))
            }
        };
        if let Some(bias) = finish.bias {
            y = simd.add(y, simd.load_part(&bias[columns.clone()], 0.0));
        }
        y = function.apply(simd, y);
        if let Some(residual) = finish.residual {
            let row = residual.row(finish.rows.start + row);
            y = simd.add(y, simd.load_part(&row[columns], 0.0));
        }
        y
    }
}
