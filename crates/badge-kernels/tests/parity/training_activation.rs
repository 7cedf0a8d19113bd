//! Activations in training and their derivatives within their documented bounds.

use badge_kernels::activation::Activation;
use badge_kernels::bf16;
use badge_kernels::gemm::Output;
use badge_kernels::matrix::Matrix;
use badge_kernels::reference::wide;
use badge_kernels::training::Factor;
use badge_kernels::training::activation::{activation_backward, activation_forward};
use badge_kernels::training::reference;

use crate::{Random, assert_close, name, pools};

fn narrowed(x: &Matrix<f32>) -> Matrix<bf16> {
    let mut narrow = Matrix::zeros(x.row_count(), x.columns());
    for i in 0..x.row_count() {
        let row = narrow.row_mut(i).iter_mut().zip(x.row(i));
        row.for_each(|(narrow, x)| *narrow = bf16::from_f32(*x));
    }
    narrow
}

fn widened(x: &Matrix<bf16>) -> Matrix<f32> {
    let mut wide = Matrix::zeros(x.row_count(), x.columns());
    for i in 0..x.row_count() {
        let row = wide.row_mut(i).iter_mut().zip(x.row(i));
        row.for_each(|(wide, x)| *wide = x.to_f32());
    }
    wide
}

/// Arguments from -12 to 12.
fn arguments(random: &mut Random, rows: usize, columns: usize) -> Matrix<f32> {
    let mut z = random.matrix(rows, columns);
    for i in 0..rows {
        z.row_mut(i).iter_mut().for_each(|z| *z *= 12.0);
    }
    z
}

const WIDTHS: [usize; 9] = [1, 7, 8, 15, 16, 17, 33, 100, 513];

/// Rounding to bf16 costs half of its last of eight digits.
const BF16: f64 = 1.0 / 256.0;

#[test]
fn values_are_within_the_bound_in_every_combination_of_types() {
    let mut random = Random(50);
    for pool in pools() {
        for (columns, activation) in WIDTHS.iter().flat_map(|n| Activation::ALL.map(|a| (*n, a))) {
            let rows = 1 + random.below(19);
            let z = arguments(&mut random, rows, columns);
            let narrow = narrowed(&z);
            let what = format!("{}, {activation:?}, {rows} x {columns}", name(&pool));
            for (z, exact) in [
                (Factor::F32(z.rows(rows)), wide(z.rows(rows))),
                (Factor::Bf16(narrow.rows(rows)), wide(narrow.rows(rows))),
            ] {
                let expected = reference::activation_forward(activation, &exact);
                let mut out = Matrix::zeros(rows, columns);
                let mut short = Matrix::<bf16>::zeros(rows, columns);
                activation_forward(&pool, activation, z, Output::F32(out.rows_mut(rows)));
                activation_forward(&pool, activation, z, Output::Bf16(short.rows_mut(rows)));
                let bound = |i: usize, j: usize| 2e-7 * exact[i][j].abs().max(1.0);
                assert_close(&what, out.rows(rows), &expected, bound);
                assert_close(&what, widened(&short).rows(rows), &expected, |i, j| {
                    bound(i, j) + BF16 * expected[i][j].abs()
                });
            }
        }
    }
}

#[test]
fn gradients_are_within_the_bound_in_every_combination_of_types() {
    let mut random = Random(51);
    for pool in pools() {
        for (columns, activation) in WIDTHS.iter().flat_map(|n| Activation::ALL.map(|a| (*n, a))) {
            let rows = 1 + random.below(19);
            let z = arguments(&mut random, rows, columns);
            let narrow = narrowed(&z);
            let dy = random.matrix(rows, columns);
            let what = format!("{}, {activation:?}, {rows} x {columns}", name(&pool));
            for (z, exact) in [
                (Factor::F32(z.rows(rows)), wide(z.rows(rows))),
                (Factor::Bf16(narrow.rows(rows)), wide(narrow.rows(rows))),
            ] {
                let mut gradient = Matrix::zeros(rows, columns);
                for i in 0..rows {
                    gradient.row_mut(i).copy_from_slice(dy.row(i));
                }
                let mut short = narrowed(&dy);
                let of_short = wide(short.rows(rows));
                let expected =
                    reference::activation_backward(activation, &exact, &wide(dy.rows(rows)));
                activation_backward(&pool, activation, z, Output::F32(gradient.rows_mut(rows)));
                // The product is rounded once more than the derivative.
                assert_close(&what, gradient.rows(rows), &expected, |_, _| 6e-7);
                let expected = reference::activation_backward(activation, &exact, &of_short);
                activation_backward(&pool, activation, z, Output::Bf16(short.rows_mut(rows)));
                assert_close(&what, widened(&short).rows(rows), &expected, |i, j| {
                    6e-7 + BF16 * expected[i][j].abs()
                });
            }
        }
    }
}

#[test]
#[should_panic(expected = "another shape")]
fn rows_of_another_width_are_refused() {
    let (z, mut out) = (Matrix::zeros(2, 5), Matrix::zeros(2, 6));
    let (z, out) = (Factor::F32(z.rows(2)), Output::F32(out.rows_mut(2)));
    activation_backward(&pools()[0], Activation::Gelu, z, out);
}
