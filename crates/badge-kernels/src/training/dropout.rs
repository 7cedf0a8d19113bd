//! Dropout with masks that others draw: a bit an element, kept from forward to backward.

use crate::gemm::Output;
use crate::matrix::{Rows, RowsMut, SharedRows, SharedSlice, for_each_row};
use crate::simd::{Number, Operation, Simd};
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
        let words = self.columns.div_ceil(64);
        let all = SharedSlice::new(&mut self.words);
        for_each_row(pool, self.rows, &|row| {
            // SAFETY: each row is one task.
            draw(row, unsafe { all.part(row * words..(row + 1) * words) });
        });
    }
}

/// Writes bits of elements whose random number is `threshold` or more: an element is dropped with
/// probability `threshold / 65536`. Bits beyond the last element are zero.
///
/// # Panics
/// When there are not 64 bits for every 64 numbers that have begun.
pub fn keep_bits(random: &[u16], threshold: u16, bits: &mut [u64]) {
    assert!(bits.len() >= random.len().div_ceil(64), "words of bits");
    let mut words = bits.iter_mut();
    let (whole, rest) = random.as_chunks::<64>();
    for (numbers, word) in whole.iter().zip(&mut words) {
        *word = word_of(numbers, threshold);
    }
    if !rest.is_empty() {
        // Below every threshold but 0, and cut off below.
        let mut numbers = [0; 64];
        numbers[..rest.len()].copy_from_slice(rest);
        let kept = word_of(&numbers, threshold) & !(u64::MAX << rest.len());
        words.by_ref().take(1).for_each(|word| *word = kept);
    }
    words.for_each(|word| *word = 0);
}

/// The bits of 64 numbers, eight at a time: a multiplication gathers the lowest bits of eight bytes
/// in the highest byte.
fn word_of(random: &[u16; 64], threshold: u16) -> u64 {
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let bytes = random.map(|number| u8::from(number >= threshold));
    let mut word = 0;
    for (index, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        word |= u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56 << (8 * index);
    }
    word
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

/// One row's part of a mask.
#[derive(Clone, Copy)]
pub(crate) struct MaskRow<'a> {
    words: &'a [u64],
    scale: f32,
}

impl<'a> DropoutMask<'a> {
    /// The mask of a row.
    pub(crate) fn row(&self, index: usize) -> MaskRow<'a> {
        MaskRow {
            words: self.keep.row(index),
            scale: self.scale,
        }
    }
}

impl MaskRow<'_> {
    /// Scales the kept elements of a vector that starts at `column`, a multiple of `LANES`, and makes
    /// the others zero.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(&self, s: S, x: S::F32, column: usize) -> S::F32 {
        // Lanes divide 64, so a vector never reaches into the next word.
        let bits = self.words[column / 64] >> (column % 64);
        s.keep(s.mul(x, s.splat(self.scale)), bits)
    }
}

/// `out = mask(x)`; forward and, of gradients, backward.
///
/// # Panics
/// When shapes disagree or the mask has too few rows or columns.
pub fn dropout(pool: &Pool, x: Rows<'_, f32>, mask: DropoutMask<'_>, out: Output<'_>) {
    match out {
        Output::F32(out) => apply(pool, x, mask, out),
        Output::Bf16(out) => apply(pool, x, mask, out),
    }
}

fn apply<T: Number>(pool: &Pool, x: Rows<'_, f32>, mask: DropoutMask<'_>, mut out: RowsMut<'_, T>) {
    let shape = (x.count(), x.columns());
    assert_eq!((out.count(), out.columns()), shape, "rows of another shape");
    mask.assert_covers(x.count(), x.columns());
    let out = out.share();
    let isa = pool.isa();
    for_each_row(pool, x.count(), &|index| {
        isa.run(MaskedRow {
            x: x.row(index),
            mask: mask.row(index),
            // SAFETY: each row is one task.
            out: unsafe { out.row(index) },
        });
    });
}

struct MaskedRow<'a, T> {
    x: &'a [f32],
    mask: MaskRow<'a>,
    out: &'a mut [T],
}

impl<T: Number> Operation for MaskedRow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vectors = self.x.chunks(S::LANES).zip(self.out.chunks_mut(S::LANES));
        for (index, (x, out)) in vectors.enumerate() {
            let y = self.mask.apply(s, s.load_part(x, 0.0), index * S::LANES);
            T::store(s, y, out);
        }
    }
}

/// `x ← mask(x)`
///
/// # Panics
/// When the mask has too few rows or columns.
pub fn dropout_in_place(pool: &Pool, mut x: RowsMut<'_, f32>, mask: DropoutMask<'_>) {
    mask.assert_covers(x.count(), x.columns());
    let (count, rows) = (x.count(), x.share());
    let isa = pool.isa();
    for_each_row(pool, count, &|index| {
        isa.run(InPlace {
            rows,
            index,
            mask: mask.row(index),
        });
    });
}

/// One row, which is the only task to touch it.
struct InPlace<'a> {
    rows: SharedRows<f32>,
    index: usize,
    mask: MaskRow<'a>,
}

impl Operation for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: each row is one task.
        let row = unsafe { self.rows.row(self.index) };
        for (index, x) in row.chunks_mut(S::LANES).enumerate() {
            let y = self.mask.apply(s, s.load_part(x, 0.0), index * S::LANES);
            s.store_part(y, x);
        }
    }
}
