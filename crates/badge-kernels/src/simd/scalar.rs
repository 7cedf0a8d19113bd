//! Vectors of one lane: portable, and what the interpreter of unsafe code runs.

use half::bf16;

use super::Simd;

/// One lane.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Simd for Scalar {
    const LANES: usize = 1;
    type F32 = f32;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> f32 {
        x[0]
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> f32 {
        x.first().copied().unwrap_or(fill)
    }
    #[inline(always)]
    fn store(self, v: f32, out: &mut [f32]) {
        out[0] = v;
    }
    #[inline(always)]
    fn store_part(self, v: f32, out: &mut [f32]) {
        assert!(out.len() <= 1);
        out.fill(v);
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> f32 {
        x.first().copied().map_or(0.0, bf16::to_f32)
    }
    #[inline(always)]
    fn store_bf16(self, v: f32, out: &mut [bf16]) {
        assert!(out.len() <= 1);
        out.fill(bf16::from_f32(v));
    }
    #[inline(always)]
    fn store_u8(self, v: f32, out: &mut [u8]) {
        assert!(out.len() <= 1);
        out.fill(v as u8);
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // Not `f32::mul_add`: where the machine lacks the instruction that is a slow library call,
        // and this path is compiled for machines without it.
        if cfg!(miri) {
            // The interpreter knows no inline assembly, which the library uses.
            a.mul_add(b, c)
        } else {
            libm::fmaf(a, b, c)
        }
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn abs(self, a: f32) -> f32 {
        a.abs()
    }
    #[inline(always)]
    fn copy_sign(self, a: f32, b: f32) -> f32 {
        a.copysign(b)
    }
    #[inline(always)]
    fn if_negative(self, a: f32, b: f32, c: f32) -> f32 {
        if a < 0.0 { b } else { c }
    }
    #[inline(always)]
    fn keep(self, a: f32, bits: u64) -> f32 {
        if bits & 1 == 1 { a } else { 0.0 }
    }
    #[inline(always)]
    fn round(self, a: f32) -> f32 {
        a.round_ties_even()
    }
    #[inline(always)]
    fn scale(self, a: f32, n: f32) -> f32 {
        a * f32::from_bits(((n as i32 + 127) as u32) << 23)
    }
    #[inline(always)]
    fn sum(self, a: f32) -> f32 {
        a
    }
    #[inline(always)]
    fn largest(self, a: f32) -> f32 {
        a
    }
    #[inline(always)]
    fn smallest(self, a: f32) -> f32 {
        a
    }
}
