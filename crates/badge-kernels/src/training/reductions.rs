//! Sums over many numbers, in an order that does not depend on the number of threads.

use super::Factor;
use crate::threads::Pool;

/// `G ← G + Σ_t dY[t]`, the gradient of the bias of `Y = X Wᵀ + b`.
///
/// # Shapes
/// `dY: [T, N]`, `gradient: [N]`.
///
/// # Panics
/// When shapes disagree.
pub fn bias_gradient(pool: &Pool, dy: Factor<'_>, gradient: &mut [f32]) {
    let _ = pool;
    assert_eq!(dy.columns(), gradient.len(), "columns and gradient");
    match dy {
        Factor::F32(dy) => (0..dy.count()).for_each(|token| {
            let row = gradient.iter_mut().zip(dy.row(token));
            row.for_each(|(sum, dy)| *sum += dy);
        }),
        Factor::Bf16(dy) => (0..dy.count()).for_each(|token| {
            let row = gradient.iter_mut().zip(dy.row(token));
            row.for_each(|(sum, dy)| *sum += dy.to_f32());
        }),
    }
}

/// `Σ xᵢ²`.
pub fn sum_of_squares(pool: &Pool, x: &[f32]) -> f64 {
    let _ = pool;
    x.iter().map(|x| f64::from(*x).powi(2)).sum()
}
