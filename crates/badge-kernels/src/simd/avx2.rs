//! Vectors of eight lanes.

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
/// The machine has the features. The list must match `Avx2::new` in `isa.rs`.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn run<O: Operation>(operation: O) -> O::Output {
    operation.run(Vectors(()))
}

/// All bits set in the first `n` lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    assert!(n <= 8);
    // SAFETY: the features exist.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lanes)
    }
}

/// Bits of the nearest bf16 in the low half of each lane, ties to even.
#[inline(always)]
unsafe fn bf16_bits(v: __m256) -> __m256i {
    // SAFETY: the features exist (see `Vectors`).
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, bias));
        // Adding the bias to a NaN could turn it into an infinity.
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan)
    }
}

impl Simd for Vectors {
    const LANES: usize = 8;
    type F32 = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        assert!(x.len() >= 8);
        // SAFETY: eight elements by the assert.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> __m256 {
        // SAFETY: masked to the slice's own elements.
        unsafe {
            let mask = first(x.len());
            let loaded = _mm256_maskload_ps(x.as_ptr(), mask);
            _mm256_blendv_ps(_mm256_set1_ps(fill), loaded, _mm256_castsi256_ps(mask))
        }
    }
    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        assert!(out.len() >= 8);
        // SAFETY: eight elements by the assert.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_part(self, v: __m256, out: &mut [f32]) {
        // SAFETY: masked to the slice's own elements.
        unsafe { _mm256_maskstore_ps(out.as_mut_ptr(), first(out.len()), v) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> __m256 {
        assert!(x.len() <= 8);
        let mut lanes = [bf16::ZERO; 8];
        let whole = if x.len() == 8 {
            x.as_ptr()
        } else {
            lanes[..x.len()].copy_from_slice(x);
            lanes.as_ptr()
        };
        // SAFETY: `whole` points to eight numbers of two bytes.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(whole.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn store_bf16(self, v: __m256, out: &mut [bf16]) {
        assert!(out.len() <= 8);
        let mut lanes = [bf16::ZERO; 8];
        // SAFETY: `lanes` holds the sixteen bytes written.
        unsafe {
            let bits = bf16_bits(v);
            let packed = _mm_packus_epi32(
                _mm256_castsi256_si128(bits),
                _mm256_extracti128_si256::<1>(bits),
            );
            _mm_storeu_si128(lanes.as_mut_ptr().cast(), packed);
        }
        out.copy_from_slice(&lanes[..out.len()]);
    }
    #[inline(always)]
    fn store_u8(self, v: __m256, out: &mut [u8]) {
        assert!(out.len() <= 8);
        let mut lanes = [0_i32; 8];
        // SAFETY: `lanes` holds the 32 bytes written.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_cvttps_epi32(v)) };
        for (out, lane) in out.iter_mut().zip(lanes) {
            *out = lane as u8;
        }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn copy_sign(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_and_ps(sign, b), _mm256_andnot_ps(sign, a))
        }
    }
    #[inline(always)]
    fn if_negative(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe {
            let negative = _mm256_cmp_ps::<_CMP_LT_OQ>(a, _mm256_setzero_ps());
            _mm256_blendv_ps(c, b, negative)
        }
    }
    #[inline(always)]
    fn keep(self, a: __m256, bits: u64) -> __m256 {
        // SAFETY: the features exist.
        unsafe {
            let lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_and_si256(_mm256_set1_epi32(bits as i32), lanes);
            _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lanes)))
        }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale(self, a: __m256, n: __m256) -> __m256 {
        // SAFETY: the features exist.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
            _mm256_mul_ps(a, power)
        }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        // SAFETY: the features exist.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn largest(self, a: __m256) -> f32 {
        // SAFETY: the features exist.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn smallest(self, a: __m256) -> f32 {
        // SAFETY: the features exist.
        unsafe {
            let four = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
