//! Vectors of sixteen lanes.

#[allow(clippy::wildcard_imports, reason = "intrinsics carry their own prefix")]
use std::arch::x86_64::*;

use half::bf16;

use super::{Operation, Simd};

/// Exists only inside [`run`], whose caller has proved that the features exist: that is the safety
/// argument of every block below, beside the assert before each memory access.
#[derive(Clone, Copy)]
pub(crate) struct Vectors(());

/// Compiles `operation` with the features.
///
/// # Safety
/// The machine has the features. The list must match `Avx512::new` in `isa.rs`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) unsafe fn run<O: Operation>(operation: O) -> O::Output {
    operation.run(Vectors(()))
}

/// The first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    assert!(n <= 16);
    ((1_u32 << n) - 1) as __mmask16
}

/// Bits of the nearest bf16 in the low half of each lane, ties to even.
#[inline(always)]
unsafe fn bf16_bits(v: __m512) -> __m512i {
    // SAFETY: the features exist (see `Vectors`).
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, bias));
        // Adding the bias to a NaN could turn it into an infinity.
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_mask_blend_epi32(nan, rounded, _mm512_set1_epi32(0x7fc0))
    }
}

impl Simd for Vectors {
    const LANES: usize = 16;
    type F32 = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        assert!(x.len() >= 16);
        // SAFETY: sixteen elements by the assert.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> __m512 {
        // SAFETY: masked to the slice's own elements.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32]) {
        assert!(out.len() >= 16);
        // SAFETY: sixteen elements by the assert.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_part(self, v: __m512, out: &mut [f32]) {
        // SAFETY: masked to the slice's own elements.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(out.len()), v) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> __m512 {
        // SAFETY: masked to the slice's own elements.
        unsafe {
            let bits = _mm256_maskz_loadu_epi16(first(x.len()), x.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        }
    }
    #[inline(always)]
    fn store_bf16(self, v: __m512, out: &mut [bf16]) {
        let mask = first(out.len());
        // SAFETY: masked to the slice's own elements.
        unsafe { _mm512_mask_cvtepi32_storeu_epi16(out.as_mut_ptr().cast(), mask, bf16_bits(v)) }
    }
    #[inline(always)]
    fn store_u8(self, v: __m512, out: &mut [u8]) {
        let mask = first(out.len());
        // SAFETY: masked to the slice's own elements.
        unsafe {
            _mm512_mask_cvtepi32_storeu_epi8(out.as_mut_ptr().cast(), mask, _mm512_cvttps_epi32(v));
        }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn copy_sign(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe {
            let sign = _mm512_set1_epi32(i32::MIN);
            // Bits of the sign from `b`, all others from `a`.
            let both = _mm512_ternarylogic_epi32::<0xca>(
                sign,
                _mm512_castps_si512(b),
                _mm512_castps_si512(a),
            );
            _mm512_castsi512_ps(both)
        }
    }
    #[inline(always)]
    fn if_negative(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe {
            let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, _mm512_setzero_ps());
            _mm512_mask_blend_ps(negative, c, b)
        }
    }
    #[inline(always)]
    fn keep(self, a: __m512, bits: u64) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_maskz_mov_ps(bits as __mmask16, a) }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale(self, a: __m512, n: __m512) -> __m512 {
        // SAFETY: the features exist.
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: the features exist.
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        // SAFETY: the features exist.
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn smallest(self, a: __m512) -> f32 {
        // SAFETY: the features exist.
        unsafe { _mm512_reduce_min_ps(a) }
    }
}
