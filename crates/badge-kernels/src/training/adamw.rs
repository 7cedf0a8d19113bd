//! One step of AdamW (Loshchilov and Hutter, 2019) over one parameter, in one pass.

use crate::matrix::SharedSlice;
use crate::simd::{Operation, Simd};
use crate::threads::{Pool, Task};

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
    let n = parameter.len();
    let Moments { mean, square } = moments;
    assert!(
        gradient.len() == n && mean.len() == n && square.len() == n,
        "gradient and moments of {n} numbers"
    );
    let [parameter, mean, square] = [parameter, mean, square].map(SharedSlice::new);
    pool.run(n.div_ceil(NUMBERS), &|Task { index, .. }| {
        let part = index * NUMBERS..n.min((index + 1) * NUMBERS);
        // SAFETY: each part is one task, and the three slices are borrowed exclusively.
        let [parameter, mean, square] =
            [parameter, mean, square].map(|slice| unsafe { slice.part(part.clone()) });
        pool.isa().run(Step {
            constants: *step,
            parameter,
            gradient: &gradient[part],
            mean,
            square,
        });
    });
}

/// Numbers of a task: 64 KiB of each of the four slices.
const NUMBERS: usize = 16 << 10;

/// The step over some numbers. Plain arithmetic that compilers turn into vectors: none fuses a
/// multiplication with an addition by itself.
struct Step<'a> {
    constants: AdamWStep,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
}

impl Operation for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let step = self.constants;
        let gradients = self.parameter.iter_mut().zip(self.gradient);
        let moments = self.mean.iter_mut().zip(self.square.iter_mut());
        for ((p, g), (m, v)) in gradients.zip(moments) {
            let g = g * step.clip;
            *m = step.beta1 * *m + step.fresh1 * g;
            *v = step.beta2 * *v + step.fresh2 * g * g;
            *p = step.keep * *p - step.rate * *m / (v.sqrt() / step.square_correction + step.eps);
        }
    }
}
