//! Dropout against its definition, exactly.

use badge_kernels::bf16;
use badge_kernels::gemm::Output;
use badge_kernels::matrix::Matrix;
use badge_kernels::threads::Pool;
use badge_kernels::training::dropout::{
    DropoutMask, KeepBits, dropout, dropout_in_place, keep_bits,
};

use crate::{Random, assert_untouched, bits, lengths, name, pools, sentinels};

/// Bits of random numbers, of which a third lies below the threshold.
pub(crate) fn random_bits(random: &mut Random, rows: usize, columns: usize) -> KeepBits {
    let mut keep = KeepBits::new(rows, columns);
    let seed = random.bits();
    keep.fill(&pools()[0], &|row, words| {
        let mut random = Random(seed ^ (row as u64) << 32);
        let numbers: Vec<u16> = (0..columns).map(|_| random.bits() as u16).collect();
        keep_bits(&numbers, 21_845, words);
    });
    keep
}

fn checked(pool: &Pool, random: &mut Random, rows: usize, columns: usize) {
    let x = random.matrix(rows, columns);
    let keep = random_bits(random, rows + 1, columns + 3);
    let mask = DropoutMask {
        keep: &keep,
        scale: 1.5,
    };
    let mut out = sentinels(rows + 1, columns);
    let mut narrow = Matrix::<bf16>::zeros(rows, columns);
    dropout(pool, x.rows(rows), mask, Output::F32(out.rows_mut(rows)));
    dropout(
        pool,
        x.rows(rows),
        mask,
        Output::Bf16(narrow.rows_mut(rows)),
    );
    let what = format!("{}, {rows} x {columns}", name(pool));
    assert_untouched(&what, &out, rows);
    for i in 0..rows {
        for (j, x) in x.row(i).iter().enumerate() {
            let expected = if keep.keeps(i, j) { 1.5 * x } else { 0.0 };
            assert_eq!(out.row(i)[j], expected, "{what} [{i}, {j}]");
            assert_eq!(narrow.row(i)[j], bf16::from_f32(expected), "{what}");
        }
    }
    let mut in_place = x;
    dropout_in_place(pool, in_place.rows_mut(rows), mask);
    assert_eq!(bits(in_place.rows(rows)), bits(out.rows(rows)), "{what}");
}

#[test]
fn what_is_kept_is_scaled_and_the_rest_is_zero() {
    let mut random = Random(40);
    for pool in pools() {
        for columns in lengths() {
            let rows = 1 + random.below(20);
            checked(&pool, &mut random, rows, columns);
        }
    }
}

#[test]
fn what_is_dropped_is_zero_even_if_it_was_not_a_number() {
    for pool in pools() {
        let mut x = Matrix::from_rows(&[f32::NAN; 70], 70);
        let keep = KeepBits::new(1, 70);
        let mask = DropoutMask {
            keep: &keep,
            scale: 2.0,
        };
        dropout_in_place(&pool, x.rows_mut(1), mask);
        assert!(x.row(0).iter().all(|x| x.to_bits() == 0), "{}", name(&pool));
    }
}

#[test]
fn a_bit_is_set_where_its_number_reaches_the_threshold() {
    let mut random = Random(41);
    for count in 0..200 {
        let mut numbers: Vec<u16> = (0..count).map(|_| random.bits() as u16).collect();
        if let Some(first) = numbers.first_mut() {
            *first = 6554;
        }
        let mut words = vec![u64::MAX; usize::div_ceil(count, 64)];
        keep_bits(&numbers, 6554, &mut words);
        for (i, word) in words.iter().enumerate() {
            for bit in 0..64 {
                let number = numbers.get(i * 64 + bit);
                let expected = number.is_some_and(|number| *number >= 6554);
                assert_eq!(
                    word >> bit & 1 == 1,
                    expected,
                    "{count} numbers, {i}, {bit}"
                );
            }
        }
    }
}

#[test]
fn rows_are_drawn_once_each_whatever_the_number_of_threads() {
    for pool in pools() {
        let mut keep = KeepBits::new(37, 130);
        keep.fill(&pool, &|row, words| {
            assert_eq!(words.len(), 3);
            words.fill(row as u64 + 1);
        });
        for row in 0..37 {
            assert_eq!(keep.row(row), [row as u64 + 1; 3]);
        }
        keep.reshape(2, 64);
        assert_eq!(
            (keep.row_count(), keep.columns(), keep.row(1).len()),
            (2, 64, 1)
        );
    }
}

#[test]
#[should_panic(expected = "a mask of 3 x 8 elements for 3 x 9")]
fn a_mask_of_too_few_columns_is_refused() {
    let keep = KeepBits::new(3, 8);
    let mask = DropoutMask {
        keep: &keep,
        scale: 1.0,
    };
    dropout_in_place(&pools()[0], Matrix::zeros(3, 9).rows_mut(3), mask);
}
