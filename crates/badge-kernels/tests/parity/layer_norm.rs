//! Layer norm within its documented bound, and its copies exactly.

use badge_kernels::bf16;
use badge_kernels::layer_norm::{LayerNorm, Narrow, NormOutput, layer_norm};
use badge_kernels::matrix::Matrix;
use badge_kernels::quantise::QuantisedMatrix;
use badge_kernels::reference;
use badge_kernels::threads::Pool;

use crate::{Random, assert_close, assert_untouched, bits, lengths, name, pools, sentinels};

fn random_norm(random: &mut Random, columns: usize) -> LayerNorm {
    LayerNorm::new(random.numbers(columns), random.numbers(columns), 1e-12)
}

/// Normalises the rows of `source` without narrow copies.
fn normalised(
    pool: &Pool,
    x: &Matrix<f32>,
    source: Option<&[u32]>,
    norm: &LayerNorm,
) -> Matrix<f32> {
    let rows = source.map_or(x.row_count(), <[u32]>::len);
    let mut out = sentinels(rows + 2, x.columns());
    let output = NormOutput {
        f32: out.rows_mut(rows),
        narrow: Narrow::None,
    };
    layer_norm(pool, x.rows(x.row_count()), source, norm, output);
    assert_untouched(&name(pool), &out, rows);
    out
}

/// Rows of random numbers around different means.
fn random_rows(random: &mut Random, rows: usize, columns: usize) -> Matrix<f32> {
    let mut x = random.matrix(rows, columns);
    for i in 0..rows {
        let mean = [0.0, 0.3, -20.0][i % 3];
        x.row_mut(i).iter_mut().for_each(|x| *x += mean);
    }
    x
}

/// Asserts the bound of the documentation: `2⁻²¹ (max |x| / √(variance + ε) |w| + |b|)`.
fn assert_in_bounds(what: &str, x: &Matrix<f32>, norm: &LayerNorm, out: &Matrix<f32>) {
    let rows = x.row_count();
    let wide = reference::wide(x.rows(rows));
    let sizes: Vec<f64> = wide
        .iter()
        .map(|row| {
            let count = row.len() as f64;
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let largest = row.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            largest / (variance + f64::from(norm.eps())).sqrt()
        })
        .collect();
    let expected = reference::layer_norm(&wide, None, norm);
    assert_close(what, out.rows(rows), &expected, |i, j| {
        let (weight, bias) = (f64::from(norm.weight()[j]), f64::from(norm.bias()[j]));
        2.0_f64.powi(-21) * (sizes[i] * weight.abs() + bias.abs())
    });
}

#[test]
fn rows_are_normalised_within_the_bound() {
    let mut random = Random(6);
    for pool in pools() {
        for columns in lengths() {
            let rows = random.below(20);
            let x = random_rows(&mut random, rows, columns);
            let norm = random_norm(&mut random, columns);
            let out = normalised(&pool, &x, None, &norm);
            let what = format!("{}, {rows} x {columns}", name(&pool));
            assert_in_bounds(&what, &x, &norm, &out);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
    let mut random = Random(7);
    for pool in pools() {
        let x = random_rows(&mut random, 37, 101);
        let norm = random_norm(&mut random, 101);
        let together = bits(normalised(&pool, &x, None, &norm).rows(37));
        let single = Pool::new(pool.isa(), 1);
        for (i, row) in together.iter().enumerate() {
            let alone = Matrix::from_rows(x.row(i), 101);
            assert_eq!(
                bits(normalised(&single, &alone, None, &norm).rows(1))[0],
                *row
            );
        }
    }
}

#[test]
fn sources_choose_and_order_the_rows() {
    let mut random = Random(8);
    for pool in pools() {
        let x = random_rows(&mut random, 30, 50);
        let norm = random_norm(&mut random, 50);
        let all = bits(normalised(&pool, &x, None, &norm).rows(30));
        let source: Vec<u32> = [29, 3, 3, 0, 17, 8, 9, 10, 11, 12].to_vec();
        let chosen = normalised(&pool, &x, Some(&source), &norm);
        let expected: Vec<_> = source.iter().map(|i| all[*i as usize].clone()).collect();
        assert_eq!(bits(chosen.rows(10)), expected, "{}", name(&pool));
        assert_eq!(normalised(&pool, &x, Some(&[]), &norm).row_count(), 2);
    }
}

#[test]
fn the_bf16_copy_is_the_rounded_result() {
    let mut random = Random(9);
    for pool in pools() {
        for columns in lengths() {
            let x = random_rows(&mut random, 9, columns);
            let norm = random_norm(&mut random, columns);
            let expected = normalised(&pool, &x, None, &norm);
            let mut wide = Matrix::zeros(9, columns);
            let mut narrow = Matrix::<bf16>::zeros(9, columns);
            let output = NormOutput {
                f32: wide.rows_mut(9),
                narrow: Narrow::Bf16(narrow.rows_mut(9)),
            };
            layer_norm(&pool, x.rows(9), None, &norm, output);
            assert_eq!(bits(wide.rows(9)), bits(expected.rows(9)));
            for i in 0..9 {
                let rounded = wide.row(i).iter().map(|x| bf16::from_f32(*x));
                assert!(rounded.eq(narrow.row(i).iter().copied()), "{}", name(&pool));
            }
        }
    }
}

#[test]
fn the_int8_copy_is_the_quantised_result() {
    let mut random = Random(10);
    for pool in pools() {
        for columns in lengths() {
            let x = random_rows(&mut random, 9, columns);
            let norm = random_norm(&mut random, columns);
            let mut wide = Matrix::zeros(9, columns);
            let mut narrow = QuantisedMatrix::zeros(9, columns);
            let output = NormOutput {
                f32: wide.rows_mut(9),
                narrow: Narrow::Int8(narrow.rows_mut(9)),
            };
            layer_norm(&pool, x.rows(9), None, &norm, output);
            let narrow = narrow.rows(9);
            for i in 0..9 {
                let row = (
                    narrow.values.row(i).to_vec(),
                    narrow.scales[i],
                    narrow.zero_points[i],
                );
                assert_eq!(row, reference::quantise(wide.row(i)), "{}", name(&pool));
            }
        }
    }
}

#[test]
fn constant_rows_give_the_bias() {
    for pool in pools() {
        // Powers of two add up without rounding, so the variance is zero exactly.
        let x = Matrix::from_rows(&[0.25; 64], 64);
        let norm = LayerNorm::new(vec![3.0; 64], vec![0.5; 64], 1e-12);
        let out = normalised(&pool, &x, None, &norm);
        assert!(out.row(0).iter().all(|y| *y == 0.5), "{}", name(&pool));
    }
}

#[test]
#[should_panic(expected = "row 4 of 4")]
fn a_source_beyond_the_rows_panics() {
    let norm = LayerNorm::new(vec![1.0; 3], vec![0.0; 3], 1e-5);
    normalised(&pools()[0], &Matrix::zeros(4, 3), Some(&[0, 4]), &norm);
}
