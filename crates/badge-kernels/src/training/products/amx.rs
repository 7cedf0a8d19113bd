//! Gradients of weights on the tile unit: sixteen outputs times up to 48 inputs, summed over tokens
//! in the unit's registers.
//!
//! Both factors come packed: squares of sixteen pairs of tokens, of the left factor with an output a
//! row, of the right one with a pair a row.

use std::ops::Range;

use super::left::Pack;
use super::tile::Step;
use super::{BLOCK, TOKENS_AT_ONCE, WeightGradient};
use crate::amx::{self, ROW_BYTES, ROWS, Tiles, UNITS};
use crate::attention::transpose::transpose;
use crate::isa::Amx;
use crate::simd::{Operation, Simd};
use crate::training::Factor;

/// Units of 32 bits in a square.
const SQUARE: usize = ROWS * UNITS;

/// Outputs of a task at most. They share what it costs to pack the right factor; both factors stay in
/// the second-level cache of 2 MiB.
const OUTPUTS: usize = 4 * BLOCK;

/// Pairs of tokens that are summed in the unit.
const PAIRS: usize = (TOKENS_AT_ONCE / 2).next_multiple_of(UNITS);

/// Units of a thread's working memory.
pub(super) const SCRATCH: usize = (OUTPUTS + BLOCK) * PAIRS;

/// Tiles of the right factor side by side.
const ABREAST: usize = BLOCK / ROWS;

/// The sums of sixteen outputs and sixteen inputs.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Sums([[f32; UNITS]; ROWS]);

impl Sums {
    const ZERO: Self = Self([[0.0; UNITS]; ROWS]);
}

/// The unit, laid out for whole tiles.
struct Unit {
    _tiles: Tiles,
}

impl Unit {
    fn new(amx: Amx) -> Self {
        Self {
            _tiles: Tiles::with_rows(amx, [ROWS; 8]),
        }
    }
}

/// Products of all squares of the left factor with those of the right one, of which `right` holds
/// [`ABREAST`] sequences one after the other.
///
/// # Panics
/// When the right factor has another number of squares.
fn multiply(_: &Unit, left: &[[i32; SQUARE]], right: &[[i32; SQUARE]], sums: &mut [Sums; ABREAST]) {
    let squares = left.len();
    assert_eq!(right.len(), ABREAST * squares, "squares of both factors");
    let [first, second, third] = sums.each_mut().map(|sums| (&raw mut sums.0).cast::<u8>());
    // SAFETY: the tiles are laid out while the unit lives; a square has sixteen rows of 64 bytes, and
    // so have the sums.
    unsafe {
        amx::zero::<0>();
        amx::zero::<1>();
        amx::zero::<2>();
        for (index, square) in left.iter().enumerate() {
            let right = |tile: usize| right[tile * squares + index].as_ptr().cast::<u8>();
            amx::load::<3>(square.as_ptr().cast(), ROW_BYTES);
            amx::load::<4>(right(0), ROW_BYTES);
            amx::dot_bf16::<0, 3, 4>();
            amx::load::<5>(right(1), ROW_BYTES);
            amx::dot_bf16::<1, 3, 5>();
            amx::load::<6>(right(2), ROW_BYTES);
            amx::dot_bf16::<2, 3, 6>();
        }
        amx::store::<0>(first, ROW_BYTES);
        amx::store::<1>(second, ROW_BYTES);
        amx::store::<2>(third, ROW_BYTES);
    }
}

/// How many outputs a task of a product of so many has: no fewer tasks than threads.
pub(super) fn outputs_of_task(outputs: usize, threads: usize) -> usize {
    let fair = outputs.div_ceil(threads).next_multiple_of(BLOCK);
    fair.clamp(BLOCK, OUTPUTS)
}

impl WeightGradient<'_> {
    /// Adds to the rows of some outputs, at most [`outputs_of_task`].
    ///
    /// # Safety
    /// Nobody else uses these rows of the gradient and the worker's units at the same time.
    pub(super) unsafe fn block_by_unit(&self, amx: Amx, outputs: Range<usize>, worker: usize) {
        let k = self.x.columns();
        // SAFETY: the caller's promise.
        let units = unsafe { self.units.row(worker) };
        // SAFETY: the caller's promise.
        let gradient = unsafe { self.gradient.part(outputs.start * k..outputs.end * k) };
        let (left, right) = units.split_at_mut(OUTPUTS * PAIRS);
        let unit = Unit::new(amx);
        for tokens in self.parts() {
            let room = tokens.len().div_ceil(2).next_multiple_of(UNITS);
            for (index, start) in outputs.clone().step_by(BLOCK).enumerate() {
                let columns = start..outputs.end.min(start + BLOCK);
                let left = &mut left[index * BLOCK * room..][..BLOCK * room];
                self.pack(self.dy, (&tokens, columns), left);
                self.turn(left);
            }
            let (left, _) = left.as_chunks::<SQUARE>();
            for start in (0..k).step_by(BLOCK) {
                let columns = start..k.min(start + BLOCK);
                let right = &mut right[..BLOCK * room];
                self.pack(self.x, (&tokens, columns.clone()), right);
                for (tile, output) in (0..outputs.len()).step_by(ROWS).enumerate() {
                    let squares = room / UNITS;
                    let mut sums = [Sums::ZERO; ABREAST];
                    let left = &left[tile * squares..][..squares];
                    multiply(&unit, left, right.as_chunks().0, &mut sums);
                    let rows = output..outputs.len().min(output + ROWS);
                    self.isa.run(Add {
                        sums: &sums,
                        gradient: &mut gradient[rows.start * k..rows.end * k],
                        columns: columns.clone(),
                        row: k,
                    });
                }
            }
        }
    }

    /// Packs columns of a factor with sixteen units a step, as many squares as the tokens make.
    fn pack(
        &self,
        factor: Factor<'_>,
        (tokens, columns): (&Range<usize>, Range<usize>),
        units: &mut [i32],
    ) {
        self.isa.run(Pack {
            factor,
            tokens: tokens.clone(),
            outputs: columns,
            height: ROWS,
            step: Step::Pair,
            room: units.len() / BLOCK,
            units,
        });
    }

    /// Turns squares of a pair a row to squares of an output a row.
    fn turn(&self, units: &mut [i32]) {
        let (squares, _) = units.as_chunks_mut::<SQUARE>();
        let mut turned = [0; SQUARE];
        for square in squares {
            let rows = std::array::from_fn(|row| square[row * UNITS..].as_ptr());
            // SAFETY: each row has sixteen units.
            unsafe { transpose(self.isa, &rows, &mut turned, ROWS) };
            *square = turned;
        }
    }
}

/// Adds the sums of some outputs to the columns of their rows.
struct Add<'a> {
    sums: &'a [Sums; ABREAST],
    /// Whole rows.
    gradient: &'a mut [f32],
    columns: Range<usize>,
    /// Numbers of a row.
    row: usize,
}

impl Operation for Add<'_> {
    type Output = ();

    /// An operation for the sake of the compiler, which may use the instruction set.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (index, row) in self.gradient.chunks_exact_mut(self.row).enumerate() {
            let row = &mut row[self.columns.clone()];
            for (tile, part) in row.chunks_mut(UNITS).enumerate() {
                for (element, sum) in part.iter_mut().zip(&self.sums[tile].0[index]) {
                    *element += sum;
                }
            }
        }
    }
}
