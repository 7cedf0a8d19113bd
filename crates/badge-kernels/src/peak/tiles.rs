//! Loops of the tile unit's products.

use super::Load;
use crate::amx::{self, ROWS, Tiles, UNITS};
use crate::isa::Amx;

/// Independent sums: a product takes sixteen cycles and its result is there after 52, so four would
/// do; six leave a tile for either factor.
const SUMS: usize = 6;

/// Products of tiles of bf16: pairs in each of 16 units for 16 x 16 sums.
pub(super) struct Bf16Tiles(pub(super) Amx);

impl Load for Bf16Tiles {
    fn amount(&self) -> f64 {
        (SUMS * ROWS * UNITS * UNITS * 4) as f64
    }

    fn work(&self, _worker: usize, rounds: u64) {
        let _tiles = Tiles::with_rows(self.0, [ROWS; 8]);
        // SAFETY: all tiles are laid out with sixteen rows, and hold zeros.
        unsafe {
            for _ in 0..rounds {
                amx::dot_bf16::<0, 6, 7>();
                amx::dot_bf16::<1, 6, 7>();
                amx::dot_bf16::<2, 6, 7>();
                amx::dot_bf16::<3, 6, 7>();
                amx::dot_bf16::<4, 6, 7>();
                amx::dot_bf16::<5, 6, 7>();
            }
        }
    }
}

/// Products of tiles of int8: four bytes in each of 16 units for 16 x 16 sums.
pub(super) struct Int8Tiles(pub(super) Amx);

impl Load for Int8Tiles {
    fn amount(&self) -> f64 {
        (SUMS * ROWS * UNITS * UNITS * 8) as f64
    }

    fn work(&self, _worker: usize, rounds: u64) {
        let _tiles = Tiles::with_rows(self.0, [ROWS; 8]);
        // SAFETY: all tiles are laid out with sixteen rows, and hold zeros.
        unsafe {
            for _ in 0..rounds {
                amx::dot_u8_i8::<0, 6, 7>();
                amx::dot_u8_i8::<1, 6, 7>();
                amx::dot_u8_i8::<2, 6, 7>();
                amx::dot_u8_i8::<3, 6, 7>();
                amx::dot_u8_i8::<4, 6, 7>();
                amx::dot_u8_i8::<5, 6, 7>();
            }
        }
    }
}
