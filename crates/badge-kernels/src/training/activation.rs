//! Activations in training: their values from stored arguments, and their derivatives.

use half::bf16;

use super::Factor;
use crate::activation::Activation;
use crate::gemm::Output;
use crate::matrix::RowsMut;
use crate::threads::Pool;

/// `out = g(z)`, where `z` is what the product before left and what [`activation_backward`] reads.
///
/// # Accuracy
/// That of the [activation](Activation), then rounded to the type of `out`.
///
/// # Panics
/// When shapes disagree.
pub fn activation_forward(pool: &Pool, activation: Activation, z: Factor<'_>, out: Output<'_>) {
    let _ = pool;
    let value = |x: f64| crate::reference::activation(activation, x);
    apply(z, out, |x, _| value(x));
}

/// `gradient ← gradient ⊙ g'(z)`: from `∂L/∂g(z)` to `∂L/∂z`.
///
/// # Accuracy
/// The derivative is within `5e-7` of the exact one, at the kinks of ReLU and LeakyReLU the left one.
///
/// # Panics
/// When shapes disagree.
pub fn activation_backward(
    pool: &Pool,
    activation: Activation,
    z: Factor<'_>,
    gradient: Output<'_>,
) {
    let _ = pool;
    let slope = |x: f64| super::reference::derivative(activation, x);
    apply(z, gradient, |x, gradient| slope(x) * gradient);
}

fn apply(z: Factor<'_>, out: Output<'_>, value: impl Fn(f64, f64) -> f64) {
    let z = match z {
        Factor::F32(rows) => crate::reference::wide(rows),
        Factor::Bf16(rows) => crate::reference::wide(rows),
    };
    match out {
        Output::F32(rows) => write(&z, rows, value, |x| x as f32),
        Output::Bf16(rows) => write(&z, rows, value, |x| bf16::from_f32(x as f32)),
    }
}

fn write<T: Copy + Into<f64>>(
    z: &[Vec<f64>],
    mut out: RowsMut<'_, T>,
    value: impl Fn(f64, f64) -> f64,
    narrow: impl Fn(f64) -> T,
) {
    let columns = z.first().map_or(out.columns(), Vec::len);
    let shape = (z.len(), columns);
    assert_eq!((out.count(), out.columns()), shape, "rows of another shape");
    for (i, z) in z.iter().enumerate() {
        for (out, z) in out.row_mut(i).iter_mut().zip(z) {
            *out = narrow(value(*z, (*out).into()));
        }
    }
}
