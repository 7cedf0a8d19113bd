//! The left factor in the order in which tiles read it: for each tile, step after step, the units of
//! its outputs side by side.

use std::ops::Range;

use half::bf16;

use super::tile::{Kernel, Step, TILE_OUTPUTS};
use crate::matrix::Rows;
use crate::simd::{Operation, Simd};
use crate::training::Factor;

/// Packs the columns `outputs` of some tokens: the units of tile `i` begin at `i * units_per_tile`.
pub(super) struct Pack<'a> {
    pub(super) factor: Factor<'a>,
    pub(super) tokens: Range<usize>,
    pub(super) outputs: Range<usize>,
    pub(super) kernel: Kernel,
    pub(super) units: &'a mut [i32],
}

impl Operation for Pack<'_> {
    type Output = ();

    /// An operation for the sake of the compiler, which may use the instruction set.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        match (self.factor, self.kernel.step) {
            (Factor::F32(rows), _) => self.tokens_of(rows, |x| x.to_bits() as i32),
            (Factor::Bf16(rows), Step::Token) => {
                self.tokens_of(rows, |x| i32::from(x.to_bits()) << 16);
            }
            (Factor::Bf16(rows), Step::Pair) => self.pairs_of(rows),
        }
    }
}

impl Pack<'_> {
    /// Units of a tile.
    fn units_per_tile(&self) -> usize {
        self.tokens.len().div_ceil(self.kernel.step.tokens()) * self.kernel.outputs
    }

    #[inline(always)]
    fn tokens_of<T: Copy>(self, rows: Rows<'_, T>, unit: impl Fn(T) -> i32) {
        let (height, tile_units) = (self.kernel.outputs, self.units_per_tile());
        for (step, token) in self.tokens.enumerate() {
            let row = &rows.row(token)[self.outputs.clone()];
            for (tile, row) in row.chunks(height).enumerate() {
                let units = &mut self.units[tile * tile_units + step * height..][..height];
                write(units, row, &unit);
            }
        }
    }

    #[inline(always)]
    fn pairs_of(self, rows: Rows<'_, bf16>) {
        let (height, tile_units) = (self.kernel.outputs, self.units_per_tile());
        let zeros = [bf16::ZERO; super::BLOCK];
        for (step, token) in self.tokens.clone().step_by(2).enumerate() {
            let even = &rows.row(token)[self.outputs.clone()];
            let odd = match token + 1 {
                next if next < self.tokens.end => &rows.row(next)[self.outputs.clone()],
                _ => &zeros[..even.len()],
            };
            for (tile, (even, odd)) in even.chunks(height).zip(odd.chunks(height)).enumerate() {
                let units = &mut self.units[tile * tile_units + step * height..][..height];
                write_pairs(units, even, odd);
            }
        }
    }
}

/// Writes the units of one token; a whole tile is compiled on its own.
#[inline(always)]
fn write<T: Copy>(units: &mut [i32], row: &[T], unit: &impl Fn(T) -> i32) {
    let whole = (
        <&mut [i32; TILE_OUTPUTS]>::try_from(&mut *units),
        <&[T; TILE_OUTPUTS]>::try_from(row),
    );
    if let (Ok(units), Ok(row)) = whole {
        for (to, from) in units.iter_mut().zip(row) {
            *to = unit(*from);
        }
    } else {
        for (to, from) in units.iter_mut().zip(row) {
            *to = unit(*from);
        }
    }
}

/// Writes the units of two tokens; a whole tile is compiled on its own.
#[inline(always)]
fn write_pairs(units: &mut [i32], even: &[bf16], odd: &[bf16]) {
    let pair = |even: &bf16, odd: &bf16| {
        (u32::from(even.to_bits()) | u32::from(odd.to_bits()) << 16) as i32
    };
    let whole = (
        <&mut [i32; TILE_OUTPUTS]>::try_from(&mut *units),
        <&[bf16; TILE_OUTPUTS]>::try_from(even),
        <&[bf16; TILE_OUTPUTS]>::try_from(odd),
    );
    if let (Ok(units), Ok(even), Ok(odd)) = whole {
        for ((to, even), odd) in units.iter_mut().zip(even).zip(odd) {
            *to = pair(even, odd);
        }
    } else {
        for ((to, even), odd) in units.iter_mut().zip(even).zip(odd) {
            *to = pair(even, odd);
        }
    }
}
