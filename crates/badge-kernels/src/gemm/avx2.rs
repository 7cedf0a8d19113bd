//! Tiles with 256-bit vectors, half a panel at a time.
//!
//! The list of features must match `Avx2::new` in `isa.rs`.

#[allow(clippy::wildcard_imports, reason = "intrinsics carry their own prefix")]
use std::arch::x86_64::*;

use super::tile::{GROUP_BYTES, PANEL, SCALED_GROUPS, TILE_ROWS, Tile, TileFunction, heights};

/// 6 rows x 2 vectors = 12 sums + 2 of the panel + 1 broadcast row element, of 16 registers.
pub(super) const ROWS: usize = 6;

/// `sums += row unit * panel units`, lane by lane.
trait Dot {
    /// # Safety
    /// The machine has the instructions.
    unsafe fn dot(sums: __m256i, row: __m256i, panel: __m256i) -> __m256i;
}

/// One f32 a unit.
struct F32Dot;
impl Dot for F32Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, row: __m256i, panel: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let (row, panel) = (_mm256_castsi256_ps(row), _mm256_castsi256_ps(panel));
            _mm256_castps_si256(_mm256_fmadd_ps(row, panel, _mm256_castsi256_ps(sums)))
        }
    }
}

/// Two bf16 a unit, widened to f32.
struct Bf16Dot;
impl Dot for Bf16Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, row: __m256i, panel: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let even = F32Dot::dot(
                sums,
                _mm256_slli_epi32::<16>(row),
                _mm256_slli_epi32::<16>(panel),
            );
            F32Dot::dot(
                even,
                _mm256_and_si256(row, high),
                _mm256_and_si256(panel, high),
            )
        }
    }
}

/// Four bytes a unit, u8 x i8, widened to 16 bits: the instruction for bytes would saturate.
struct Int8Dot;
impl Dot for Int8Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, row: __m256i, panel: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm256_set1_epi16(0x00ff);
            let row_even = _mm256_and_si256(row, low);
            let row_odd = _mm256_srli_epi16::<8>(row);
            let panel_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(panel));
            let panel_odd = _mm256_srai_epi16::<8>(panel);
            let even = _mm256_madd_epi16(row_even, panel_even);
            let odd = _mm256_madd_epi16(row_odd, panel_odd);
            _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
        }
    }
}

pub(super) static F32: [TileFunction; TILE_ROWS] = heights!(halves<F32Dot>);
pub(super) static BF16: [TileFunction; TILE_ROWS] = heights!(halves<Bf16Dot>);
pub(super) static INT8: [TileFunction; TILE_ROWS] = heights!(scaled_halves<Int8Dot>);

#[target_feature(enable = "avx2,fma")]
unsafe fn halves<D: Dot, const R: usize>(tile: &Tile) {
    for half in 0..2 {
        // SAFETY: the promises of `TileFunction`; a panel has two halves.
        unsafe { sums::<D, R>(tile, half * (PANEL / 2)) }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn scaled_halves<D: Dot, const R: usize>(tile: &Tile) {
    for half in 0..2 {
        // SAFETY: the promises of `TileFunction`; a panel has two halves.
        unsafe { scaled_sums::<D, R>(tile, half * (PANEL / 2)) }
    }
}

/// The loop over `K` of int8 for sixteen columns from `column` on: exact integers within a run,
/// then scaled and added in f32.
///
/// # Safety
/// As [`TileFunction`], and `column` is 0 or 16.
#[inline(always)]
unsafe fn scaled_sums<D: Dot, const R: usize>(tile: &Tile, column: usize) {
    // SAFETY: as in `sums`; there are 32 scales for every run that has begun.
    unsafe {
        let mut totals = [[_mm256_setzero_ps(); 2]; R];
        let mut start = 0;
        let mut scales = tile.scales.add(column);
        while start < tile.groups {
            let end = tile.groups.min(start + SCALED_GROUPS);
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for group in start..end {
                step::<D, R>(tile, (group, column), &mut sums);
            }
            let left = _mm256_load_ps(scales);
            let right = _mm256_load_ps(scales.add(8));
            for (totals, sums) in totals.iter_mut().zip(sums) {
                totals[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[0]), left, totals[0]);
                totals[1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[1]), right, totals[1]);
            }
            scales = scales.add(PANEL);
            start = end;
        }
        for (row, [left, right]) in totals.into_iter().enumerate() {
            let out = tile.sums.add(row * PANEL + column);
            _mm256_store_ps(out, left);
            _mm256_store_ps(out.add(8), right);
        }
    }
}

/// The loop over `K` for sixteen columns from `column` on.
///
/// # Safety
/// As [`TileFunction`], and `column` is 0 or 16.
#[inline(always)]
unsafe fn sums<D: Dot, const R: usize>(tile: &Tile, column: usize) {
    // SAFETY: rows, panel and sums have the sizes that `TileFunction` asks for; prefetches never
    // fault, wherever they point.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for group in 0..tile.groups {
            step::<D, R>(tile, (group, column), &mut sums);
        }
        for (row, [left, right]) in sums.into_iter().enumerate() {
            let out = tile.sums.add(row * PANEL + column);
            _mm256_store_si256(out.cast(), left);
            _mm256_store_si256(out.add(8).cast(), right);
        }
    }
}

/// One group of inputs for sixteen columns.
///
/// # Safety
/// As [`TileFunction`], `group < tile.groups`, and `column` is 0 or 16.
#[inline(always)]
unsafe fn step<D: Dot, const R: usize>(
    tile: &Tile,
    (group, column): (usize, usize),
    sums: &mut [[__m256i; 2]; R],
) {
    // SAFETY: as in `sums`.
    unsafe {
        let panel = tile.panel.add(group * GROUP_BYTES + column * 4);
        let left = _mm256_load_si256(panel.cast());
        let right = _mm256_load_si256(panel.add(32).cast());
        _mm_prefetch::<_MM_HINT_T1>(tile.ahead.wrapping_add(group * 64).cast());
        for (row, sums) in sums.iter_mut().enumerate() {
            let unit = tile.input.add(row * tile.input_stride + group * 4);
            let unit = _mm256_set1_epi32(unit.cast::<i32>().read_unaligned());
            sums[0] = D::dot(sums[0], unit, left);
            sums[1] = D::dot(sums[1], unit, right);
        }
    }
}
