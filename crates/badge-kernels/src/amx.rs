//! The tile unit's instructions. The compiler's own names for them are not stable yet, so they are
//! written in assembly, each on its own; nothing else in the crate knows how.
//!
//! Eight registers, *tiles*, hold up to sixteen rows of up to 64 bytes each. They begin with a
//! layout, which empties them, and end when the [`Tiles`] that stands for it is dropped: a thread
//! whose tiles are in use makes every switch to another one dearer.

use std::arch::asm;
use std::marker::PhantomData;

use crate::isa::Amx;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;

/// Bytes of a row.
pub(crate) const ROW_BYTES: usize = 64;

/// Units of 32 bits in a row.
pub(crate) const UNITS: usize = ROW_BYTES / 4;

/// Tiles.
const COUNT: usize = 8;

/// What `LDTILECFG` reads.
#[repr(C, align(64))]
struct Layout {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tiles of this thread, ready for use.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// Registers belong to their thread.
    _not_send: PhantomData<*const ()>,
}

impl Tiles {
    /// Lays out eight tiles of whole rows, so many rows each.
    pub(crate) fn with_rows(_: Amx, rows: [usize; COUNT]) -> Self {
        assert!(
            rows.iter().all(|rows| (1..=ROWS).contains(rows)),
            "rows of tiles: {rows:?}"
        );
        let mut layout = Layout {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for (tile, rows) in rows.into_iter().enumerate() {
            layout.row_bytes[tile] = ROW_BYTES as u16;
            layout.rows[tile] = rows as u8;
        }
        // SAFETY: the token proves the instruction and the leave to use it; the layout is one of
        // palette 1 by the assert.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const layout, options(nostack, preserves_flags, readonly));
        }
        Self {
            _not_send: PhantomData,
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `with_rows` had the proof.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Tile `T` becomes zero.
///
/// # Safety
/// A [`Tiles`] of this thread is alive.
#[inline(always)]
pub(crate) unsafe fn zero<const T: usize>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, preserves_flags, nomem)) };
}

/// Reads tile `T`: its rows lie `stride` bytes apart.
///
/// # Safety
/// As [`zero`], and 64 bytes may be read at each row of the tile.
#[inline(always)]
pub(crate) unsafe fn load<const T: usize>(start: *const u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tileloadd tmm{t}, [{start} + {stride}]",
            t = const T, start = in(reg) start, stride = in(reg) stride,
            options(nostack, preserves_flags, readonly)
        );
    }
}

/// Writes tile `T`: its rows lie `stride` bytes apart.
///
/// # Safety
/// As [`zero`], and 64 bytes may be written at each row of the tile.
#[inline(always)]
pub(crate) unsafe fn store<const T: usize>(start: *mut u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilestored [{start} + {stride}], tmm{t}",
            t = const T, start = in(reg) start, stride = in(reg) stride,
            options(nostack, preserves_flags)
        );
    }
}

/// `SUMS += A B` of f32 sums and pairs of bf16: element `[m, n]` gains the products of unit `k` of
/// row `m` of `A` with unit `n` of row `k` of `B`. Products that are too small for a normal f32
/// count as zero, and so do such factors.
///
/// # Safety
/// As [`zero`]; `A` has as many rows as `SUMS`, `B` sixteen.
#[inline(always)]
pub(crate) unsafe fn dot_bf16<const SUMS: usize, const A: usize, const B: usize>() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tdpbf16ps tmm{sums}, tmm{a}, tmm{b}",
            sums = const SUMS, a = const A, b = const B,
            options(nostack, preserves_flags, nomem)
        );
    }
}

/// The same of i32 sums, four u8 a unit of `A` and four i8 a unit of `B`.
///
/// # Safety
/// As [`dot_bf16`].
#[inline(always)]
pub(crate) unsafe fn dot_u8_i8<const SUMS: usize, const A: usize, const B: usize>() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tdpbusd tmm{sums}, tmm{a}, tmm{b}",
            sums = const SUMS, a = const A, b = const B,
            options(nostack, preserves_flags, nomem)
        );
    }
}
