//! Products with few outputs against the f64 reference, at all sizes around a vector and a group
//! of outputs.

use badge_kernels::activation::Activation;
use badge_kernels::gemm::Epilogue;
use badge_kernels::isa::Isa;
use badge_kernels::matrix::Matrix;
use badge_kernels::narrow::narrow_product;
use badge_kernels::reference;
use badge_kernels::threads::Pool;

use crate::numbers;

#[test]
fn few_outputs_agree_with_the_reference_on_every_instruction_set() {
    for isa in Isa::available() {
        for threads in [1, 2] {
            let pool = Pool::new(isa, threads);
            for (case, (n, k)) in sizes().into_iter().enumerate() {
                let activation = Activation::ALL[case % Activation::ALL.len()];
                check(&pool, [case % 4, n, k], activation);
            }
        }
    }
}

fn sizes() -> Vec<(usize, usize)> {
    let outputs = [1, 2, 3, 4, 5, 8, 16, 17, 31];
    let inputs = [1, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100];
    let pairs = |n| inputs.map(move |k| (n, k));
    outputs.into_iter().flat_map(pairs).collect()
}

fn check(pool: &Pool, [m, n, k]: [usize; 3], activation: Activation) {
    let (x, w, bias) = (numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3));
    let with_bias = (m + n + k).is_multiple_of(2);
    let epilogue = Epilogue {
        bias: with_bias.then_some(&bias[..]),
        activation,
        ..Epilogue::NONE
    };
    let expected = reference::gemm(
        &reference::wide_slice(&x, k),
        &reference::wide_slice(&w, k),
        &epilogue,
    );
    let weights = Matrix::from_rows(&w, k);
    let mut out = Matrix::from_rows(&vec![99.0; (m + 1) * n], n);
    narrow_product(
        pool,
        Matrix::from_rows(&x, k).rows(m),
        &weights,
        (epilogue.bias, activation),
        out.rows_mut(m),
    );
    for (row, expected) in expected.iter().enumerate() {
        for (y, expected) in out.row(row).iter().zip(expected) {
            // Sums of at most 100 products of numbers below 1, and the activations' own 1e-6.
            let close = (f64::from(*y) - expected).abs() <= 1e-5 * (1.0 + expected.abs());
            assert!(close, "{m} x {n} x {k}, {activation:?}: {y} for {expected}");
        }
    }
    assert!(out.row(m).iter().all(|y| *y == 99.0), "row {m} is not its");
}
