//! Tiles in portable code: the layout's plainest reading, for other machines and for Miri.

use std::ops::Range;

use half::bf16;

use super::tile::{PANEL, SCALED_GROUPS, TILE_ROWS, Tile, TileFunction, heights};

/// How a unit of a row meets a unit of a panel.
trait Dot {
    /// Type of the sums.
    type Sum: Copy + Default;
    /// `sum + row * panel` over the numbers of a unit, in ascending order.
    fn dot(sum: Self::Sum, row: [u8; 4], panel: [u8; 4]) -> Self::Sum;
}

/// One f32 a unit.
struct F32Dot;
impl Dot for F32Dot {
    type Sum = f32;

    #[inline(always)]
    fn dot(sum: f32, row: [u8; 4], panel: [u8; 4]) -> f32 {
        sum + f32::from_ne_bytes(row) * f32::from_ne_bytes(panel)
    }
}

/// Two bf16 a unit.
struct Bf16Dot;
impl Dot for Bf16Dot {
    type Sum = f32;

    #[inline(always)]
    fn dot(sum: f32, row: [u8; 4], panel: [u8; 4]) -> f32 {
        let number =
            |unit: [u8; 4], at: usize| bf16::from_ne_bytes([unit[at], unit[at + 1]]).to_f32();
        let even = sum + number(row, 0) * number(panel, 0);
        even + number(row, 2) * number(panel, 2)
    }
}

/// Four bytes a unit, u8 x i8.
struct Int8Dot;
impl Dot for Int8Dot {
    type Sum = i32;

    #[inline(always)]
    fn dot(sum: i32, row: [u8; 4], panel: [u8; 4]) -> i32 {
        let products = row
            .into_iter()
            .zip(panel)
            .map(|(x, w)| i32::from(x) * i32::from(w as i8));
        sum + products.sum::<i32>()
    }
}

pub(super) static F32: [TileFunction; TILE_ROWS] = heights!(sums<F32Dot>);
pub(super) static BF16: [TileFunction; TILE_ROWS] = heights!(sums<Bf16Dot>);
pub(super) static INT8: [TileFunction; TILE_ROWS] = heights!(scaled_sums<Int8Dot>);

/// # Safety
/// As [`TileFunction`].
unsafe fn sums<D: Dot<Sum = f32>, const R: usize>(tile: &Tile) {
    // SAFETY: the promises of `TileFunction`.
    let sums = unsafe { sums_of_groups::<D, R>(tile, 0..tile.groups) };
    // SAFETY: there is room for `R` rows of 32 sums.
    unsafe { tile.sums.cast::<[[f32; PANEL]; R]>().write(sums) };
}

/// Exact integers within a run, then scaled and added in f32.
///
/// # Safety
/// As [`TileFunction`].
unsafe fn scaled_sums<D: Dot<Sum = i32>, const R: usize>(tile: &Tile) {
    let mut totals = [[0.0_f32; PANEL]; R];
    for (run, start) in (0..tile.groups).step_by(SCALED_GROUPS).enumerate() {
        let groups = start..tile.groups.min(start + SCALED_GROUPS);
        // SAFETY: the promises of `TileFunction`; there are 32 scales for every run that has begun.
        let (sums, scales) = unsafe {
            let scales = &*tile.scales.cast::<[f32; PANEL]>().add(run);
            (sums_of_groups::<D, R>(tile, groups), scales)
        };
        for (totals, sums) in totals.iter_mut().zip(sums) {
            for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scales) {
                *total += sum as f32 * scale;
            }
        }
    }
    // SAFETY: there is room for `R` rows of 32 sums.
    unsafe { tile.sums.cast::<[[f32; PANEL]; R]>().write(totals) };
}

/// # Safety
/// As [`TileFunction`], and the groups lie below `tile.groups`.
unsafe fn sums_of_groups<D: Dot, const R: usize>(
    tile: &Tile,
    groups: Range<usize>,
) -> [[D::Sum; PANEL]; R] {
    let mut sums = [[D::Sum::default(); PANEL]; R];
    for group in groups {
        // SAFETY: the panel holds 32 units of four bytes a group.
        let panel = unsafe { &*tile.panel.cast::<[[u8; 4]; PANEL]>().add(group) };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: each of the `R` rows holds `groups` units.
            let unit = unsafe {
                let unit = tile.input.add(row * tile.input_stride + group * 4);
                unit.cast::<[u8; 4]>().read()
            };
            for (sum, panel) in sums.iter_mut().zip(panel) {
                *sum = D::dot(*sum, unit, *panel);
            }
        }
    }
    sums
}
