//! The left factor in the order in which tiles read it: for each tile, step after step, the units of
//! its outputs side by side. The tile unit wants the right factor so, and the left one turned.

use std::ops::Range;

use half::bf16;

use super::BLOCK;
use super::tile::{Step, TILE_OUTPUTS};
use crate::matrix::Rows;
use crate::simd::{Operation, Simd};
use crate::training::Factor;

/// Packs the columns `outputs` of some tokens, at most [`BLOCK`] of them: the units of tile `i` begin
/// at `i` times the room times the outputs of a tile. Outputs and steps beyond the last are zero.
pub(super) struct Pack<'a> {
    pub(super) factor: Factor<'a>,
    pub(super) tokens: Range<usize>,
    pub(super) outputs: Range<usize>,
    /// Outputs of a tile.
    pub(super) height: usize,
    pub(super) step: Step,
    /// Steps of a tile that there is room for; at least as many as the tokens make.
    pub(super) room: usize,
    pub(super) units: &'a mut [i32],
}

impl Operation for Pack<'_> {
    type Output = ();

    /// An operation for the sake of the compiler, which may use the instruction set.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        match self.height {
            TILE_OUTPUTS => self.tiles_of::<TILE_OUTPUTS>(),
            6 => self.tiles_of::<6>(),
            16 => self.tiles_of::<16>(),
            height => panic!("a tile of {height} outputs"),
        }
    }
}

impl Pack<'_> {
    #[inline(always)]
    fn tiles_of<const H: usize>(self) {
        match (self.factor, self.step) {
            (Factor::F32(rows), _) => self.tokens_of::<f32, H>(rows, |x| x.to_bits() as i32),
            (Factor::Bf16(rows), Step::Token) => {
                self.tokens_of::<bf16, H>(rows, |x| i32::from(x.to_bits()) << 16);
            }
            (Factor::Bf16(rows), Step::Pair) => self.pairs_of::<H>(rows),
        }
    }

    #[inline(always)]
    fn tokens_of<T: Copy + Default, const H: usize>(
        self,
        rows: Rows<'_, T>,
        unit: impl Fn(T) -> i32,
    ) {
        let (steps, room) = (self.tokens.len(), self.room);
        let units = &mut self.units.as_chunks_mut::<H>().0[..room * (BLOCK / H)];
        let mut padded = [T::default(); BLOCK];
        for (step, token) in self.tokens.enumerate() {
            let row = whole(&rows.row(token)[self.outputs.clone()], &mut padded);
            write(units, room, step, &row.map(&unit));
        }
        for step in steps..room {
            write(units, room, step, &[0; BLOCK]);
        }
    }

    #[inline(always)]
    fn pairs_of<const H: usize>(self, rows: Rows<'_, bf16>) {
        let (steps, room) = (self.tokens.len().div_ceil(2), self.room);
        let units = &mut self.units.as_chunks_mut::<H>().0[..room * (BLOCK / H)];
        let mut padded = [[bf16::ZERO; BLOCK]; 2];
        let nothing = [bf16::ZERO; BLOCK];
        for (step, token) in self.tokens.clone().step_by(2).enumerate() {
            let [even_padded, odd_padded] = &mut padded;
            let even = whole(&rows.row(token)[self.outputs.clone()], even_padded);
            let odd = if token + 1 < self.tokens.end {
                whole(&rows.row(token + 1)[self.outputs.clone()], odd_padded)
            } else {
                &nothing
            };
            let pair = |i: usize| {
                (u32::from(even[i].to_bits()) | u32::from(odd[i].to_bits()) << 16) as i32
            };
            let pairs: [i32; BLOCK] = std::array::from_fn(pair);
            write(units, room, step, &pairs);
        }
        for step in steps..room {
            write(units, room, step, &[0; BLOCK]);
        }
    }
}

/// The row, or a copy of it with zeros behind where it is shorter than a block.
#[inline(always)]
fn whole<'a, T: Copy>(row: &'a [T], padded: &'a mut [T; BLOCK]) -> &'a [T; BLOCK] {
    if let Ok(row) = row.try_into() {
        return row;
    }
    padded[..row.len()].copy_from_slice(row);
    padded
}

/// Writes the units of one step, each tile's to its place.
#[inline(always)]
fn write<const H: usize>(units: &mut [[i32; H]], room: usize, step: usize, row: &[i32; BLOCK]) {
    for (tile, row) in row.as_chunks::<H>().0.iter().enumerate() {
        units[tile * room + step] = *row;
    }
}
