//! Tiles with 256-bit vectors, sixteen columns at a time; portable code where there are fewer.
//!
//! The list of features must match `Avx2::new` in `isa.rs`.

#[allow(clippy::wildcard_imports, reason = "intrinsics carry their own prefix")]
use std::arch::x86_64::*;

use half::bf16;

use super::scalar::{self, Number};
use super::tile::{COLUMNS, TILE_OUTPUTS, Tile, TileFunction};
use crate::gemm::tile::heights;

/// 6 outputs x 2 vectors = 12 sums + 2 of the right factor + 1 of the left, of 16 registers.
pub(super) const OUTPUTS: usize = 6;

/// Numbers of the right factor, by vectors.
trait Columns: Number {
    /// Eight of them, as f32.
    ///
    /// # Safety
    /// The machine has the instructions, and the numbers may be read.
    unsafe fn load(right: *const Self) -> __m256;
}

impl Columns for f32 {
    #[inline(always)]
    unsafe fn load(right: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(right) }
    }
}

impl Columns for bf16 {
    #[inline(always)]
    unsafe fn load(right: *const bf16) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let units = _mm256_cvtepu16_epi32(_mm_loadu_si128(right.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(units))
        }
    }
}

pub(super) static F32: [TileFunction; TILE_OUTPUTS] = heights!(tile<f32>);
pub(super) static BF16: [TileFunction; TILE_OUTPUTS] = heights!(tile<bf16>);

#[target_feature(enable = "avx2,fma")]
unsafe fn tile<T: Columns, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`; a whole tile has two halves.
    unsafe {
        if tile.columns == COLUMNS {
            sums::<T, R>(tile, 0);
            sums::<T, R>(tile, COLUMNS / 2);
        } else {
            scalar::sums::<T, R>(tile);
        }
    }
}

/// The loop over tokens for sixteen columns from `column` on.
///
/// # Safety
/// As [`TileFunction`], with all columns, and `column` is 0 or 16.
#[inline(always)]
unsafe fn sums<T: Columns, const R: usize>(tile: &Tile, column: usize) {
    // SAFETY: factors and gradient have the sizes that `TileFunction` asks for; prefetches never
    // fault, wherever they point.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for token in 0..tile.tokens {
            let right = tile.right.add(token * tile.right_stride).cast::<T>();
            let (low, high) = (T::load(right.add(column)), T::load(right.add(column + 8)));
            _mm_prefetch::<_MM_HINT_T1>(tile.ahead.wrapping_add(token * tile.ahead_stride).cast());
            let left = tile.left.add(token * tile.left_stride).cast::<f32>();
            for (row, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_set1_ps(left.add(row).read());
                sums[0] = _mm256_fmadd_ps(left, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(left, high, sums[1]);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let gradient = tile.gradient.add(row * tile.gradient_stride + column);
            for (half, sums) in sums.into_iter().enumerate() {
                let gradient = gradient.add(half * 8);
                _mm256_storeu_ps(gradient, _mm256_add_ps(_mm256_loadu_ps(gradient), sums));
            }
        }
    }
}
