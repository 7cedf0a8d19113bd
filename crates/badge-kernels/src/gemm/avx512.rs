//! Tiles with 512-bit vectors.
//!
//! One text for all precisions: a [`Dot`] says how a unit of 32 bits of a row meets sixteen units of
//! a panel. The lists of features must match `Avx512::new` in `isa.rs`.

#[allow(clippy::wildcard_imports, reason = "intrinsics carry their own prefix")]
use std::arch::x86_64::*;

use super::tile::{
    GROUP_BYTES, PANEL, SCALED_GROUPS, TILE_ROWS, Tile, TileFunction, WIDE, heights, widths,
};

/// How many groups ahead of their use a single row asks for the cache lines of its panels. Higher
/// tiles ask for none of their own panel: they give the hardware time enough to see the stream.
const AHEAD: usize = 8 * GROUP_BYTES;

/// `sums += row unit * panel units`, lane by lane.
trait Dot {
    /// # Safety
    /// The machine has the instructions.
    unsafe fn dot(sums: __m512i, row: __m512i, panel: __m512i) -> __m512i;
}

/// One f32 a unit.
struct F32Dot;
impl Dot for F32Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m512i, row: __m512i, panel: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let (row, panel) = (_mm512_castsi512_ps(row), _mm512_castsi512_ps(panel));
            _mm512_castps_si512(_mm512_fmadd_ps(row, panel, _mm512_castsi512_ps(sums)))
        }
    }
}

/// Two bf16 a unit, by the dot-product instruction.
struct Bf16Dot;
impl Dot for Bf16Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m512i, row: __m512i, panel: __m512i) -> __m512i {
        // SAFETY: the caller's promise; both types are 512 plain bits.
        unsafe {
            let (row, panel): (__m512bh, __m512bh) = (
                std::mem::transmute::<__m512i, __m512bh>(row),
                std::mem::transmute::<__m512i, __m512bh>(panel),
            );
            _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sums), row, panel))
        }
    }
}

/// Two bf16 a unit, widened to f32, on machines without the instruction.
struct Bf16ByF32Dot;
impl Dot for Bf16ByF32Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m512i, row: __m512i, panel: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let even = F32Dot::dot(
                sums,
                _mm512_slli_epi32::<16>(row),
                _mm512_slli_epi32::<16>(panel),
            );
            F32Dot::dot(
                even,
                _mm512_and_si512(row, high),
                _mm512_and_si512(panel, high),
            )
        }
    }
}

/// Four bytes a unit, u8 x i8, by the dot-product instruction, which does not saturate.
struct Int8Dot;
impl Dot for Int8Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m512i, row: __m512i, panel: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpbusd_epi32(sums, row, panel) }
    }
}

/// Four bytes a unit, widened to 16 bits: the instruction for bytes would saturate.
struct Int8ByI16Dot;
impl Dot for Int8ByI16Dot {
    #[inline(always)]
    unsafe fn dot(sums: __m512i, row: __m512i, panel: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm512_set1_epi16(0x00ff);
            let row_even = _mm512_and_si512(row, low);
            let row_odd = _mm512_srli_epi16::<8>(row);
            let panel_even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(panel));
            let panel_odd = _mm512_srai_epi16::<8>(panel);
            let even = _mm512_madd_epi16(row_even, panel_even);
            let odd = _mm512_madd_epi16(row_odd, panel_odd);
            _mm512_add_epi32(sums, _mm512_add_epi32(even, odd))
        }
    }
}

pub(super) static F32: [TileFunction; TILE_ROWS] = heights!(plain<F32Dot>);
pub(super) static BF16: [TileFunction; TILE_ROWS] = heights!(with_bf16<Bf16Dot>);
pub(super) static BF16_BY_F32: [TileFunction; TILE_ROWS] = heights!(plain<Bf16ByF32Dot>);
pub(super) static INT8: [TileFunction; TILE_ROWS] = heights!(scaled_with_vnni<Int8Dot>);
pub(super) static INT8_BY_I16: [TileFunction; TILE_ROWS] = heights!(scaled<Int8ByI16Dot>);

pub(super) static F32_WIDE: [TileFunction; WIDE] = widths!(plain_wide<F32Dot>);
pub(super) static BF16_WIDE: [TileFunction; WIDE] = widths!(wide_with_bf16<Bf16Dot>);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn plain_wide<D: Dot, const W: usize>(tile: &Tile) {
    // SAFETY: the promises of a wide `TileFunction`.
    unsafe { wide_sums::<D, W>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
unsafe fn wide_with_bf16<D: Dot, const W: usize>(tile: &Tile) {
    // SAFETY: the promises of a wide `TileFunction`.
    unsafe { wide_sums::<D, W>(tile) }
}

/// One row times `W` panels: with four, eight independent sums where one panel has two, which would leave
/// the units idle for most of the four to six cycles that a multiply-add takes. The additions of
/// each sum come in the same order as in a higher tile.
///
/// # Safety
/// As a wide [`TileFunction`].
#[inline(always)]
unsafe fn wide_sums<D: Dot, const W: usize>(tile: &Tile) {
    // SAFETY: row, panels and sums have the sizes that a wide `TileFunction` asks for; prefetches
    // never fault.
    unsafe {
        let panel_bytes = tile.groups * GROUP_BYTES;
        let mut sums = [[_mm512_setzero_si512(); 2]; W];
        for group in 0..tile.groups {
            let unit = tile.input.add(group * 4).cast::<i32>().read_unaligned();
            let unit = _mm512_set1_epi32(unit);
            for (index, sums) in sums.iter_mut().enumerate() {
                let panel = tile.panel.add(index * panel_bytes + group * GROUP_BYTES);
                _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(AHEAD + GROUP_BYTES / 2).cast());
                let left = _mm512_load_si512(panel.cast());
                let right = _mm512_load_si512(panel.add(GROUP_BYTES / 2).cast());
                sums[0] = D::dot(sums[0], unit, left);
                sums[1] = D::dot(sums[1], unit, right);
            }
        }
        for (index, [left, right]) in sums.into_iter().enumerate() {
            let out = tile.sums.add(index * PANEL);
            _mm512_store_si512(out.cast(), left);
            _mm512_store_si512(out.add(PANEL / 2).cast(), right);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn plain<D: Dot, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`.
    unsafe { sums::<D, R>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
unsafe fn with_bf16<D: Dot, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`.
    unsafe { sums::<D, R>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn scaled<D: Dot, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`.
    unsafe { scaled_sums::<D, R>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni")]
unsafe fn scaled_with_vnni<D: Dot, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`.
    unsafe { scaled_sums::<D, R>(tile) }
}

/// The loop over `K`, four groups at a time.
///
/// # Safety
/// As [`TileFunction`].
#[inline(always)]
unsafe fn sums<D: Dot, const R: usize>(tile: &Tile) {
    // SAFETY: rows, panel and sums have the sizes that `TileFunction` asks for; prefetches never
    // fault, wherever they point.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        let mut group = 0;
        while group + 4 <= tile.groups {
            for offset in 0..4 {
                step::<D, R>(tile, group + offset, &mut sums);
            }
            group += 4;
        }
        while group < tile.groups {
            step::<D, R>(tile, group, &mut sums);
            group += 1;
        }
        for (row, [left, right]) in sums.into_iter().enumerate() {
            let out = tile.sums.add(row * PANEL);
            _mm512_store_si512(out.cast(), left);
            _mm512_store_si512(out.add(PANEL / 2).cast(), right);
        }
    }
}

/// The loop over `K` of int8: exact integers within a run, then scaled and added in f32. The totals
/// wait in `tile.sums`, for registers are short of room for both; a run meets them once.
///
/// # Safety
/// As [`TileFunction`].
#[inline(always)]
unsafe fn scaled_sums<D: Dot, const R: usize>(tile: &Tile) {
    // SAFETY: as in `sums`; there are 32 scales for every run that has begun.
    unsafe {
        for row in 0..R {
            let out = tile.sums.add(row * PANEL);
            _mm512_store_ps(out, _mm512_setzero_ps());
            _mm512_store_ps(out.add(PANEL / 2), _mm512_setzero_ps());
        }
        let mut start = 0;
        let mut scales = tile.scales;
        while start < tile.groups {
            let end = tile.groups.min(start + SCALED_GROUPS);
            let mut sums = [[_mm512_setzero_si512(); 2]; R];
            let mut group = start;
            while group + 4 <= end {
                for offset in 0..4 {
                    step::<D, R>(tile, group + offset, &mut sums);
                }
                group += 4;
            }
            while group < end {
                step::<D, R>(tile, group, &mut sums);
                group += 1;
            }
            let left = _mm512_load_ps(scales);
            let right = _mm512_load_ps(scales.add(PANEL / 2));
            for (row, sums) in sums.into_iter().enumerate() {
                let out = tile.sums.add(row * PANEL);
                add_scaled(out, sums[0], left);
                add_scaled(out.add(PANEL / 2), sums[1], right);
            }
            scales = scales.add(PANEL);
            start = end;
        }
    }
}

/// `totals += sums * scales`.
///
/// # Safety
/// `totals` points to a vector at a cache line.
#[inline(always)]
unsafe fn add_scaled(totals: *mut f32, sums: __m512i, scales: __m512) {
    // SAFETY: the caller's promise.
    unsafe {
        let total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scales, _mm512_load_ps(totals));
        _mm512_store_ps(totals, total);
    }
}

/// One group of inputs.
///
/// # Safety
/// As [`TileFunction`], and `group < tile.groups`.
#[inline(always)]
unsafe fn step<D: Dot, const R: usize>(tile: &Tile, group: usize, sums: &mut [[__m512i; 2]; R]) {
    // SAFETY: as in `sums`.
    unsafe {
        let panel = tile.panel.add(group * GROUP_BYTES);
        let left = _mm512_load_si512(panel.cast());
        let right = _mm512_load_si512(panel.add(GROUP_BYTES / 2).cast());
        _mm_prefetch::<_MM_HINT_T1>(tile.ahead.wrapping_add(group * 64).cast());
        for (row, sums) in sums.iter_mut().enumerate() {
            let unit = tile.input.add(row * tile.input_stride + group * 4);
            let unit = _mm512_set1_epi32(unit.cast::<i32>().read_unaligned());
            sums[0] = D::dot(sums[0], unit, left);
            sums[1] = D::dot(sums[1], unit, right);
        }
    }
}
