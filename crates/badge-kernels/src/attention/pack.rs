//! One head's part of a sequence's rows, as panels and as rows of tiles.

use half::bf16;

use super::transpose::{SIDE, transpose};
use crate::buffer::Zeroable;
use crate::gemm::Precision;
use crate::gemm::tile::{self, PANEL, TILE_ROWS, Tile, TileFunction};
use crate::isa::Isa;
use crate::matrix::Rows;
use crate::simd::{Operation, Simd};

/// The types that attention multiplies.
pub(crate) trait Factor: Zeroable {
    const PRECISION: Precision;
    /// Numbers in a unit of 32 bits.
    const GROUP: usize;
    /// The unit that starts with the first number of `numbers`; missing ones are zero.
    fn unit(numbers: &[Self]) -> i32;
    /// The units of two rows, column by column: f32 uses the first only; a missing second is zero.
    fn units_of_rows(first: &[Self], second: Option<&[Self]>, units: &mut [i32]);
    /// The first of some computed rows in this type, and the bytes between them.
    fn address(rows: &ComputedRows<'_>) -> (*const u8, usize);
}

/// Rows that are factors of the next product, in both types.
pub(crate) struct ComputedRows<'a> {
    pub(crate) f32: &'a [f32],
    pub(crate) bf16: &'a [bf16],
    /// Numbers from one row to the next.
    pub(crate) stride: usize,
}

impl Factor for f32 {
    const PRECISION: Precision = Precision::F32;
    const GROUP: usize = 1;

    fn unit(numbers: &[Self]) -> i32 {
        numbers[0].to_bits() as i32
    }
    #[inline(always)]
    fn units_of_rows(first: &[Self], _: Option<&[Self]>, units: &mut [i32]) {
        for (unit, number) in units.iter_mut().zip(first) {
            *unit = number.to_bits() as i32;
        }
    }
    fn address(rows: &ComputedRows<'_>) -> (*const u8, usize) {
        (rows.f32.as_ptr().cast(), rows.stride * size_of::<f32>())
    }
}

impl Factor for bf16 {
    const PRECISION: Precision = Precision::Bf16;
    const GROUP: usize = 2;

    fn unit(numbers: &[Self]) -> i32 {
        pair(numbers[0], numbers[1])
    }
    #[inline(always)]
    fn units_of_rows(first: &[Self], second: Option<&[Self]>, units: &mut [i32]) {
        let units = units.iter_mut().zip(first);
        match second {
            Some(second) => units
                .zip(second)
                .for_each(|((unit, first), second)| *unit = pair(*first, *second)),
            None => units.for_each(|(unit, first)| *unit = pair(*first, bf16::ZERO)),
        }
    }
    fn address(rows: &ComputedRows<'_>) -> (*const u8, usize) {
        (rows.bf16.as_ptr().cast(), rows.stride * size_of::<bf16>())
    }
}

#[inline(always)]
fn pair(first: bf16, second: bf16) -> i32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    i32::from_ne_bytes([a, b, c, d])
}

/// One head's columns of some rows.
#[derive(Clone, Copy)]
pub(crate) struct HeadRows<'a, T> {
    pub(crate) rows: Rows<'a, T>,
    /// The first row.
    pub(crate) first: usize,
    /// Number of rows.
    pub(crate) length: usize,
    /// The first column.
    pub(crate) column: usize,
    /// Columns of the head.
    pub(crate) size: usize,
}

impl<'a, T: Factor> HeadRows<'a, T> {
    /// Units along a row.
    pub(crate) fn groups(&self) -> usize {
        self.size / T::GROUP
    }

    /// Units from row to row, down a column.
    pub(crate) fn groups_of_rows(&self) -> usize {
        self.length.div_ceil(T::GROUP)
    }

    /// The head's part of a row.
    #[inline(always)]
    fn row(&self, index: usize) -> &'a [T] {
        assert!(index < self.length, "row {index} of {}", self.length);
        &self.rows.row(self.first + index)[self.column..self.column + self.size]
    }

    /// `length` rows from `start` on.
    pub(crate) fn part(&self, start: usize, length: usize) -> Self {
        assert!(start + length <= self.length);
        Self {
            first: self.first + start,
            length,
            ..*self
        }
    }

    /// The first number, and the bytes from row to row. All rows may be read from there on.
    pub(crate) fn address(&self) -> (*const u8, usize) {
        let stride = self.rows.stride();
        let start = self.first * stride + self.column;
        let end = start + (self.length - 1) * stride + self.size;
        let all = &self.rows.elements()[start..];
        assert!(end <= self.rows.elements().len());
        (all.as_ptr().cast(), stride * size_of::<T>())
    }

    /// Panels of 32 rows side by side, unit after unit of the head: the right factor of `X rowsᵀ`.
    pub(crate) fn pack_across(&self, isa: Isa, packed: &mut [i32]) {
        let groups = self.groups();
        let squares = if groups >= SIDE {
            self.length / SIDE
        } else {
            0
        };
        for square in 0..squares {
            self.pack_square(isa, packed, square * SIDE);
        }
        for index in squares * SIDE..self.length.next_multiple_of(PANEL) {
            let (panel, lane) = (index / PANEL, index % PANEL);
            let packed = &mut packed[panel * groups * PANEL..][..groups * PANEL];
            let columns = packed.chunks_exact_mut(PANEL).map(|units| &mut units[lane]);
            if index < self.length {
                let numbers = self.row(index).chunks_exact(T::GROUP);
                columns
                    .zip(numbers)
                    .for_each(|(unit, numbers)| *unit = T::unit(numbers));
            } else {
                columns.for_each(|unit| *unit = 0);
            }
        }
    }

    /// Sixteen rows from `index` on, sixteen units at a time; the last square of units may overlap
    /// the one before.
    fn pack_square(&self, isa: Isa, packed: &mut [i32], index: usize) {
        let groups = self.groups();
        let rows: [*const i32; SIDE] =
            std::array::from_fn(|lane| self.row(index + lane).as_ptr().cast());
        let start = index / PANEL * groups * PANEL + index % PANEL;
        for square in 0..groups.div_ceil(SIDE) {
            let unit = (square * SIDE).min(groups - SIDE);
            let out = &mut packed[start + unit * PANEL..];
            let rows = rows.map(|row| row.wrapping_add(unit));
            // SAFETY: each row holds `groups` units, of which sixteen from `unit` on exist.
            unsafe { transpose(isa, &rows, out, PANEL) };
        }
    }

    /// Panels of 32 columns side by side, unit after unit of rows: the right factor of `X rows`.
    pub(crate) fn pack_along(&self, isa: Isa, packed: &mut [i32]) {
        isa.run(PackAlong {
            rows: *self,
            packed,
        });
    }
}

/// See [`HeadRows::pack_along`]; an operation for the sake of wide loads and stores alone.
struct PackAlong<'a, T> {
    rows: HeadRows<'a, T>,
    packed: &'a mut [i32],
}

impl<T: Factor> Operation for PackAlong<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (rows, groups) = (self.rows, self.rows.groups_of_rows());
        for group in 0..groups {
            let first = rows.row(group * T::GROUP);
            let second = group * T::GROUP + 1;
            let second = (T::GROUP > 1 && second < rows.length).then(|| rows.row(second));
            for (panel, first) in first.chunks(PANEL).enumerate() {
                let units = &mut self.packed[(panel * groups + group) * PANEL..][..PANEL];
                let second = second.map(|row| &row[panel * PANEL..][..first.len()]);
                if first.len() == PANEL {
                    // With a width known to the compiler.
                    T::units_of_rows(&first[..PANEL], second.map(|row| &row[..PANEL]), units);
                } else {
                    let (units, rest) = units.split_at_mut(first.len());
                    T::units_of_rows(first, second, units);
                    rest.fill(0);
                }
            }
        }
    }
}

/// A tile's rows on their way through panels.
#[derive(Clone, Copy)]
pub(crate) struct TileOfRows {
    pub(crate) tiles: &'static [TileFunction; TILE_ROWS],
    /// Number of rows, at most [`TILE_ROWS`].
    pub(crate) rows: usize,
    /// The first row and the bytes from one to the next.
    pub(crate) input: (*const u8, usize),
    /// Units of a row.
    pub(crate) groups: usize,
}

impl TileOfRows {
    /// Calls `finish` with the index and the sums of each of the first `panels` panels of `packed`.
    ///
    /// # Safety
    /// The machine has the instruction set of `tiles`, whose tiles may be so high; `input` points to
    /// `rows` rows of `groups` units; `packed` starts at a cache line.
    pub(crate) unsafe fn times(
        self,
        packed: &[i32],
        panels: usize,
        sums: &mut tile::Buffer,
        mut finish: impl FnMut(usize, &tile::Buffer),
    ) {
        for panel in 0..panels {
            let packed = &packed[panel * self.groups * PANEL..][..self.groups * PANEL];
            let tile = Tile {
                groups: self.groups,
                input: self.input.0,
                input_stride: self.input.1,
                panel: packed.as_ptr().cast(),
                ahead: packed.as_ptr().cast(),
                scales: std::ptr::null(),
                sums: sums.as_mut_ptr(),
            };
            // SAFETY: the caller's promise; the panel was sliced to its size, and panels are whole
            // cache lines.
            unsafe { (self.tiles[self.rows - 1])(&tile) };
            finish(panel, sums);
        }
    }
}
