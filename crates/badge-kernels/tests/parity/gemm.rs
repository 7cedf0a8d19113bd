//! Products against the f64 reference: every precision, every instruction set, all sizes around a
//! tile.

use badge_kernels::activation::Activation;
use badge_kernels::bf16;
use badge_kernels::gemm::{Epilogue, Input, Output, PackedMatrix, Precision, Upcoming, gemm};
use badge_kernels::isa::Isa;
use badge_kernels::matrix::Matrix;
use badge_kernels::quantise::{QuantisedMatrix, quantise_rows};
use badge_kernels::reference::{self, Row};
use badge_kernels::threads::Pool;

use crate::numbers;

/// Around one and two tiles of eight rows (AVX-512), of six (AVX2) and of sixteen and 32 (AMX).
const ROWS: [usize; 16] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 16, 17, 31, 32, 33, 67];
/// Around one panel of 32 columns and its halves, and more than the panels a single row takes.
const OUTPUTS: [usize; 9] = [1, 15, 16, 17, 31, 33, 64, 70, 130];
/// Around the unrolling by four groups of one, two and four inputs and around runs of 64, which are
/// int8's and, with two to a group or four, one or two steps of AMX.
const INPUTS: [usize; 15] = [1, 2, 3, 4, 5, 7, 15, 16, 17, 32, 33, 63, 64, 65, 130];

/// Factors in one precision, and the numbers they stand for.
struct Factors {
    f32: Matrix<f32>,
    bf16: Matrix<bf16>,
    int8: QuantisedMatrix,
    packed: PackedMatrix,
    x: Vec<Row>,
    w: Vec<Row>,
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect()
}

impl Factors {
    fn new(pool: &Pool, [m, n, k]: [usize; 3], precision: Precision) -> Self {
        let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
        let f32 = Matrix::from_rows(&x, k);
        let narrow: Vec<bf16> = x.iter().copied().map(bf16::from_f32).collect();
        let mut int8 = QuantisedMatrix::zeros(m, k);
        quantise_rows(pool, f32.rows(m), int8.rows_mut(m));
        let (x, w_numbers) = match precision {
            Precision::F32 => (reference::wide_slice(&x, k), reference::wide_slice(&w, k)),
            Precision::Bf16 => (
                reference::wide_slice(&rounded(&x), k),
                reference::wide_slice(&rounded(&w), k),
            ),
            Precision::Int8 => (reference::dequantise(int8.rows(m)), dequantised(&w, k)),
        };
        Self {
            bf16: Matrix::from_rows(&narrow, k),
            packed: PackedMatrix::pack(&w, n, k, precision),
            f32,
            int8,
            x,
            w: w_numbers,
        }
    }

    fn input(&self, precision: Precision) -> Input<'_> {
        let m = self.f32.row_count();
        match precision {
            Precision::F32 => Input::F32(self.f32.rows(m)),
            Precision::Bf16 => Input::Bf16(self.bf16.rows(m)),
            Precision::Int8 => Input::Int8(self.int8.rows(m)),
        }
    }
}

fn dequantised(weights: &[f32], columns: usize) -> Vec<Row> {
    let numbers = |run: &[f32]| {
        let (values, scale) = reference::quantise_weights(run);
        let numbers = values
            .into_iter()
            .map(move |v| f64::from(v) * f64::from(scale));
        numbers.collect::<Row>()
    };
    let rows = weights.chunks_exact(columns);
    rows.map(|row| row.chunks(64).flat_map(numbers).collect())
        .collect()
}

/// `2⁻²⁴ (K + 4) Σ|x w|`, the bound of `gemm`'s documentation, and the error of the activation.
fn bound(x: &Row, w: &Row) -> f64 {
    let magnitude: f64 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
    2_f64.powi(-24) * (x.len() + 4) as f64 * (magnitude + 2.0) + 2e-6
}

fn check(pool: &Pool, shape: [usize; 3], precision: Precision, activation: Activation) {
    let [m, n, _] = shape;
    let factors = Factors::new(pool, shape, precision);
    let (bias, residual) = (numbers(n, 3), Matrix::from_rows(&numbers(m * n, 4), n));
    let epilogue = Epilogue {
        bias: Some(&bias),
        activation,
        residual: Some(residual.rows(m)),
        ..Epilogue::NONE
    };
    let expected = reference::gemm(&factors.x, &factors.w, &epilogue);
    // One row more than is asked for must stay as it was.
    let mut wide = Matrix::from_rows(&vec![77.0_f32; (m + 1) * n], n);
    let mut narrow = Matrix::from_rows(&vec![bf16::from_f32(77.0); (m + 1) * n], n);
    let input = || factors.input(precision);
    gemm(
        pool,
        input(),
        &factors.packed,
        &epilogue,
        Output::F32(wide.rows_mut(m)),
    );
    gemm(
        pool,
        input(),
        &factors.packed,
        &epilogue,
        Output::Bf16(narrow.rows_mut(m)),
    );
    let at = format!("{} {precision} {shape:?} {activation:?}", pool.isa());
    for i in 0..m {
        for j in 0..n {
            let (found, expected) = (wide.row(i)[j], expected[i][j]);
            let error = (f64::from(found) - expected).abs();
            let bound = bound(&factors.x[i], &factors.w[j]);
            assert!(
                error <= bound,
                "{at}: [{i}, {j}] is {found}, not {expected}"
            );
            assert_eq!(
                narrow.row(i)[j],
                bf16::from_f32(found),
                "{at}: bf16 of [{i}, {j}]"
            );
        }
    }
    assert!(
        wide.row(m).iter().all(|v| *v == 77.0),
        "{at}: wrote beyond its rows"
    );
    assert!(
        narrow.row(m).iter().all(|v| v.to_f32() == 77.0),
        "{at}: wrote beyond its rows"
    );
}

#[test]
fn products_of_all_sizes_agree_with_the_reference() {
    for isa in Isa::available() {
        for pool in [Pool::new(isa, 1), Pool::new(isa, 3)] {
            for precision in Precision::ALL {
                for m in ROWS {
                    for (n, k) in OUTPUTS.into_iter().zip(INPUTS.into_iter().cycle().skip(m)) {
                        check(&pool, [m, n, k], precision, Activation::Identity);
                    }
                }
                for k in INPUTS {
                    check(&pool, [9, 33, k], precision, Activation::Identity);
                }
            }
        }
    }
}

#[test]
fn every_activation_leaves_a_product_as_the_reference_says() {
    for isa in Isa::available() {
        let pool = Pool::new(isa, 2);
        for activation in Activation::ALL {
            for precision in Precision::ALL {
                check(&pool, [9, 35, 20], precision, activation);
            }
        }
    }
}

/// Larger than what stays in a cache, so that rows are cut into several parts.
#[test]
fn products_cut_into_parts_agree_with_the_reference() {
    for isa in Isa::available() {
        let pool = Pool::new(isa, 2);
        check(&pool, [97, 40, 3072], Precision::F32, Activation::Identity);
        check(
            &pool,
            [197, 40, 3072],
            Precision::Bf16,
            Activation::Identity,
        );
    }
}

#[test]
fn integer_sums_are_exact_and_the_same_on_every_instruction_set() {
    let [m, n, k] = [13, 37, 301];
    // The largest bytes there are: saturating instructions would be caught here. All scales of the
    // weights are 1, and all sums are whole numbers that f32 holds.
    let extreme: Vec<f32> = (0..n * k)
        .map(|i| if i % 3 == 0 { -127.0 } else { 127.0 })
        .collect();
    let x: Vec<f32> = (0..m * k)
        .map(|i| [0.0, 1.0, 1.0, -1.0, 1.0][i % 5])
        .collect();
    let x = Matrix::from_rows(&x, k);
    let weights: Vec<Vec<i8>> = extreme
        .chunks_exact(k)
        .map(|row| reference::quantise_weights(row).0)
        .collect();
    let packed = PackedMatrix::pack(&extreme, n, k, Precision::Int8);
    let mut first: Option<Matrix<f32>> = None;
    for isa in Isa::available() {
        let pool = Pool::new(isa, 1);
        let mut q = QuantisedMatrix::zeros(m, k);
        quantise_rows(&pool, x.rows(m), q.rows_mut(m));
        let exact = reference::gemm_int8(q.rows(m), &weights);
        let mut out = Matrix::<f32>::zeros(m, n);
        gemm(
            &pool,
            Input::Int8(q.rows(m)),
            &packed,
            &Epilogue::NONE,
            Output::F32(out.rows_mut(m)),
        );
        for (i, exact) in exact.iter().enumerate() {
            let scale = q.rows(m).scales[i];
            for (j, exact) in exact.iter().enumerate() {
                assert_eq!(out.row(i)[j], *exact as f32 * scale, "{isa} [{i}, {j}]");
            }
        }
        match &first {
            None => first = Some(out),
            Some(first) => {
                assert!(
                    (0..m).all(|i| first.row(i) == out.row(i)),
                    "{isa} differs from scalar"
                );
            }
        }
    }
}

#[test]
fn int8_products_are_the_same_bits_wherever_a_multiply_add_is_fused() {
    for [m, n, k] in [[1, 40, 200], [5, 170, 130], [16, 70, 63], [45, 97, 333]] {
        let mut first: Option<Vec<Vec<u32>>> = None;
        for isa in Isa::available()
            .into_iter()
            .filter(|isa| *isa != Isa::Scalar)
        {
            let pool = Pool::new(isa, 2);
            let factors = Factors::new(&pool, [m, n, k], Precision::Int8);
            let mut out = Matrix::<f32>::zeros(m, n);
            gemm(
                &pool,
                factors.input(Precision::Int8),
                &factors.packed,
                &Epilogue::NONE,
                Output::F32(out.rows_mut(m)),
            );
            let found = crate::bits(out.rows(m));
            match &first {
                None => first = Some(found),
                Some(first) => assert!(*first == found, "{isa} {:?}", [m, n, k]),
            }
        }
    }
}

#[test]
fn a_row_of_a_product_does_not_depend_on_its_neighbours_or_on_threads() {
    // Wide enough for a row alone to take several panels at once; rows for one low tile, and for
    // several of any instruction set.
    let shapes = [[23, 170, 133], [70, 170, 133]];
    for (isa, [m, n, k]) in Isa::available()
        .into_iter()
        .flat_map(|isa| shapes.map(|shape| (isa, shape)))
    {
        for precision in Precision::ALL {
            let all = Pool::new(isa, 3);
            let factors = Factors::new(&all, [m, n, k], precision);
            let epilogue = Epilogue {
                activation: Activation::Gelu,
                ..Epilogue::NONE
            };
            let mut together = Matrix::<f32>::zeros(m, n);
            let out = Output::F32(together.rows_mut(m));
            gemm(
                &all,
                factors.input(precision),
                &factors.packed,
                &epilogue,
                out,
            );
            let one = Pool::new(isa, 1);
            for i in 0..m {
                let mut alone = Matrix::<f32>::zeros(1, n);
                let mut quantised = QuantisedMatrix::zeros(1, k);
                quantised.copy_row(0, &factors.int8, i);
                let input = match precision {
                    Precision::F32 => Input::F32(factors.f32.rows_in(i..i + 1)),
                    Precision::Bf16 => Input::Bf16(factors.bf16.rows_in(i..i + 1)),
                    Precision::Int8 => Input::Int8(quantised.rows(1)),
                };
                gemm(
                    &one,
                    input,
                    &factors.packed,
                    &epilogue,
                    Output::F32(alone.rows_mut(1)),
                );
                assert_eq!(alone.row(0), together.row(i), "{isa} {precision} row {i}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "activations and weights differ")]
fn a_product_refuses_activations_of_another_precision() {
    let pool = Pool::new(Isa::Scalar, 1);
    let (x, mut y) = (Matrix::<f32>::zeros(1, 4), Matrix::<f32>::zeros(1, 2));
    let weights = PackedMatrix::pack(&[0.0; 8], 2, 4, Precision::Bf16);
    gemm(
        &pool,
        Input::F32(x.rows(1)),
        &weights,
        &Epilogue::NONE,
        Output::F32(y.rows_mut(1)),
    );
}

/// Whatever is asked for ahead, weights larger and smaller than the product can ask for included.
#[test]
fn what_comes_next_changes_no_bit_of_a_product() {
    let (m, n, k) = (33, 70, 65);
    for isa in Isa::available() {
        let pool = Pool::new(isa, 2);
        for precision in Precision::ALL {
            let factors = Factors::new(&pool, [m, n, k], precision);
            let unpacked = Matrix::from_rows(&numbers(3 * k, 7), k);
            let next = [
                Upcoming::from(&factors.packed),
                Upcoming::default(),
                Upcoming::from(&unpacked),
            ];
            let run = |next: &[Upcoming]| {
                let mut out = Matrix::<f32>::zeros(m, n);
                let input = factors.input(precision);
                let output = Output::F32(out.rows_mut(m));
                let epilogue = Epilogue {
                    next,
                    ..Epilogue::NONE
                };
                gemm(&pool, input, &factors.packed, &epilogue, output);
                reference::wide(out.rows(m))
            };
            assert_eq!(run(&next), run(&[]));
        }
    }
}
