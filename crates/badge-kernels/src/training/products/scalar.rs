//! Tiles in portable code, for other machines and for what vectors leave at the right edge.

use half::bf16;

use super::tile::{COLUMNS, TILE_OUTPUTS, Tile, TileFunction};
use crate::gemm::tile::heights;

/// Numbers of the right factor.
pub(super) trait Number: Copy {
    /// Its value.
    fn value(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

pub(super) static F32: [TileFunction; TILE_OUTPUTS] = heights!(sums<f32>);
pub(super) static BF16: [TileFunction; TILE_OUTPUTS] = heights!(sums<bf16>);

/// # Safety
/// As [`TileFunction`].
pub(super) unsafe fn sums<T: Number, const R: usize>(tile: &Tile) {
    let mut sums = [[0.0_f32; COLUMNS]; R];
    for token in 0..tile.tokens {
        // SAFETY: the promises of `TileFunction`.
        let (left, right) = unsafe {
            let left = tile
                .left
                .add(token * tile.left_stride)
                .cast::<[f32; R]>()
                .read();
            let right = tile.right.add(token * tile.right_stride).cast::<T>();
            (left, std::slice::from_raw_parts(right, tile.columns))
        };
        for (sums, left) in sums.iter_mut().zip(left) {
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum += left * right.value();
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: as above; nobody else uses these numbers.
        let gradient = unsafe {
            let start = tile.gradient.add(row * tile.gradient_stride);
            std::slice::from_raw_parts_mut(start, tile.columns)
        };
        for (gradient, sum) in gradient.iter_mut().zip(sums) {
            *gradient += sum;
        }
    }
}
