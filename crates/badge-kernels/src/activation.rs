//! Element-wise non-linearities.
//!
//! Each is written once over the vectors of [`Simd`] and applied where a product leaves its tile.
//! The bounds are on the absolute error against f64 for `|x| <= 20`, enforced by
//! `tests/parity/activation.rs` on every instruction set; NaN stays NaN.

use crate::simd::Simd;

/// The activation functions of BERT-like models and of the paper's bypasses (App. C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x Φ(x)` with the exact normal distribution function (erf); error at most 1e-6.
    Gelu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, ALBERT's `gelu_new`; error at most 1e-6.
    GeluTanh,
    /// `x σ(1.702 x)`; error at most 2e-6.
    QuickGelu,
    /// `max(x, 0)`, exact.
    Relu,
    /// `x` for positive `x`, else `0.01 x`; rounded once.
    LeakyRelu,
    /// `x σ(x)`, also called SiLU; error at most 2e-6.
    Swish,
    /// `x tanh(ln(1 + eˣ))`; error at most 2e-6.
    Mish,
    /// Hyperbolic tangent; error at most 2e-7.
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

/// `eˣ`, relative error at most 2e-7; 1e-38 below -87.3 and 1e38 above 88 instead of their limits.
///
/// `x = n ln 2 + r` with `|r| <= ½ ln 2`, then a polynomial in `r` (the coefficients of Cephes'
/// `expf`) and a shift of the exponent by `n`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // In this order of arguments NaN passes.
    let x = s.min(s.splat(88.0), s.max(s.splat(-87.3), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with few enough bits that n times it is exact.
    let r = s.mul_add(n, s.splat(-0.693_359_4), x);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    p = s.mul_add(p, r, s.splat(1.398_199_9e-3));
    p = s.mul_add(p, r, s.splat(8.333_452e-3));
    p = s.mul_add(p, r, s.splat(4.166_579_6e-2));
    p = s.mul_add(p, r, s.splat(1.666_666_5e-1));
    p = s.mul_add(p, r, s.splat(0.5));
    let p = s.add(s.mul_add(p, s.mul(r, r), r), s.splat(1.0));
    s.scale(p, n)
}

#[derive(Clone, Copy)]
struct Gelu;
impl Function for Gelu {
    /// The upper tail `½ erfc(|x| / √2)` by Abramowitz and Stegun, 7.1.26 (error below 1.5e-7), so
    /// that no digits cancel where `Φ(x)` is small.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let z = s.mul(s.abs(x), s.splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = s.div(
            s.splat(1.0),
            s.mul_add(z, s.splat(0.327_591_1), s.splat(1.0)),
        );
        let mut p = s.splat(0.5 * 1.061_405_4);
        p = s.mul_add(p, t, s.splat(0.5 * -1.453_152_1));
        p = s.mul_add(p, t, s.splat(0.5 * 1.421_413_8));
        p = s.mul_add(p, t, s.splat(0.5 * -0.284_496_72));
        p = s.mul_add(p, t, s.splat(0.5 * 0.254_829_6));
        let bell = exp(s, s.mul(s.sub(s.splat(0.0), z), z));
        let tail = s.mul(s.mul(p, t), bell);
        s.mul(x, s.if_negative(x, tail, s.sub(s.splat(1.0), tail)))
    }
}

#[derive(Clone, Copy)]
struct GeluTanh;
impl Function for GeluTanh {
    /// `½ (1 + tanh u) = σ(2u)`: one exponential and one division.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        const TWO_U: f32 = 2.0 * 0.797_884_6;
        let cubic = s.mul_add(s.mul(x, x), s.splat(-TWO_U * 0.044_715), s.splat(-TWO_U));
        s.div(x, s.add(exp(s, s.mul(x, cubic)), s.splat(1.0)))
    }
}

/// `x σ(β x)`
#[derive(Clone, Copy)]
struct SigmoidWeighted(f32);
impl Function for SigmoidWeighted {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let e = exp(s, s.mul(x, s.splat(-self.0)));
        s.div(x, s.add(e, s.splat(1.0)))
    }
}

#[derive(Clone, Copy)]
struct Relu;
impl Function for Relu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.max(s.splat(0.0), x)
    }
}

#[derive(Clone, Copy)]
struct LeakyRelu;
impl Function for LeakyRelu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.if_negative(x, s.mul(x, s.splat(0.01)), x)
    }
}

#[derive(Clone, Copy)]
struct Mish;
impl Function for Mish {
    /// `tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2)` with `e = eˣ`.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        // Beyond 20 the quotient is 1 in f32, and the square would overflow.
        let e = exp(s, s.min(s.splat(20.0), x));
        let n = s.mul(e, s.add(e, s.splat(2.0)));
        s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
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
        let e = exp(s, s.add(magnitude, magnitude));
        let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
        let square = s.mul(x, x);
        let mut p = s.splat(-5.704_988_7e-3);
        p = s.mul_add(p, square, s.splat(2.063_909e-2));
        p = s.mul_add(p, square, s.splat(-5.373_971_6e-2));
        p = s.mul_add(p, square, s.splat(1.333_144_2e-1));
        p = s.mul_add(p, square, s.splat(-3.333_328e-1));
        let near = s.mul_add(s.mul(p, square), x, x);
        s.if_negative(s.sub(magnitude, s.splat(0.625)), near, s.copy_sign(far, x))
    }
}

#[derive(Clone, Copy)]
struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        let e = exp(s, s.sub(s.splat(0.0), x));
        s.div(s.splat(1.0), s.add(e, s.splat(1.0)))
    }
}

#[derive(Clone, Copy)]
struct Identity;
impl Function for Identity {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::F32) -> S::F32 {
        x
    }
}
