//! Where activations live: rows of numbers at a stride that suits the caches.

use std::ops::Range;

use crate::buffer::{Buffer, Zeroable};
use crate::threads::{Pool, Task};

/// Numbers that activations consist of.
pub trait Element: private::Sealed {}
impl<T: private::Sealed> Element for T {}

mod private {
    #[expect(private_bounds, reason = "outsiders neither name nor implement it")]
    pub trait Sealed: super::Zeroable {}
    impl Sealed for f32 {}
    impl Sealed for i32 {}
    impl Sealed for u8 {}
    impl Sealed for half::bf16 {}
}

/// A matrix that owns its rows.
///
/// Each row starts at a cache line, and the number of cache lines from one row to the next is odd,
/// so that the eight rows a product reads at a time never compete for the same set of the
/// first-level cache, whatever the width. The elements between a row's end and the next row are
/// zero for ever: products may read a little past a row's end.
#[derive(Debug)]
pub struct Matrix<T: Element> {
    elements: Buffer<T>,
    rows: usize,
    columns: usize,
    stride: usize,
}

/// Rows of a matrix, to read.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    elements: &'a [T],
    count: usize,
    columns: usize,
    stride: usize,
    /// Elements behind a row's end that may be read, and are zero.
    padding: usize,
}

/// Rows of a matrix, to write.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    elements: &'a mut [T],
    count: usize,
    columns: usize,
    stride: usize,
}

/// Asks for the cache lines of some bytes, wherever they lie: never read, so it cannot fault.
#[inline(always)]
fn ask_for(start: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for offset in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: part of every x86-64; a prefetch may point anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset).cast()) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (start, bytes);
}

/// Elements from one row to the next: whole cache lines, an odd number of them.
fn stride<T>(columns: usize) -> usize {
    let line = 64 / size_of::<T>();
    (columns.div_ceil(line) | 1)
        .checked_mul(line)
        .expect("a row fits the address space")
}

impl<T: Element> Matrix<T> {
    /// `rows` rows of `columns` zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let stride = stride::<T>(columns);
        Self {
            elements: Buffer::zeroed(
                rows.checked_mul(stride)
                    .expect("the matrix fits the address space"),
            ),
            rows,
            columns,
            stride,
        }
    }

    /// A copy of `values`, which holds rows of `columns` elements one after the other.
    ///
    /// # Panics
    /// When the length is not a multiple of `columns`.
    pub fn from_rows(values: &[T], columns: usize) -> Self {
        assert!(columns > 0 && values.len().is_multiple_of(columns));
        let mut matrix = Self::zeros(values.len() / columns, columns);
        for (i, row) in values.chunks_exact(columns).enumerate() {
            matrix.row_mut(i).copy_from_slice(row);
        }
        matrix
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
        self.elements.bytes()
    }

    /// The first `count` rows.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn rows(&self, count: usize) -> Rows<'_, T> {
        self.rows_in(0..count)
    }

    /// The rows of a range.
    ///
    /// # Panics
    /// When it ends beyond the last row.
    pub fn rows_in(&self, range: Range<usize>) -> Rows<'_, T> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        Rows {
            elements: &self.elements[range.start * self.stride..range.end * self.stride],
            count: range.len(),
            columns: self.columns,
            stride: self.stride,
            padding: self.stride - self.columns,
        }
    }

    /// The first `count` rows, to write.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn rows_mut(&mut self, count: usize) -> RowsMut<'_, T> {
        self.rows_in_mut(0..count)
    }

    /// The rows of a range, to write.
    ///
    /// # Panics
    /// When it ends beyond the last row.
    pub fn rows_in_mut(&mut self, range: Range<usize>) -> RowsMut<'_, T> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        RowsMut {
            elements: &mut self.elements[range.start * self.stride..range.end * self.stride],
            count: range.len(),
            columns: self.columns,
            stride: self.stride,
        }
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[T] {
        &self.elements[index * self.stride..][..self.columns]
    }

    /// One row, to write.
    pub fn row_mut(&mut self, index: usize) -> &mut [T] {
        &mut self.elements[index * self.stride..][..self.columns]
    }
}

impl<'a, T> Rows<'a, T> {
    /// Rows of `columns` elements that lie one after the other, without padding.
    ///
    /// # Panics
    /// When the length is not a multiple of `columns`.
    pub fn side_by_side(elements: &'a [T], columns: usize) -> Self {
        assert!(
            columns > 0 && elements.len().is_multiple_of(columns),
            "{} elements in rows of {columns}",
            elements.len()
        );
        Self {
            elements,
            count: elements.len() / columns,
            columns,
            stride: columns,
            padding: 0,
        }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    ///
    /// # Panics
    /// When there is none with this index.
    pub fn row(&self, index: usize) -> &'a [T] {
        assert!(index < self.count, "row {index} of {}", self.count);
        &self.elements[index * self.stride..][..self.columns]
    }

    /// Asks for the cache lines of some columns of a row, to be read soon.
    #[inline(always)]
    pub(crate) fn ask_for(&self, row: usize, columns: &Range<usize>) {
        let start = self.elements.as_ptr();
        let start = start.wrapping_add(row * self.stride + columns.start);
        ask_for(start.cast(), columns.len() * size_of::<T>());
    }

    /// Some of the columns of every row.
    ///
    /// # Panics
    /// When the range ends beyond the last column.
    pub fn slice(&self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        Self {
            elements: self.elements.get(columns.start..).unwrap_or_default(),
            count: self.count,
            columns: columns.len(),
            stride: self.stride,
            padding: if columns.end == self.columns {
                self.padding
            } else {
                0
            },
        }
    }

    /// Whether `columns` elements of each row may be read: the row's own, then zeros.
    pub(crate) fn is_padded_to(&self, columns: usize) -> bool {
        columns >= self.columns && columns - self.columns <= self.padding
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn elements(&self) -> &'a [T] {
        self.elements
    }
}

impl<T> RowsMut<'_, T> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    ///
    /// # Panics
    /// When there is none with this index.
    pub fn row_mut(&mut self, index: usize) -> &mut [T] {
        assert!(index < self.count, "row {index} of {}", self.count);
        &mut self.elements[index * self.stride..][..self.columns]
    }

    /// The same rows under a shorter borrow.
    pub fn reborrow(&mut self) -> RowsMut<'_, T> {
        RowsMut {
            elements: self.elements,
            count: self.count,
            columns: self.columns,
            stride: self.stride,
        }
    }

    /// Access for threads that write disjoint parts.
    pub(crate) fn share(&mut self) -> SharedRows<T> {
        SharedRows {
            start: self.elements.as_mut_ptr(),
            length: self.elements.len(),
            count: self.count,
            columns: self.columns,
            stride: self.stride,
        }
    }
}

/// Rows that several threads write at once, each its own part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedRows<T> {
    start: *mut T,
    length: usize,
    count: usize,
    columns: usize,
    stride: usize,
}

// SAFETY: access goes through `part`, whose callers promise disjoint parts.
unsafe impl<T: Send> Send for SharedRows<T> {}
// SAFETY: access goes through `part`, whose callers promise disjoint parts.
unsafe impl<T: Send> Sync for SharedRows<T> {}

impl<T> SharedRows<T> {
    /// Some columns of one row.
    ///
    /// # Safety
    /// The rows outlive the result, and no other part that is alive overlaps this one.
    #[inline(always)]
    pub(crate) unsafe fn part<'a>(&self, row: usize, columns: Range<usize>) -> &'a mut [T] {
        assert!(row < self.count && columns.start <= columns.end && columns.end <= self.columns);
        let offset = row * self.stride + columns.start;
        assert!(offset + columns.len() <= self.length);
        // SAFETY: `row` and `columns` lie inside the rows by the assert; the rest is the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), columns.len()) }
    }

    /// Asks for the cache lines of some columns of a row, to be written soon: nothing is read.
    #[inline(always)]
    pub(crate) fn ask_for(&self, row: usize, columns: &Range<usize>) {
        let start = self.start.wrapping_add(row * self.stride + columns.start);
        ask_for(start.cast_const().cast(), columns.len() * size_of::<T>());
    }

    /// A whole row.
    ///
    /// # Safety
    /// As [`Self::part`].
    #[inline(always)]
    pub(crate) unsafe fn row<'a>(&self, row: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.part(row, 0..self.columns) }
    }
}

/// A slice of which several threads write each its own elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedSlice<T> {
    start: *mut T,
    length: usize,
}

// SAFETY: access goes through methods whose callers promise different elements.
unsafe impl<T: Send> Send for SharedSlice<T> {}
// SAFETY: access goes through methods whose callers promise different elements.
unsafe impl<T: Send> Sync for SharedSlice<T> {}

impl<T> SharedSlice<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            length: slice.len(),
        }
    }

    /// One element.
    ///
    /// # Safety
    /// The slice outlives the result, and nobody else uses this element while it is alive.
    #[inline(always)]
    pub(crate) unsafe fn element<'a>(&self, index: usize) -> &'a mut T {
        assert!(index < self.length, "element {index} of {}", self.length);
        // SAFETY: inside the slice by the assert; the rest is the caller's.
        unsafe { &mut *self.start.add(index) }
    }

    /// Some of the elements.
    ///
    /// # Safety
    /// The slice outlives the result, and nobody else uses these elements while it is alive.
    #[inline(always)]
    pub(crate) unsafe fn part<'a>(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: inside the slice by the assert; the rest is the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// Rows that a thread claims at once: a row of 768 takes about 0.2 µs, a claim that another core
/// has just made about 0.1 µs.
const ROWS_PER_TASK: usize = 8;

/// Calls `work` with every row index below `count`, spread over the pool.
pub(crate) fn for_each_row(pool: &Pool, count: usize, work: &(dyn Fn(usize) + Sync)) {
    pool.run(count.div_ceil(ROWS_PER_TASK), &|task: Task| {
        let first = task.index * ROWS_PER_TASK;
        (first..count.min(first + ROWS_PER_TASK)).for_each(work);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_an_odd_number_of_cache_lines_apart() {
        for columns in [1, 15, 16, 17, 384, 768, 3072] {
            let bytes = stride::<f32>(columns) * 4;
            assert!(bytes.is_multiple_of(64) && !(bytes / 64).is_multiple_of(2));
            assert!(stride::<f32>(columns) >= columns);
        }
        assert_eq!(stride::<u8>(768), 13 * 64);
    }

    #[test]
    fn a_row_may_be_read_as_far_as_its_padding_and_no_further() {
        // bf16: 32 columns fill their cache line, 33 leave all of the next ones.
        for (columns, padding) in [(31, 1), (32, 0), (33, 63), (64, 32), (96, 0)] {
            let matrix = Matrix::<half::bf16>::zeros(2, columns);
            let rows = matrix.rows(2);
            for view in [rows, rows.slice(columns - 1..columns)] {
                let own = view.columns();
                assert!(
                    view.is_padded_to(own) && view.is_padded_to(own + padding),
                    "{columns}"
                );
                assert!(!view.is_padded_to(own + padding + 1), "{columns}");
            }
            assert!(!rows.slice(0..columns - 1).is_padded_to(columns));
        }
    }

    #[test]
    #[should_panic(expected = "fits the address space")]
    fn a_matrix_that_no_memory_holds_is_refused() {
        let _ = Matrix::<f32>::zeros(1 << 60, 1);
    }

    #[test]
    fn writing_a_row_leaves_the_padding_zero() {
        let mut matrix = Matrix::<f32>::from_rows(&[1.0; 15], 5);
        matrix.row_mut(1).fill(2.0);
        assert_eq!(matrix.row(0), [1.0; 5]);
        assert_eq!(matrix.rows(2).slice(3..5).row(1), [2.0; 2]);
        assert!(
            matrix.elements[5..stride::<f32>(5)]
                .iter()
                .all(|x| *x == 0.0)
        );
    }
}
