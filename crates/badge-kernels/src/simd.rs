//! Vectors of f32 for operations that are written once and compiled for every instruction set.
//!
//! An operation is a type with its arguments and an [`Operation::run`] that is generic over
//! [`Simd`]. [`Isa::run`] picks the vectors once. Loads and stores take slices, so that operations
//! contain no unsafe code; the length checks vanish where slices come from `chunks_exact`.

use half::bf16;

use crate::isa::Isa;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

/// Vectors of one instruction set.
pub(crate) trait Simd: Copy {
    /// Numbers in a vector.
    const LANES: usize;
    /// A vector.
    type F32: Copy;

    /// The same number in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// The first `LANES` elements; panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::F32;
    /// Up to `LANES` elements, the remaining lanes `fill`.
    fn load_part(self, x: &[f32], fill: f32) -> Self::F32;
    /// Writes the first `LANES` elements; panics when there are fewer.
    fn store(self, v: Self::F32, out: &mut [f32]);
    /// Writes `out.len() <= LANES` elements.
    fn store_part(self, v: Self::F32, out: &mut [f32]);
    /// The first `x.len() <= LANES` elements as f32, the remaining lanes zero.
    fn load_bf16(self, x: &[bf16]) -> Self::F32;
    /// Rounds to nearest even and writes `out.len() <= LANES` elements. NaN stays NaN.
    fn store_bf16(self, v: Self::F32, out: &mut [bf16]);
    /// Writes `out.len() <= LANES` whole numbers, each in `0..=255`.
    fn store_u8(self, v: Self::F32, out: &mut [u8]);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// The magnitude of `a` with the sign of `b`.
    fn copy_sign(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `b` where `a < 0`, else `c`.
    fn if_negative(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Lane `i` of `a` where bit `i` of `bits` is set, else zero.
    fn keep(self, a: Self::F32, bits: u64) -> Self::F32;
    /// The nearest whole number, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `a * 2^n` for whole `n` in `-126..=127`.
    fn scale(self, a: Self::F32, n: Self::F32) -> Self::F32;
    /// The sum of all lanes, always in the same order.
    fn sum(self, a: Self::F32) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::F32) -> f32;
    /// The smallest lane.
    fn smallest(self, a: Self::F32) -> f32;
}

/// Numbers that rows consist of, computed with as f32.
pub(crate) trait Number: Copy + Send + Sync {
    /// The first `x.len() <= LANES` elements, the remaining lanes zero.
    fn load<S: Simd>(s: S, x: &[Self]) -> S::F32;
    /// Writes `out.len() <= LANES` elements, rounded to this type.
    fn store<S: Simd>(s: S, v: S::F32, out: &mut [Self]);
}

impl Number for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self]) -> S::F32 {
        s.load_part(x, 0.0)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::F32, out: &mut [Self]) {
        s.store_part(v, out);
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self]) -> S::F32 {
        s.load_bf16(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::F32, out: &mut [Self]) {
        s.store_bf16(v, out);
    }
}

/// An operation written over [`Simd`].
pub(crate) trait Operation {
    /// What it returns.
    type Output;
    /// Computes it. Implementations and all that they call are `#[inline(always)]`, for only then
    /// are they compiled with the instruction set's features.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl Isa {
    /// Runs `operation` with this instruction set.
    #[inline]
    pub(crate) fn run<O: Operation>(self, operation: O) -> O::Output {
        match self {
            Self::Scalar => operation.run(scalar::Scalar),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token proves that the features exist.
            Self::Avx2(_) => unsafe { avx2::run(operation) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token proves that the features exist.
            Self::Avx512(_) | Self::Amx(_) => unsafe { avx512::run(operation) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every function of the trait on every lane count, against plain arithmetic.
    struct Everything;

    impl Operation for Everything {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let lanes = S::LANES;
            let x: Vec<f32> = (0..lanes).map(|i| i as f32 * 1.75 - 6.5).collect();
            let y: Vec<f32> = (0..lanes).map(|i| 3.0 - i as f32).collect();
            let (a, b) = (s.load(&x), s.load(&y));
            let check = |v: S::F32, expected: &dyn Fn(f32, f32) -> f32| {
                let mut out = vec![0.0; lanes];
                s.store(v, &mut out);
                for i in 0..lanes {
                    assert_eq!(out[i], expected(x[i], y[i]), "lane {i}");
                }
            };
            check(s.add(a, b), &|a, b| a + b);
            check(s.sub(a, b), &|a, b| a - b);
            check(s.mul(a, b), &|a, b| a * b);
            check(s.div(a, s.splat(3.0)), &|a, _| a / 3.0);
            check(s.mul_add(a, b, a), &|a, b| a.mul_add(b, a));
            check(s.min(a, b), &|a, b| a.min(b));
            check(s.max(a, b), &|a, b| a.max(b));
            check(s.abs(a), &|a, _| a.abs());
            check(s.copy_sign(a, b), &f32::copysign);
            check(s.if_negative(a, b, a), &|a, b| if a < 0.0 { b } else { a });
            for bits in [0, 1, 0xa5c3, !0] {
                let mut kept = vec![0.0; lanes];
                s.store(s.keep(a, bits), &mut kept);
                for (i, (kept, x)) in kept.iter().zip(&x).enumerate() {
                    assert_eq!(*kept, if bits >> i & 1 == 1 { *x } else { 0.0 });
                }
            }
            check(s.round(a), &|a, _| a.round_ties_even());
            check(s.scale(a, s.splat(-3.0)), &|a, _| a / 8.0);
            assert_eq!(s.sum(a), x.iter().sum::<f32>());
            assert_eq!(s.largest(a), x[lanes - 1]);
            assert_eq!(s.smallest(a), x[0]);
            parts(s, &x);
            narrow(s);
        }
    }

    /// Loads and stores of every length stay inside their slice.
    #[inline(always)]
    fn parts<S: Simd>(s: S, x: &[f32]) {
        for n in 0..=S::LANES {
            let mut out = vec![99.0; S::LANES + 1];
            s.store(s.load_part(&x[..n], -1.0), &mut out);
            assert_eq!(out[..n], x[..n]);
            assert!(out[n..S::LANES].iter().all(|v| *v == -1.0));
            let mut out = vec![99.0; S::LANES + 1];
            s.store_part(s.load_part(&x[..n], -1.0), &mut out[..n]);
            assert!(out[n..].iter().all(|v| *v == 99.0));
            let mut short = vec![bf16::from_f32(99.0); S::LANES + 1];
            s.store_bf16(s.load_part(&x[..n], 0.0), &mut short[..n]);
            for (i, v) in short.iter().enumerate() {
                let expected = if i < n { x[i] } else { 99.0 };
                assert_eq!(*v, bf16::from_f32(expected));
            }
            let mut back = vec![99.0; S::LANES];
            s.store(s.load_bf16(&short[..n]), &mut back);
            for (i, v) in back.iter().enumerate() {
                assert_eq!(*v, if i < n { short[i].to_f32() } else { 0.0 });
            }
        }
    }

    #[inline(always)]
    fn narrow<S: Simd>(s: S) {
        for n in 0..=S::LANES {
            let mut bytes = vec![7_u8; S::LANES + 1];
            s.store_u8(s.splat(201.0), &mut bytes[..n]);
            assert!(bytes[..n].iter().all(|b| *b == 201));
            assert!(bytes[n..].iter().all(|b| *b == 7));
        }
        // Halfway cases go to even, infinities stay, NaN stays NaN.
        for x in [
            1.003_906_3,
            1.011_718_8,
            f32::INFINITY,
            f32::MAX,
            1e-40,
            f32::NAN,
        ] {
            let mut out = vec![bf16::ZERO; S::LANES];
            s.store_bf16(s.splat(x), &mut out);
            let expected = bf16::from_f32(x);
            assert!(
                out[0] == expected || out[0].is_nan() && expected.is_nan(),
                "{x}: {}",
                out[0]
            );
        }
    }

    #[test]
    fn vectors_of_every_instruction_set_compute_like_plain_numbers() {
        for isa in Isa::available() {
            isa.run(Everything);
        }
    }
}
