//! Activations in training: their values from stored arguments, and their derivatives.

use super::Factor;
use crate::activation::{Activation, Function, Visitor};
use crate::gemm::Output;
use crate::matrix::{Rows, RowsMut, SharedRows, for_each_row};
use crate::simd::{Number, Operation, Simd};
use crate::threads::Pool;

/// `out = g(z)`, where `z` is what the product before left and what [`activation_backward`] reads.
///
/// # Accuracy
/// That of the [activation](Activation), then rounded to the type of `out`.
///
/// # Panics
/// When shapes disagree.
pub fn activation_forward(pool: &Pool, activation: Activation, z: Factor<'_>, out: Output<'_>) {
    dispatch(pool, (activation, Step::Forward), z, out);
}

/// `gradient ← gradient ⊙ g'(z)`: from `∂L/∂g(z)` to `∂L/∂z`.
///
/// # Accuracy
/// The derivative is within `5e-7` of the exact one, at the kinks of ReLU and LeakyReLU the left one;
/// the product is rounded to the type of `gradient`.
///
/// # Panics
/// When shapes disagree.
pub fn activation_backward(
    pool: &Pool,
    activation: Activation,
    z: Factor<'_>,
    gradient: Output<'_>,
) {
    dispatch(pool, (activation, Step::Backward), z, gradient);
}

#[derive(Clone, Copy)]
enum Step {
    Forward,
    Backward,
}

fn dispatch(pool: &Pool, what: (Activation, Step), z: Factor<'_>, out: Output<'_>) {
    match (z, out) {
        (Factor::F32(z), Output::F32(out)) => apply(pool, what, z, out),
        (Factor::F32(z), Output::Bf16(out)) => apply(pool, what, z, out),
        (Factor::Bf16(z), Output::F32(out)) => apply(pool, what, z, out),
        (Factor::Bf16(z), Output::Bf16(out)) => apply(pool, what, z, out),
    }
}

fn apply<Z: Number, T: Number>(
    pool: &Pool,
    (activation, step): (Activation, Step),
    z: Rows<'_, Z>,
    mut out: RowsMut<'_, T>,
) {
    let shape = (z.count(), z.columns());
    assert_eq!((out.count(), out.columns()), shape, "rows of another shape");
    let out = out.share();
    let isa = pool.isa();
    for_each_row(pool, z.count(), &|index| {
        isa.run(ApplyRow {
            activation,
            step,
            z: z.row(index),
            out,
            index,
        });
    });
}

/// One row, which is the only task to write it.
struct ApplyRow<'a, Z, T> {
    activation: Activation,
    step: Step,
    z: &'a [Z],
    out: SharedRows<T>,
    index: usize,
}

impl<Z: Number, T: Number> Operation for ApplyRow<'_, Z, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.activation.visit(Row {
            simd,
            step: self.step,
            z: self.z,
            // SAFETY: each row is one task.
            out: unsafe { self.out.row(self.index) },
        });
    }
}

/// Knows the vectors and, once visited, the activation.
struct Row<'a, S, Z, T> {
    simd: S,
    step: Step,
    z: &'a [Z],
    out: &'a mut [T],
}

impl<S: Simd, Z: Number, T: Number> Visitor for Row<'_, S, Z, T> {
    type Output = ();

    #[inline(always)]
    fn visit<F: Function>(self, function: F) {
        let s = self.simd;
        let vectors = self.z.chunks(S::LANES).zip(self.out.chunks_mut(S::LANES));
        match self.step {
            Step::Forward => {
                for (z, out) in vectors {
                    T::store(s, function.apply(s, Z::load(s, z)), out);
                }
            }
            Step::Backward => {
                for (z, out) in vectors {
                    let slope = function.derivative(s, Z::load(s, z));
                    T::store(s, s.mul(T::load(s, out), slope), out);
                }
            }
        }
    }
}
