//! Element-wise non-linearities.
//!
//! Each is written once for all instruction sets and applied where a product leaves its tile.
//! The bounds are on `|error| / max(1, |x|)` against f64, for every x; the tests enforce these very
//! numbers on every instruction set. NaN stays NaN, infinities give the limits.

use std::f32::consts::LOG2_E;

use crate::simd::Simd;

/// The activation functions of BERT-like models and of the paper's bypasses (App. C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x Φ(x)` with the exact normal distribution function (erf); error at most 2e-7.
    Gelu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, ALBERT's `gelu_new`; error at most 2e-7.
    GeluTanh,
    /// `x σ(1.702 x)`; error at most 2e-7.
    QuickGelu,
    /// `max(x, 0)`, exact.
    Relu,
    /// `x` for positive `x`, else `0.01 x`; error at most 1e-9.
    LeakyRelu,
    /// `x σ(x)`, also called SiLU; error at most 2e-7.
    Swish,
    /// `x tanh(ln(1 + eˣ))`; error at most 2e-7.
    Mish,
    /// Hyperbolic tangent; error at most 2e-7, and at most 3e-7 relative to the result.
    Tanh,
    /// `1 / (1 + e⁻ˣ)`; error at most 2e-7.
    Sigmoid,
    /// `x` itself.
    Identity,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Gelu,
        Self::GeluTanh,
        Self::QuickGelu,
        Self::Relu,
        Self::LeakyRelu,
        Self::Swish,
        Self::Mish,
        Self::Tanh,
        Self::Sigmoid,
        Self::Identity,
    ];
}

/// A non-linearity over vectors.
pub(crate) trait Function: Copy {
    /// Its value in every lane.
    fn apply<S: Simd>(self, simd: S, x: S::F32) -> S::F32;
    /// Its derivative in every lane, within 5e-7; the left one at a kink.
    fn derivative<S: Simd>(self, simd: S, x: S::F32) -> S::F32;
}

/// Something that is compiled once for each activation.
pub(crate) trait Visitor {
    /// What it returns.
    type Output;
    /// Called with the activation.
    fn visit<F: Function>(self, function: F) -> Self::Output;
}

impl Activation {
    /// Calls `visitor` with the function of this name, so that loops contain no branch on it.
    #[inline(always)]
    pub(crate) fn visit<V: Visitor>(self, visitor: V) -> V::Output {
        match self {
            Self::Gelu => visitor.visit(Gelu),
            Self::GeluTanh => visitor.visit(GeluTanh),
            Self::QuickGelu => visitor.visit(SigmoidWeighted(1.702)),
            Self::Relu => visitor.visit(Relu),
            Self::LeakyRelu => visitor.visit(LeakyRelu),
            Self::Swish => visitor.visit(SigmoidWeighted(1.0)),
            Self::Mish => visitor.visit(Mish),
            Self::Tanh => visitor.visit(Tanh),
            Self::Sigmoid => visitor.visit(Sigmoid),
            Self::Identity => visitor.visit(Identity),
        }
    }
}

/// `2^y` for `y` in `-126..=127`, relative error at most 2e-7; exact for whole `y`.
///
/// `y = n + r` with whole `n` and `|r| <= ½`; then the polynomial of degree 5 with the least relative
/// error (9.2e-8) among those that are 1 at 0; then `n` is added to the exponent. NaN stays NaN.
///
/// Exponentials `eˣ` come here as `2^(x log₂ e)`. The rounding of that product makes a relative
/// error of `2⁻²⁴ |x|`, which the functions below and a softmax multiply by `eˣ` or by a sigmoid's
/// slope for negative `x`, so that less than a rounding of the result is left.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, y: S::F32) -> S::F32 {
    let n = s.round(y);
    let r = s.sub(y, n);
    let mut p = s.splat(1.326_469_6e-3);
    p = s.mul_add(p, r, s.splat(9.671_512e-3));
    p = s.mul_add(p, r, s.splat(5.550_734e-2));
    p = s.mul_add(p, r, s.splat(2.402_224_2e-1));
    p = s.mul_add(p, r, s.splat(6.931_469_4e-1));
    p = s.mul_add(p, r, s.splat(1.0));
    s.scale(p, n)
}

/// [`exp2`] of `y` and of -126 (which is as good as zero) below; for `y <= 127`.
#[inline(always)]
pub(crate) fn exp2_or_least<S: Simd>(s: S, y: S::F32) -> S::F32 {
    // In this order of arguments NaN passes.
    exp2(s, s.max(s.splat(-126.0), y))
}

#[derive(Clone, Copy)]
struct Gelu;

impl Gelu {
    /// From here on erf is 1 in f32, and below -5.6 its product with `x` is less than 1e-7.
    const END: f32 = 5.6;

    /// `erf(z / √2)` for `|z| <= END`: a rational function, of those with five powers of `z²` above
    /// and below the one with the least error in the product with `z` (3.3e-8).
    #[inline(always)]
    fn erf<S: Simd>(s: S, z: S::F32) -> S::F32 {
        let square = s.mul(z, z);
        let mut p = s.splat(4.347_568e-8);
        p = s.mul_add(p, square, s.splat(1.306_418_8e-5));
        p = s.mul_add(p, square, s.splat(3.736_333_6e-4));
        p = s.mul_add(p, square, s.splat(9.571_595e-3));
        p = s.mul_add(p, square, s.splat(7.111_182e-2));
        p = s.mul_add(p, square, s.splat(7.978_841e-1));
        let mut q = s.splat(1.181_474_8e-6);
        q = s.mul_add(q, square, s.splat(7.973_527e-5));
        q = s.mul_add(q, square, s.splat(1.985_242e-3));
        q = s.mul_add(q, square, s.splat(2.963_209_3e-2));
        q = s.mul_add(q, square, s.splat(2.557_892_5e-1));
        q = s.mul_add(q, square, s.splat(1.0));
        s.div(s.mul(p, z), q)
    }
}

impl Function for Gelu {
    /// `½ x (1 + erf(x / √2))`
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let x = s.max(s.splat(-Self::END), x);
        let z = s.min(s.splat(Self::END), x);
        let half = s.mul(x, s.splat(0.5));
        s.mul_add(half, Self::erf(s, z), half)
    }
    /// `Φ(x) + x φ(x)` with `φ(x) = e^{-x²/2} / √(2π)`
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        const DENSITY: f32 = 0.398_942_3;
        let z = clamp(s, x, Self::END);
        let cumulated = s.mul_add(s.splat(0.5), Self::erf(s, z), s.splat(0.5));
        // Beyond, the density is as good as zero.
        let x = clamp(s, x, 14.0);
        let e = exp2_or_least(s, s.mul(s.mul(x, x), s.splat(-0.5 * LOG2_E)));
        s.mul_add(s.mul(x, s.splat(DENSITY)), e, cumulated)
    }
}

/// `x` between `-limit` and `limit`; NaN passes.
#[inline(always)]
fn clamp<S: Simd>(s: S, x: S::F32, limit: f32) -> S::F32 {
    s.min(s.splat(limit), s.max(s.splat(-limit), x))
}

/// `σ + y σ (1 - σ)`, the derivative of `x σ(a(x))` for `y = x a'(x)`, from `e = e^{-a}`.
#[inline(always)]
fn weighted_slope<S: Simd>(s: S, e: S::F32, y: S::F32) -> S::F32 {
    let sigmoid = s.div(s.splat(1.0), s.add(e, s.splat(1.0)));
    // The complement as `e σ`, which loses no digits.
    s.mul_add(s.mul(y, sigmoid), s.mul(e, sigmoid), sigmoid)
}

#[derive(Clone, Copy)]
struct GeluTanh;

impl GeluTanh {
    /// `√(2/π)`
    const ROOT: f32 = 0.797_884_6;

    /// `e^{-2u}` for `x >= -10`.
    #[inline(always)]
    fn power<S: Simd>(s: S, x: S::F32) -> S::F32 {
        /// `-2 √(2/π) log₂ e`
        const SCALE: f32 = -2.302_208_2;
        let cubic = s.mul_add(s.mul(x, x), s.splat(SCALE * 0.044_715), s.splat(SCALE));
        exp2_or_least(s, s.mul(x, cubic))
    }
}

impl Function for GeluTanh {
    /// `½ (1 + tanh u) = σ(2u)`: one exponential and one division.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        // At -10 the power is 2^126, and the result as good as zero.
        let x = s.max(s.splat(-10.0), x);
        s.div(x, s.add(Self::power(s, x), s.splat(1.0)))
    }
    /// `σ(2u) + x σ(2u) σ(-2u) 2u'` with `2u' = 2 √(2/π) (1 + 3 · 0.044715 x²)`
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let x = clamp(s, x, 10.0);
        let square = s.mul(x, x);
        let slope = s.mul_add(
            square,
            s.splat(2.0 * Self::ROOT * 3.0 * 0.044_715),
            s.splat(2.0 * Self::ROOT),
        );
        weighted_slope(s, Self::power(s, x), s.mul(x, slope))
    }
}

/// `x σ(β x)`
#[derive(Clone, Copy)]
struct SigmoidWeighted(f32);
impl Function for SigmoidWeighted {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        // There the power is at most 2^126, and the result as good as zero.
        let x = s.max(s.splat(-87.0 / self.0), x);
        let e = exp2_or_least(s, s.mul(x, s.splat(-self.0 * LOG2_E)));
        s.div(x, s.add(e, s.splat(1.0)))
    }
    /// `σ(β x) + β x σ(β x) σ(-β x)`
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let y = clamp(s, s.mul(x, s.splat(self.0)), 87.0);
        weighted_slope(s, exp2_or_least(s, s.mul(y, s.splat(-LOG2_E))), y)
    }
}

#[derive(Clone, Copy)]
struct Relu;
impl Function for Relu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.max(s.splat(0.0), x)
    }
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let negated = s.sub(s.splat(0.0), x);
        s.if_negative(negated, s.splat(1.0), s.splat(0.0))
    }
}

#[derive(Clone, Copy)]
struct LeakyRelu;
impl Function for LeakyRelu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.if_negative(x, s.mul(x, s.splat(0.01)), x)
    }
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let negated = s.sub(s.splat(0.0), x);
        s.if_negative(negated, s.splat(1.0), s.splat(0.01))
    }
}

#[derive(Clone, Copy)]
struct Mish;
impl Function for Mish {
    /// `tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2)` with `e = eˣ`.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        // Below -87 the result is as good as zero; beyond 20 the quotient is 1 in f32.
        let x = s.max(s.splat(-87.0), x);
        let e = exp2(s, s.mul(s.min(s.splat(20.0), x), s.splat(LOG2_E)));
        let n = s.mul(e, s.add(e, s.splat(2.0)));
        s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
    }
    /// With `e = eˣ`, `n = e (e + 2)` and `t = n / (n + 2)`:
    /// `t + x (1 - t²) σ(x) = t + 4 x e (e + 1) / (n + 2)²`.
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        // Below, both terms are as good as zero; beyond, the first is 1 and the second zero.
        let x = s.max(s.splat(-87.0), s.min(s.splat(20.0), x));
        let e = exp2(s, s.mul(x, s.splat(LOG2_E)));
        let n = s.mul(e, s.add(e, s.splat(2.0)));
        let inverse = s.div(s.splat(1.0), s.add(n, s.splat(2.0)));
        let slope = s.mul(s.mul(e, inverse), s.mul(s.add(e, s.splat(1.0)), inverse));
        s.mul_add(s.mul(x, s.splat(4.0)), slope, s.mul(n, inverse))
    }
}

#[derive(Clone, Copy)]
struct Tanh;
impl Function for Tanh {
    /// A polynomial (the coefficients of Cephes' `tanhf`) below 0.625, where the quotient would lose
    /// digits; `1 - 2 / (e^{2|x|} + 1)` above.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let magnitude = s.abs(x);
        // Beyond 2^64 the quotient vanishes.
        let e = exp2(
            s,
            s.min(s.splat(64.0), s.mul(magnitude, s.splat(2.0 * LOG2_E))),
        );
        let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
        let square = s.mul(x, x);
        let mut p = s.splat(-5.704_988_7e-3);
        p = s.mul_add(p, square, s.splat(2.063_908_8e-2));
        p = s.mul_add(p, square, s.splat(-5.373_971_6e-2));
        p = s.mul_add(p, square, s.splat(1.333_144_2e-1));
        p = s.mul_add(p, square, s.splat(-3.333_328e-1));
        let near = s.mul_add(s.mul(p, square), x, x);
        s.if_negative(s.sub(magnitude, s.splat(0.625)), near, s.copy_sign(far, x))
    }
    /// `1 - tanh² x = 4 e / (1 + e)²` with `e = e^{-2|x|}`
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let e = exp2_or_least(s, s.mul(s.abs(x), s.splat(-2.0 * LOG2_E)));
        let inverse = s.div(s.splat(2.0), s.add(e, s.splat(1.0)));
        s.mul(s.mul(e, inverse), inverse)
    }
}

#[derive(Clone, Copy)]
struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let y = s.min(s.splat(127.0), s.mul(x, s.splat(-LOG2_E)));
        s.div(s.splat(1.0), s.add(exp2_or_least(s, y), s.splat(1.0)))
    }
    /// `σ(x) σ(-x) = e / (1 + e)²` with `e = e^{-|x|}`
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let e = exp2_or_least(s, s.mul(s.abs(x), s.splat(-LOG2_E)));
        let inverse = s.div(s.splat(1.0), s.add(e, s.splat(1.0)));
        s.mul(s.mul(e, inverse), inverse)
    }
}

#[derive(Clone, Copy)]
struct Identity;
impl Function for Identity {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::F32) -> S::F32 {
        x
    }
    #[inline(always)]
    fn derivative<S: Simd>(self, s: S, _: S::F32) -> S::F32 {
        s.splat(1.0)
    }
}

#[cfg(test)]
mod tests;
