//! Tiles with 512-bit vectors. The lists of features must match `Avx512::new` in `isa.rs`.

#[allow(clippy::wildcard_imports, reason = "intrinsics carry their own prefix")]
use std::arch::x86_64::*;

use super::tile::{TILE_OUTPUTS, Tile, TileFunction};
use crate::gemm::tile::heights;

/// How a step's columns are read and multiplied.
trait Columns {
    /// Tokens of a step.
    const TOKENS: usize;

    /// The columns of `mask` of a step's first token at `right`, and of the next one `stride` bytes
    /// behind where a step has two: units of 32 bits.
    ///
    /// # Safety
    /// The machine has the instructions, and the columns of the mask may be read.
    unsafe fn load(right: *const u8, stride: usize, mask: u32) -> [__m512i; 2];

    /// The same for the last step of an odd number of tokens, whose second token is all zeros.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_single(right: *const u8, mask: u32) -> [__m512i; 2];

    /// `sums + left * right`, unit by unit.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn dot(sums: __m512, left: __m512i, right: __m512i) -> __m512;

    /// Sums in the order of columns.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn in_order(sums: [__m512; 2]) -> [__m512; 2];
}

/// f32, one token a step.
struct F32Columns;
impl Columns for F32Columns {
    const TOKENS: usize = 1;

    #[inline(always)]
    unsafe fn load(right: *const u8, _: usize, mask: u32) -> [__m512i; 2] {
        let next = right.wrapping_add(64);
        // SAFETY: the caller's promise; lanes outside of the mask are not touched.
        unsafe {
            [
                _mm512_maskz_loadu_epi32(mask as __mmask16, right.cast()),
                _mm512_maskz_loadu_epi32((mask >> 16) as __mmask16, next.cast()),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_single(right: *const u8, mask: u32) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe { Self::load(right, 0, mask) }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512, left: __m512i, right: __m512i) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sums) }
    }
    #[inline(always)]
    unsafe fn in_order(sums: [__m512; 2]) -> [__m512; 2] {
        sums
    }
}

/// bf16 widened to f32, one token a step, on machines without the dot product.
struct Bf16ByF32Columns;
impl Columns for Bf16ByF32Columns {
    const TOKENS: usize = 1;

    #[inline(always)]
    unsafe fn load(right: *const u8, _: usize, mask: u32) -> [__m512i; 2] {
        // SAFETY: the caller's promise; lanes outside of the mask are not touched.
        unsafe {
            let both = _mm512_maskz_loadu_epi16(mask, right.cast());
            let halves = [
                _mm512_castsi512_si256(both),
                _mm512_extracti64x4_epi64::<1>(both),
            ];
            halves.map(|half| _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }
    #[inline(always)]
    unsafe fn load_single(right: *const u8, mask: u32) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe { Self::load(right, 0, mask) }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512, left: __m512i, right: __m512i) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { F32Columns::dot(sums, left, right) }
    }
    #[inline(always)]
    unsafe fn in_order(sums: [__m512; 2]) -> [__m512; 2] {
        sums
    }
}

/// bf16, pairs of tokens by the dot product. Two shuffles bring the tokens of a pair together,
/// within quarters of the vectors: the order of columns is put right once, in the sums.
struct Bf16Columns;
impl Columns for Bf16Columns {
    const TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn load(right: *const u8, stride: usize, mask: u32) -> [__m512i; 2] {
        // SAFETY: the caller's promise; lanes outside of the mask are not touched.
        unsafe {
            let even = _mm512_maskz_loadu_epi16(mask, right.cast());
            let odd = _mm512_maskz_loadu_epi16(mask, right.add(stride).cast());
            [
                _mm512_unpacklo_epi16(even, odd),
                _mm512_unpackhi_epi16(even, odd),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_single(right: *const u8, mask: u32) -> [__m512i; 2] {
        // SAFETY: the caller's promise; lanes outside of the mask are not touched.
        unsafe {
            let even = _mm512_maskz_loadu_epi16(mask, right.cast());
            let odd = _mm512_setzero_si512();
            [
                _mm512_unpacklo_epi16(even, odd),
                _mm512_unpackhi_epi16(even, odd),
            ]
        }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512, left: __m512i, right: __m512i) -> __m512 {
        // SAFETY: the caller's promise; both types are 512 plain bits.
        unsafe {
            let (left, right): (__m512bh, __m512bh) = (
                std::mem::transmute::<__m512i, __m512bh>(left),
                std::mem::transmute::<__m512i, __m512bh>(right),
            );
            _mm512_dpbf16_ps(sums, left, right)
        }
    }
    #[inline(always)]
    unsafe fn in_order([low, high]: [__m512; 2]) -> [__m512; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // Quarter q of `low` has columns 8 q to 8 q + 3, of `high` the four behind them.
            let first = _mm512_shuffle_f32x4::<0b01_00_01_00>(low, high);
            let second = _mm512_shuffle_f32x4::<0b11_10_11_10>(low, high);
            [first, second].map(|v| _mm512_shuffle_f32x4::<0b11_01_10_00>(v, v))
        }
    }
}

pub(super) static F32: [TileFunction; TILE_OUTPUTS] = heights!(plain<F32Columns>);
pub(super) static BF16_BY_F32: [TileFunction; TILE_OUTPUTS] = heights!(plain<Bf16ByF32Columns>);
pub(super) static BF16: [TileFunction; TILE_OUTPUTS] = heights!(with_bf16<Bf16Columns>);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn plain<C: Columns, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`.
    unsafe { sums::<C, R>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
unsafe fn with_bf16<C: Columns, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`.
    unsafe { sums::<C, R>(tile) }
}

/// The loop over tokens, then the sums into the gradient.
///
/// # Safety
/// As [`TileFunction`].
#[inline(always)]
unsafe fn sums<C: Columns, const R: usize>(tile: &Tile) {
    let mask = u32::MAX >> (32 - tile.columns);
    let halves = [mask as __mmask16, (mask >> 16) as __mmask16];
    // SAFETY: factors and gradient have the sizes that `TileFunction` asks for, lanes outside of the
    // masks are not touched, and prefetches never fault, wherever they point.
    unsafe {
        for row in 0..R {
            let gradient = tile.gradient.add(row * tile.gradient_stride);
            _mm_prefetch::<_MM_HINT_T0>(gradient.cast());
            _mm_prefetch::<_MM_HINT_T0>(gradient.wrapping_add(16).cast());
        }
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let steps = tile.tokens / C::TOKENS;
        let bytes = C::TOKENS * tile.right_stride;
        for step in 0..steps {
            let right = C::load(tile.right.add(step * bytes), tile.right_stride, mask);
            _mm_prefetch::<_MM_HINT_T1>(tile.ahead.wrapping_add(step * tile.ahead_stride).cast());
            add::<C, R>(tile.left.add(step * tile.left_stride), right, &mut sums);
        }
        if !tile.tokens.is_multiple_of(C::TOKENS) {
            let right = C::load_single(tile.right.add(steps * bytes), mask);
            add::<C, R>(tile.left.add(steps * tile.left_stride), right, &mut sums);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let gradient = tile.gradient.add(row * tile.gradient_stride);
            for (half, sums) in C::in_order(sums).into_iter().enumerate() {
                let gradient = gradient.wrapping_add(half * 16);
                let before = _mm512_maskz_loadu_ps(halves[half], gradient);
                _mm512_mask_storeu_ps(gradient, halves[half], _mm512_add_ps(before, sums));
            }
        }
    }
}

/// One step.
///
/// # Safety
/// The machine has the instructions, and `left` points to `R` units.
#[inline(always)]
unsafe fn add<C: Columns, const R: usize>(
    left: *const i32,
    right: [__m512i; 2],
    sums: &mut [[__m512; 2]; R],
) {
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let left = _mm512_set1_epi32(left.add(row).read());
            sums[0] = C::dot(sums[0], left, right[0]);
            sums[1] = C::dot(sums[1], left, right[1]);
        }
    }
}
