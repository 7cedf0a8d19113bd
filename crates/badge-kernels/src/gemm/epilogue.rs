//! From the sums of a tile to the output: scales, bias, activation, residual, rounding.

use std::ops::Range;

use half::bf16;

use super::tile::{Buffer, PANEL};
use crate::activation::{Activation, Function, Visitor};
use crate::isa::Isa;
use crate::matrix::{Rows, SharedRows};
use crate::simd::{Number, Operation, Simd};

/// The output as all threads share it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Destination {
    F32(SharedRows<f32>),
    Bf16(SharedRows<bf16>),
}

impl Destination {
    /// Asks for the cache lines of a tile's part of the output.
    #[inline(always)]
    pub(super) fn ask_for(&self, row: usize, columns: &Range<usize>) {
        match self {
            Self::F32(rows) => rows.ask_for(row, columns),
            Self::Bf16(rows) => rows.ask_for(row, columns),
        }
    }
}

/// What the buffer holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sums<'a> {
    /// The product.
    Plain,
    /// Sums over `q` and scaled weights: the product is `scale of the row * (sum - zero point * sum
    /// of the output's weights)`.
    Quantised {
        /// Of these columns.
        weight_sums: &'a [f32],
        /// Of these rows.
        scales: &'a [f32],
        /// Of these rows.
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

/// What one row of a tile needs, each for the columns of the tile.
struct RowParts<'a> {
    sums: RowSums<'a>,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
}

struct RowSums<'a> {
    sums: &'a [f32],
    quantised: Option<QuantisedRow<'a>>,
}

struct QuantisedRow<'a> {
    weight_sums: &'a [f32],
    scale: f32,
    zero_point: f32,
}

impl<S: Simd> Writer<'_, S> {
    /// One row of the tile. A full panel is compiled on its own: with a width known to the compiler
    /// its vectors need no masks.
    #[inline(always)]
    fn row<F: Function, T: Number>(&self, function: F, row: usize, out: &mut [T]) {
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
        let quantised = match finish.sums {
            Sums::Plain => None,
            Sums::Quantised {
                weight_sums,
                scales,
                zero_points,
            } => Some(QuantisedRow {
                weight_sums,
                scale: scales[row],
                zero_point: zero_points[row] as f32,
            }),
        };
        let sums = RowSums {
            sums: finish.buffer.row(finish.first + row),
            quantised,
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
        let mut y = simd.load_part(&parts.sums.sums[columns.clone()], 0.0);
        if let Some(row) = &parts.sums.quantised {
            let weights = simd.load_part(&row.weight_sums[columns.clone()], 0.0);
            y = simd.mul_add(simd.splat(-row.zero_point), weights, y);
            y = simd.mul(y, simd.splat(row.scale));
        }
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
