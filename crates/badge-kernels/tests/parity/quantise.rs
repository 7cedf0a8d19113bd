//! Quantised rows are the reference's to the bit, whatever the machine.

use badge_kernels::matrix::Matrix;
use badge_kernels::quantise::{QuantisedMatrix, quantise_rows};
use badge_kernels::reference;
use badge_kernels::threads::Pool;

use crate::{Random, lengths, name, pools};

/// Quantises all rows into the first of a larger matrix, whose other rows must not change.
fn quantised(pool: &Pool, x: &Matrix<f32>) -> QuantisedMatrix {
    let rows = x.row_count();
    let mut out = QuantisedMatrix::zeros(rows + 1, x.columns());
    let mut last = out.rows_mut(rows + 1);
    last.values.row_mut(rows).fill(77);
    last.scales[rows] = 7.5;
    last.zero_points[rows] = 7;
    quantise_rows(pool, x.rows(rows), out.rows_mut(rows));
    let all = out.rows(rows + 1);
    assert!(all.values.row(rows).iter().all(|q| *q == 77));
    assert_eq!((all.scales[rows], all.zero_points[rows]), (7.5, 7));
    out
}

fn assert_as_the_reference(what: &str, x: &Matrix<f32>, out: &QuantisedMatrix) {
    let out = out.rows(x.row_count());
    for i in 0..x.row_count() {
        let (values, scale, zero_point) = reference::quantise(x.row(i));
        assert_eq!(out.scales[i].to_bits(), scale.to_bits(), "{what}, row {i}");
        assert_eq!(out.zero_points[i], zero_point, "{what}, row {i}");
        assert_eq!(out.values.row(i), values, "{what}, row {i}");
    }
}

#[test]
fn bytes_scales_and_zero_points_are_the_references() {
    let mut random = Random(3);
    for pool in pools() {
        for columns in lengths() {
            let rows = random.below(20);
            let mut x = random.matrix(rows, columns);
            for i in 0..rows {
                // Rows on one side of zero, on both, and of different sizes.
                let (size, shift) = (10.0_f32.powi(i as i32 - 10), random.number() * 2.0);
                x.row_mut(i)
                    .iter_mut()
                    .for_each(|x| *x = (*x + shift) * size);
            }
            let what = format!("{}, {rows} x {columns}", name(&pool));
            let out = quantised(&pool, &x);
            assert_as_the_reference(&what, &x, &out);
            assert_close_to_half_a_scale(&what, &x, &out);
        }
    }
}

/// The bound of the documentation.
fn assert_close_to_half_a_scale(what: &str, x: &Matrix<f32>, out: &QuantisedMatrix) {
    let out = out.rows(x.row_count());
    for (i, row) in reference::dequantise(out).iter().enumerate() {
        let bound = 0.5001 * f64::from(out.scales[i]);
        for (x, y) in x.row(i).iter().zip(row) {
            assert!((f64::from(*x) - y).abs() <= bound, "{what}: {x} became {y}");
        }
    }
}

#[test]
fn rows_without_a_range_are_zeros() {
    for pool in pools() {
        for x in [0.0, -0.0, 1e-45, -1e-40, 1e-37, f32::MIN_POSITIVE] {
            let x = Matrix::from_rows(&[x; 40], 40);
            let out = quantised(&pool, &x);
            assert_as_the_reference(&name(&pool), &x, &out);
            assert!(out.rows(1).values.row(0).iter().all(|q| *q == 0));
            assert_eq!(
                (out.rows(1).scales, out.rows(1).zero_points),
                (&[1.0][..], &[0][..])
            );
        }
    }
}

#[test]
fn extremes_take_the_ends_of_the_range() {
    for pool in pools() {
        for (x, byte, zero_point) in [(3.0, 255, 0), (-3.0, 0, 255)] {
            let out = quantised(&pool, &Matrix::from_rows(&[x], 1));
            assert_eq!(out.rows(1).values.row(0), [byte]);
            assert_eq!(out.rows(1).zero_points, [zero_point]);
        }
        for place in 0..40 {
            let mut x = [0.5; 40];
            x[place] = 5.1;
            x[39 - place] = -5.1;
            let out = quantised(&pool, &Matrix::from_rows(&x, 40));
            let bytes = out.rows(1).values.row(0);
            assert_eq!((bytes[place], bytes[39 - place]), (255, 0), "{place}");
        }
    }
}

#[test]
fn nan_becomes_zero_and_does_not_count() {
    for pool in pools() {
        for place in 0..70 {
            let mut x = Random(4).numbers(70);
            x[place] = 0.0;
            let (mut expected, scale, zero_point) = reference::quantise(&x);
            expected[place] = 0;
            x[place] = f32::NAN;
            let out = quantised(&pool, &Matrix::from_rows(&x, 70));
            let out = out.rows(1);
            assert_eq!(out.values.row(0), expected);
            assert_eq!((out.scales[0], out.zero_points[0]), (scale, zero_point));
        }
    }
}

#[test]
fn infinite_ranges_read_back_as_nan() {
    let infinite = [
        [f32::INFINITY, 1.0],
        [1.0, f32::NEG_INFINITY],
        [f32::INFINITY, f32::NEG_INFINITY],
        [f32::MAX, f32::MIN],
    ];
    for pool in pools() {
        for x in infinite {
            let out = quantised(&pool, &Matrix::from_rows(&x, 2));
            let row = &reference::dequantise(out.rows(1))[0];
            assert!(row.iter().all(|x| x.is_nan()), "{x:?}: {row:?}");
        }
    }
}

#[test]
fn any_bits_at_all_give_the_same_bytes_everywhere() {
    let mut random = Random(5);
    for columns in [1, 7, 33, 70, 200] {
        let mut x = Matrix::zeros(50, columns);
        for i in 0..50 {
            let row = x.row_mut(i).iter_mut();
            row.for_each(|x| *x = f32::from_bits(random.bits() as u32));
        }
        let all: Vec<_> = pools().iter().map(|pool| quantised(pool, &x)).collect();
        let first = all[0].rows(50);
        for (out, pool) in all.iter().zip(pools()) {
            let out = out.rows(50);
            for i in 0..50 {
                let what = format!("{}, row {i} of {columns}", name(&pool));
                assert_eq!(out.values.row(i), first.values.row(i), "{what}");
                assert_eq!(out.scales[i].to_bits(), first.scales[i].to_bits(), "{what}");
                assert_eq!(out.zero_points[i], first.zero_points[i], "{what}");
            }
        }
    }
}
