//! From the sums of a tile to the output: scales, bias, activation, residual, rounding.

use std::ops::Range;

use half::bf16;

use super::tile::{Buffer, PANEL};
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
    /// The row of the buffer that belongs to the first row of the output.
    pub(super) first: usize,
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
        let columns = &self.finish.columns;
        for row in 0..self.finish.rows.len() {
            let target = self.finish.rows.start + row;
            match &self.finish.destination {
                Destination::F32(out) => {
                    // SAFETY: `Finish::run` was promised that nobody else writes this part.
                    let out = unsafe { out.part(target, columns.clone()) };
                    self.row(function, row, out);
                }
                Destination::Bf16(out) => {
                    // SAFETY: as above.
                    let out = unsafe { out.part(target, columns.clone()) };
                    self.row(function, row, out);
                }
            }
        }
    }
}

/// Numbers that an output consists of.
trait Stored: Sized {
    /// Writes `out.len()` lanes.
    fn store<S: Simd>(simd: S, y: S::F32, out: &mut [Self]);
}

impl Stored for f32 {
    #[inline(always)]
    fn store<S: Simd>(simd: S, y: S::F32, out: &mut [Self]) {
        simd.store_part(y, out);
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn store<S: Simd>(simd: S, y: S::F32, out: &mut [Self]) {
        simd.store_bf16(y, out);
    }
}

/// What one row of a tile needs, each for the columns of the tile.
struct RowParts<'a> {
    sums: RowSums<'a>,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
}

enum RowSums<'a> {
    Floats(&'a [f32]),
    Integers {
        integers: &'a [i32],
        sums: &'a [i32],
        scales: &'a [f32],
        row_scale: f32,
        zero_point: i32,
    },
}

impl<S: Simd> Writer<'_, S> {
    /// One row of the tile. A full panel is compiled on its own: with a width known to the compiler
    /// its vectors need no masks, which halves the time of this function.
    #[inline(always)]
    fn row<F: Function, T: Stored>(&self, function: F, row: usize, out: &mut [T]) {
        let parts = self.parts(row);
        if let Ok(out) = <&mut [T; PANEL]>::try_from(&mut *out) {
            for (index, out) in out.chunks_exact_mut(S::LANES).enumerate() {
                let start = index * S::LANES;
                let y = self.value(function, &parts, start..start + S::LANES);
                T::store(self.simd, y, out);
            }
        } else {
            for (index, out) in out.chunks_mut(S::LANES).enumerate() {
                let start = index * S::LANES;
                let y = self.value(function, &parts, start..start + out.len());
                T::store(self.simd, y, out);
            }
        }
    }

    #[inline(always)]
    fn parts(&self, row: usize) -> RowParts<'_> {
        let finish = self.finish;
        let sums = match finish.sums {
            Sums::Floats => RowSums::Floats(finish.buffer.floats(finish.first + row)),
            Sums::Integers {
                scales,
                sums,
                row_scales,
                zero_points,
            } => RowSums::Integers {
                integers: finish.buffer.integers(finish.first + row),
                sums,
                scales,
                row_scale: row_scales[row],
                zero_point: zero_points[row],
            },
        };
        RowParts {
            sums,
            bias: finish.bias,
            residual: finish.residual.map(|r| r.row(finish.rows.start + row)),
        }
    }

    /// The outputs of some columns of the tile, at most a vector of them.
    #[inline(always)]
    fn value<F: Function>(
        &self,
        function: F,
        parts: &RowParts<'_>,
        columns: Range<usize>,
    ) -> S::F32 {
        let simd = self.simd;
        let mut y = match &parts.sums {
            RowSums::Floats(floats) => simd.load_part(&floats[columns.clone()], 0.0),
            RowSums::Integers {
                integers,
                sums,
                scales,
                row_scale,
                zero_point,
            } => {
                let integers = &integers[columns.clone()];
                let whole = simd.without_zero_point(integers, &sums[columns.clone()], *zero_point);
                let scale = simd.load_part(&scales[columns.clone()], 0.0);
                simd.mul(whole, simd.mul(scale, simd.splat(*row_scale)))
            }
        };
        if let Some(bias) = parts.bias {
            y = simd.add(y, simd.load_part(&bias[columns.clone()], 0.0));
        }
        y = function.apply(simd, y);
        if let Some(residual) = parts.residual {
            y = simd.add(y, simd.load_part(&residual[columns], 0.0));
        }
        y
    }
}
