//! Dropout with masks that others draw: a bit an element, kept from forward to backward.

use crate::gemm::Output;
use crate::matrix::{Rows, RowsMut};
use crate::threads::Pool;

/// Which elements of rows are kept: bit `j % 64` of word `j / 64` of a row says so of element `j`.
///
/// A thirty-second of the memory that the rows themselves take.
#[derive(Debug, Clone, Default)]
pub struct KeepBits {
    words: Vec<u64>,
    rows: usize,
    columns: usize,
}

/// A mask of dropout: element `j` of row `i` becomes `scale x` where it is kept, else 0.
#[derive(Debug, Clone, Copy)]
pub struct DropoutMask<'a> {
    /// Which elements are kept; there may be more rows and columns than are used.
    pub keep: &'a KeepBits,
    /// `1 / (1 - rate)`
    pub scale: f32,
}

impl KeepBits {
    /// Bits of `rows` rows of `columns` elements, all dropped.
    pub fn new(rows: usize, columns: usize) -> Self {
        let mut bits = Self::default();
        bits.reshape(rows, columns);
        bits
    }

    /// Makes this the bits of `rows` rows of `columns` elements, whose content is then anything. Memory
    /// is allocated only where there was never so much.
    pub fn reshape(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        let words = columns.div_ceil(64).checked_mul(rows);
        self.words
            .resize(words.expect("the bits fit the address space"), 0);
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// The words of a row.
    ///
    /// # Panics
    /// When there is none with this index.
    pub fn row(&self, index: usize) -> &[u64] {
        let words = self.columns.div_ceil(64);
        &self.words[index * words..][..words]
    }

    /// Whether an element is kept.
    ///
    /// # Panics
    /// When it does not exist.
    pub fn keeps(&self, row: usize, column: usize) -> bool {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        self.row(row)[column / 64] >> (column % 64) & 1 == 1
    }

    /// Has `draw` write the words of every row, given its index, on all threads.
    pub fn fill(&mut self, pool: &Pool, draw: &(dyn Fn(usize, &mut [u64]) + Sync)) {
        let _ = pool;
        let words = self.columns.div_ceil(64).max(1);
        for (index, row) in self.words.chunks_exact_mut(words).enumerate() {
            draw(index, row);
        }
    }
}

/// Writes bits of elements whose random number is `threshold` or more: an element is dropped with
/// probability `threshold / 65536`. Bits beyond the last element are zero.
///
/// # Panics
/// When there are not 64 bits for every 64 numbers that have begun.
pub fn keep_bits(random: &[u16], threshold: u16, bits: &mut [u64]) {
    assert!(bits.len() >= random.len().div_ceil(64), "words of bits");
    bits.fill(0);
    for (word, random) in bits.iter_mut().zip(random.chunks(64)) {
        for (bit, number) in random.iter().enumerate() {
            *word |= u64::from(*number >= threshold) << bit;
        }
    }
}

impl DropoutMask<'_> {
    pub(crate) fn assert_covers(&self, rows: usize, columns: usize) {
        let (r, c) = (self.keep.row_count(), self.keep.columns());
        assert!(
            rows <= r && columns <= c,
            "a mask of {r} x {c} elements for {rows} x {columns}"
        );
    }
}

/// `out = mask(x)`; forward and, of gradients, backward. See [`dropout_in_place`].
///
/// # Panics
/// When shapes disagree or the mask has too few rows or columns.
pub fn dropout(pool: &Pool, x: Rows<'_, f32>, mask: DropoutMask<'_>, out: Output<'_>) {
    let _ = pool;
    mask.assert_covers(x.count(), x.columns());
    let value = |i: usize, j: usize| {
        if mask.keep.keeps(i, j) {
            x.row(i)[j] * mask.scale
        } else {
            0.0
        }
    };
    match out {
        Output::F32(mut out) => {
            assert_eq!((out.count(), out.columns()), (x.count(), x.columns()));
            for i in 0..x.count() {
                for (j, out) in out.row_mut(i).iter_mut().enumerate() {
                    *out = value(i, j);
                }
            }
        }
        Output::Bf16(mut out) => {
            assert_eq!((out.count(), out.columns()), (x.count(), x.columns()));
            for i in 0..x.count() {
                for (j, out) in out.row_mut(i).iter_mut().enumerate() {
                    *out = half::bf16::from_f32(value(i, j));
                }
            }
        }
    }
}

/// `x ← mask(x)`
///
/// # Panics
/// When the mask has too few rows or columns.
pub fn dropout_in_place(pool: &Pool, mut x: RowsMut<'_, f32>, mask: DropoutMask<'_>) {
    let _ = pool;
    mask.assert_covers(x.count(), x.columns());
    for i in 0..x.count() {
        for (j, x) in x.row_mut(i).iter_mut().enumerate() {
            *x = if mask.keep.keeps(i, j) {
                *x * mask.scale
            } else {
                0.0
            };
        }
    }
}
