//! The inner loop of all products: up to eight rows times a panel of 32 columns.

use crate::isa::Isa;

use super::{Precision, scalar};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Columns of a panel: two vectors of AVX-512, four of AVX2.
///
/// With AVX-512, 8 rows x 2 vectors = 16 sums + 2 of the panel + 1 broadcast row element, of 32
/// registers. Sixteen independent sums cover two multiply-adds a cycle at a latency of four.
/// Higher tiles would load less, but loads are not the limit (10 for 16 multiply-adds), and above
/// ten rows compilers begin to spill. Measured on Zen 4 (November 2026, one core, 64 x 768 x 768,
/// f32): 116 GFLOP/s with 8 rows, 113 with 10, 101 with 12, of a peak of 117.
pub(crate) const PANEL: usize = 32;

/// The highest tile.
pub(crate) const TILE_ROWS: usize = 8;

/// Bytes of one group of inputs over a panel: 32 units of 32 bits.
pub(crate) const GROUP_BYTES: usize = PANEL * 4;

/// Groups of four inputs that share one scale an output in int8 weights: 64 inputs.
///
/// One scale for a whole output is not enough where a few inputs have weights a hundred times the
/// others', as the second feed-forward product has: every other weight then rounds to a handful of
/// steps. A run of 64 keeps the damage among 64, and costs one multiply-add in sixteen.
pub(crate) const SCALED_GROUPS: usize = 16;

/// What a tile function multiplies.
#[derive(Debug)]
pub(crate) struct Tile {
    /// Groups of inputs: `K` in units of 32 bits.
    pub(crate) groups: usize,
    /// The first row.
    pub(crate) input: *const u8,
    /// Bytes from one row to the next.
    pub(crate) input_stride: usize,
    /// The panel: `groups` times 32 units.
    pub(crate) panel: *const u8,
    /// What will be needed soon: one cache line a group is asked for from here on. Never read, so it
    /// may point anywhere.
    pub(crate) ahead: *const u8,
    /// Of int8 products: the panel's scales, 32 for each run of [`SCALED_GROUPS`] groups.
    pub(crate) scales: *const f32,
    /// `R` x 32 sums.
    pub(crate) sums: *mut f32,
}

/// Computes the sums of a tile of a fixed number of rows.
///
/// # Safety
/// The machine has the instruction set; `input` points to that many rows of `groups` units;
/// `panel` to `32 * groups` units at a cache line; `sums` to 32 numbers a row at a cache line; for
/// int8 `scales` to 32 numbers at a cache line for every run that has begun. A *wide* function
/// takes one row and a fixed number of panels that lie one after the other, and leaves as many rows
/// of sums.
pub(crate) type TileFunction = unsafe fn(&Tile);

/// Rows of sums: those of the highest tile of the tile unit.
const BUFFER_ROWS: usize = 32;

/// Sums of a tile.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(crate) struct Buffer {
    sums: [f32; BUFFER_ROWS * PANEL],
}

impl Buffer {
    pub(crate) const fn new() -> Self {
        Self {
            sums: [0.0; BUFFER_ROWS * PANEL],
        }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.sums.as_mut_ptr()
    }

    /// Copies the sums of one row to the start of `out`.
    #[inline(always)]
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        // As arrays: a copy of a length that the compiler knows calls no function.
        let (sums, out) = (self.row(row).first_chunk(), out.first_chunk_mut());
        let out: &mut [f32; PANEL] = out.expect("room for a panel");
        *out = *sums.expect("a row of sums is a panel");
    }

    /// The sums of one row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.sums[row * PANEL..][..PANEL]
    }
}

/// The tile functions of 1 to 8 rows; those above [`rows_max`] must not be called.
pub(crate) fn functions(isa: Isa, precision: Precision) -> &'static [TileFunction; TILE_ROWS] {
    match (isa, precision) {
        (Isa::Scalar, Precision::F32) => &scalar::F32,
        (Isa::Scalar, Precision::Bf16) => &scalar::BF16,
        (Isa::Scalar, Precision::Int8) => &scalar::INT8,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(_), Precision::F32) => &avx2::F32,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(_), Precision::Bf16) => &avx2::BF16,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(_), Precision::Int8) => &avx2::INT8,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(_), Precision::F32) => &avx512::F32,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(has), Precision::Bf16) if has.bf16() => &avx512::BF16,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(_), Precision::Bf16) => &avx512::BF16_BY_F32,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(has), Precision::Int8) if has.vnni() => &avx512::INT8,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(_), Precision::Int8) => &avx512::INT8_BY_I16,
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx(amx), _) => functions(Isa::Avx512(amx.vectors()), precision),
    }
}

/// Panels at most that a wide tile function multiplies one row with.
pub(crate) const WIDE: usize = 4;

/// The functions for a single row and 1 to [`WIDE`] panels that lie one after the other, where there
/// are any; they leave the sums of each panel in a row of the buffer of its own.
pub(crate) fn wide(isa: Isa, precision: Precision) -> Option<&'static [TileFunction; WIDE]> {
    match (isa, precision) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(_), Precision::F32) => Some(&avx512::F32_WIDE),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(has), Precision::Bf16) if has.bf16() => Some(&avx512::BF16_WIDE),
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx(amx), _) => wide(Isa::Avx512(amx.vectors()), precision),
        _ => None,
    }
}

/// The highest tile of an instruction set.
pub(crate) fn rows_max(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => avx2::ROWS,
        _ => TILE_ROWS,
    }
}

/// A table of one tile function a height.
macro_rules! heights {
    ($function:ident < $dot:ty >) => {
        [
            $function::<$dot, 1>,
            $function::<$dot, 2>,
            $function::<$dot, 3>,
            $function::<$dot, 4>,
            $function::<$dot, 5>,
            $function::<$dot, 6>,
            $function::<$dot, 7>,
            $function::<$dot, 8>,
        ]
    };
}
pub(crate) use heights;

/// A table of one wide tile function a number of panels.
macro_rules! widths {
    ($function:ident < $dot:ty >) => {
        [
            $function::<$dot, 1>,
            $function::<$dot, 2>,
            $function::<$dot, 3>,
            $function::<$dot, 4>,
        ]
    };
}
pub(crate) use widths;
