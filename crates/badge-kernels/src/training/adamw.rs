//! One step of AdamW (Loshchilov and Hutter, 2019) over one parameter, in one pass.

use crate::threads::Pool;

/// The constants of one step for one parameter, `t` steps after the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// `β₁`
    pub beta1: f32,
    /// `1 - β₁`, rounded once: 1 minus a rounded β would have lost digits.
    pub fresh1: f32,
    /// `β₂`
    pub beta2: f32,
    /// `1 - β₂`, rounded once.
    pub fresh2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Factor of all gradients, from clipping by global norm.
    pub clip: f32,
    /// `1 - rate · weight decay`
    pub keep: f32,
    /// The learning rate divided by `1 - β₁ᵗ`.
    pub rate: f32,
    /// `√(1 - β₂ᵗ)`
    pub square_correction: f32,
}

/// What the optimiser remembers of a parameter.
#[derive(Debug)]
pub struct Moments<'a> {
    /// `m`, the decaying mean of gradients.
    pub mean: &'a mut [f32],
    /// `v`, the decaying mean of their squares.
    pub square: &'a mut [f32],
}

/// `g ← clip · gradient`, `m ← β₁ m + (1 - β₁) g`, `v ← β₂ v + (1 - β₂) g²`,
/// `p ← keep · p - rate · m / (√v / square_correction + ε)`.
///
/// Every operation is rounded by itself, so that all instruction sets compute the same bits.
///
/// # Panics
/// When lengths differ.
pub fn adamw(
    pool: &Pool,
    step: &AdamWStep,
    parameter: &mut [f32],
    gradient: &[f32],
    moments: Moments<'_>,
) {
    let _ = pool;
    let n = parameter.len();
    let Moments { mean, square } = moments;
    assert!(
        gradient.len() == n && mean.len() == n && square.len() == n,
        "gradient and moments of {n} numbers"
    );
    let numbers = parameter.iter_mut().zip(gradient).zip(mean).zip(square);
    for (((p, g), m), v) in numbers {
        let g = g * step.clip;
        *m = step.beta1 * *m + step.fresh1 * g;
        *v = step.beta2 * *v + step.fresh2 * g * g;
        *p = step.keep * *p - step.rate * *m / (v.sqrt() / step.square_correction + step.eps);
    }
}
