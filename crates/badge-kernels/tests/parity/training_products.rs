//! Products, sums and the optimiser of training against the f64 reference.

use badge_kernels::bf16;
use badge_kernels::gemm::{Epilogue, Input, Output, PackedMatrix, Precision, gemm};
use badge_kernels::matrix::{Matrix, Rows};
use badge_kernels::reference;
use badge_kernels::threads::Pool;
use badge_kernels::training::Factor;
use badge_kernels::training::adamw::{AdamWStep, Moments, adamw};
use badge_kernels::training::products::{GradientScratch, TrainedMatrix, weight_gradient};
use badge_kernels::training::reductions::{bias_gradient, sum_of_squares};

use crate::{Random, bits, name, numbers, pools};

/// Precisions that training multiplies in.
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Rows in both precisions, beside other columns and rows that nobody may read as their own: those
/// are NaN.
struct Both {
    f32: Matrix<f32>,
    bf16: Matrix<bf16>,
    rows: usize,
    columns: std::ops::Range<usize>,
}

impl Both {
    fn new(rows: usize, columns: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let before = 16;
        let (mut f32, mut short) = (
            Matrix::zeros(rows + 1, before + columns + 3),
            Matrix::zeros(rows + 1, before + columns + 3),
        );
        for i in 0..=rows {
            f32.row_mut(i).fill(f32::NAN);
            short.row_mut(i).fill(bf16::NAN);
        }
        for i in 0..rows {
            // Numbers that both precisions hold: there is one expected result.
            for j in before..before + columns {
                let number = bf16::from_f32(random.number());
                f32.row_mut(i)[j] = number.to_f32();
                short.row_mut(i)[j] = number;
            }
        }
        Self {
            f32,
            bf16: short,
            rows,
            columns: before..before + columns,
        }
    }

    fn wide(&self) -> Rows<'_, f32> {
        self.f32.rows(self.rows).slice(self.columns.clone())
    }

    fn factor(&self, precision: Precision) -> Factor<'_> {
        match precision {
            Precision::Bf16 => Factor::Bf16(self.bf16.rows(self.rows).slice(self.columns.clone())),
            _ => Factor::F32(self.wide()),
        }
    }
}

/// `gradient += dYᵀ X` for factors of that shape.
fn check_weight_gradient(pool: &Pool, [t, n, k]: [usize; 3], precision: Precision) {
    let what = format!("{}: {precision}, {t} x {n} x {k}", name(pool));
    let (dy, x) = (Both::new(t, n, 1), Both::new(t, k, 2));
    let before = numbers(n * k, 3);
    let mut gradient = before.clone();
    let mut scratch = GradientScratch::new(pool);
    let [left, right] = [&dy, &x].map(|both| both.factor(precision));
    weight_gradient(pool, left, right, &mut scratch, &mut gradient);

    let [dy, x] = [&dy, &x].map(|both| reference::wide(both.wide()));
    let expected = reference::weight_gradient(&dy, &x, k);
    for i in 0..n {
        for j in 0..k {
            let before = f64::from(before[i * k + j]);
            let expected = before + expected.get(i).map_or(0.0, |row| row[j]);
            let magnitude: f64 = dy.iter().zip(&x).map(|(dy, x)| (dy[i] * x[j]).abs()).sum();
            let bound = 2_f64.powi(-24) * (t + 4) as f64 * (magnitude + before.abs());
            let found = f64::from(gradient[i * k + j]);
            assert!(
                (found - expected).abs() <= bound,
                "{what}: {found} instead of {expected} at [{i}, {j}]"
            );
        }
    }
}

/// Around pairs of tokens and the tokens that are summed at once.
const TOKENS: [usize; 9] = [0, 1, 2, 3, 4, 5, 8, 33, 130];
/// Around tiles of 6, 8 and 16 outputs and the outputs that a task has.
const OUTPUTS: [usize; 15] = [1, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 49, 64, 71, 200];
/// Around vectors of 8 and 16 inputs, panels of 32 and of 48.
const INPUTS: [usize; 13] = [1, 7, 8, 9, 15, 17, 31, 32, 33, 47, 48, 49, 100];

#[test]
fn gradients_of_weights_agree_with_the_reference_and_are_added() {
    for pool in pools() {
        for precision in PRECISIONS {
            for t in TOKENS {
                for (n, k) in OUTPUTS.into_iter().zip(INPUTS.into_iter().cycle().skip(t)) {
                    check_weight_gradient(&pool, [t, n, k], precision);
                }
            }
            for n in OUTPUTS {
                check_weight_gradient(&pool, [5, n, 40], precision);
            }
            for k in INPUTS {
                check_weight_gradient(&pool, [6, 11, k], precision);
            }
        }
    }
}

/// More tokens than are summed at once.
#[test]
fn gradients_of_weights_over_many_tokens_agree_with_the_reference() {
    for pool in pools() {
        for precision in PRECISIONS {
            check_weight_gradient(&pool, [2083, 9, 35], precision);
        }
    }
}

#[test]
fn gradients_have_the_same_bits_with_any_number_of_threads() {
    let (dy, x) = (Both::new(1031, 150, 1), Both::new(1031, 70, 2));
    for isa in badge_kernels::isa::Isa::available() {
        for precision in PRECISIONS {
            let gradients = [1, 2, 5].map(|threads| {
                let pool = Pool::new(isa, threads);
                let (mut weights, mut bias) = (numbers(150 * 70, 3), numbers(150, 4));
                let [dy, x] = [&dy, &x].map(|both| both.factor(precision));
                let mut scratch = GradientScratch::new(&pool);
                weight_gradient(&pool, dy, x, &mut scratch, &mut weights);
                bias_gradient(&pool, dy, &mut bias);
                let norm = sum_of_squares(&pool, &weights);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                (bits(&weights), bits(&bias), norm.to_bits())
            });
            assert_eq!(gradients[0], gradients[1], "{isa} {precision}");
            assert_eq!(gradients[0], gradients[2], "{isa} {precision}");
        }
    }
}

#[test]
#[should_panic(expected = "both factors in one precision")]
fn a_gradient_refuses_factors_of_two_precisions() {
    let pool = Pool::new(badge_kernels::isa::Isa::Scalar, 1);
    let (dy, x) = (Both::new(2, 3, 1), Both::new(2, 4, 2));
    let (dy, x) = (dy.factor(Precision::F32), x.factor(Precision::Bf16));
    let mut scratch = GradientScratch::new(&pool);
    weight_gradient(&pool, dy, x, &mut scratch, &mut [0.0; 12]);
}

#[test]
fn gradients_of_biases_agree_with_the_reference_and_are_added() {
    for pool in pools() {
        for precision in PRECISIONS {
            for t in TOKENS {
                for n in OUTPUTS.into_iter().chain([130, 300]) {
                    let dy = Both::new(t, n, 5);
                    let before = numbers(n, 6);
                    let mut gradient = before.clone();
                    bias_gradient(&pool, dy.factor(precision), &mut gradient);
                    let dy = reference::wide(dy.wide());
                    let sums = reference::bias_gradient(&dy, n);
                    for j in 0..n {
                        let before = f64::from(before[j]);
                        let magnitude: f64 = dy.iter().map(|dy| dy[j].abs()).sum();
                        let bound = 2_f64.powi(-24) * (t + 2) as f64 * (magnitude + before.abs());
                        let (found, expected) = (f64::from(gradient[j]), before + sums[j]);
                        assert!(
                            (found - expected).abs() <= bound,
                            "{}: {precision}, {t} x {n}: {found} instead of {expected}",
                            name(&pool)
                        );
                    }
                }
            }
        }
    }
}

/// What the products give with `packed`, which tells all that matters of it.
fn product(pool: &Pool, packed: &PackedMatrix) -> Vec<Vec<u32>> {
    let k = packed.inputs();
    let x = numbers(5 * k, 8);
    let wide = Matrix::from_rows(&x, k);
    let narrow: Vec<bf16> = x.into_iter().map(bf16::from_f32).collect();
    let narrow = Matrix::from_rows(&narrow, k);
    let input = match packed.precision() {
        Precision::Bf16 => Input::Bf16(narrow.rows(5)),
        _ => Input::F32(wide.rows(5)),
    };
    let mut y = Matrix::<f32>::zeros(5, packed.outputs());
    let out = Output::F32(y.rows_mut(5));
    gemm(pool, input, packed, &Epilogue::NONE, out);
    bits(y.rows(5))
}

#[test]
fn trained_weights_multiply_as_weights_packed_once_do_in_both_directions() {
    for pool in pools() {
        for precision in PRECISIONS {
            for (n, k) in OUTPUTS.into_iter().zip(INPUTS).chain([(70, 70), (64, 96)]) {
                let mut matrix = TrainedMatrix::new(n, k, precision);
                // The second packing must leave nothing of the first.
                for seed in [1, 2] {
                    let weights = numbers(n * k, seed);
                    let transposed: Vec<f32> =
                        (0..n * k).map(|i| weights[i % n * k + i / n]).collect();
                    matrix.pack(&pool, &weights);
                    let forward = PackedMatrix::pack(&weights, n, k, precision);
                    let backward = PackedMatrix::pack(&transposed, k, n, precision);
                    let what = format!("{}: {precision}, {n} x {k}", name(&pool));
                    for (ours, expected) in
                        [(matrix.forward(), forward), (matrix.backward(), backward)]
                    {
                        assert_eq!(ours.bytes(), expected.bytes(), "{what}");
                        assert_eq!(product(&pool, ours), product(&pool, &expected), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "int8 weights are not trained")]
fn int8_weights_are_not_trained() {
    let _ = TrainedMatrix::new(2, 2, Precision::Int8);
}

const STEP: AdamWStep = AdamWStep {
    beta1: 0.9,
    fresh1: 0.1,
    beta2: 0.999,
    fresh2: 0.001,
    eps: 1e-8,
    clip: 0.37,
    keep: 0.999_99,
    rate: 2e-3,
    square_correction: 0.044_7,
};

#[test]
fn a_step_of_adamw_agrees_with_the_reference_and_has_the_same_bits_everywhere() {
    for n in (0..70).chain([1000, 40_000]) {
        let (p, g, m) = (numbers(n, 1), numbers(n, 2), numbers(n, 3));
        let v: Vec<f32> = numbers(n, 4).into_iter().map(f32::abs).collect();
        let mut first: Option<[Vec<f32>; 3]> = None;
        for pool in pools() {
            let [mut p_now, mut m_now, mut v_now] = [&p, &m, &v].map(Vec::clone);
            let moments = Moments {
                mean: &mut m_now,
                square: &mut v_now,
            };
            adamw(&pool, &STEP, &mut p_now, &g, moments);
            for i in 0..n {
                let before = [p[i], g[i], m[i], v[i]].map(f64::from);
                let expected = reference::adamw(&STEP, before);
                for (found, expected) in [p_now[i], m_now[i], v_now[i]].into_iter().zip(expected) {
                    // A handful of roundings of numbers up to 1; the step is at most 0.1.
                    assert!(
                        (f64::from(found) - expected).abs() <= 4.0 * 2_f64.powi(-24),
                        "{}: {found} instead of {expected}, element {i} of {n}",
                        name(&pool)
                    );
                }
            }
            let now = [p_now, m_now, v_now];
            assert_eq!(
                first.get_or_insert_with(|| now.clone()),
                &now,
                "{}",
                name(&pool)
            );
        }
    }
}

#[test]
fn sums_of_squares_agree_with_the_reference_and_with_themselves() {
    for n in (0..140).chain([4095, 4097, 100_003]) {
        let x = numbers(n, 9);
        let expected = reference::sum_of_squares(&x);
        for pool in pools() {
            let found = sum_of_squares(&pool, &x);
            assert!(
                (found - expected).abs() <= 1e-6 * expected,
                "{}: {found} instead of {expected}",
                name(&pool)
            );
        }
    }
}

#[test]
fn a_number_that_is_not_finite_shows_in_the_sum_of_squares() {
    for pool in pools() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = numbers(300, 9);
            x[217] = bad;
            assert!(!sum_of_squares(&pool, &x).is_finite(), "{}", name(&pool));
        }
    }
}
