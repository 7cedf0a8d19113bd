//! Tiles of the tile unit: up to 32 rows times a panel, or up to 16 rows times two panels.
//!
//! A panel's layout is what the unit wants of its right factor: sixteen groups of inputs, each 64
//! bytes for the left sixteen outputs and 64 for the right. Rows are read where they lie.
//!
//! Several panels are multiplied before the epilogue meets the first, whose sums have left the unit
//! by then. The depth `K` is not cut into pieces that would stay in the first-level cache: measured on
//! Sapphire Rapids (one core, 32 and 128 x 768 x 768 and 768 x 3072), that cost up to 10 %.
//! Nor is the epilogue of one tile done between the steps of the next: the unit then starves, and
//! 64 x 768 x 768 takes 80 us instead of 69 in eight pieces, 107 in 32.

#[allow(clippy::wildcard_imports, reason = "intrinsics carry their own prefix")]
use std::arch::x86_64::*;
use std::ops::Range;

use super::Precision;
use super::tile::{self, GROUP_BYTES, PANEL, SCALED_GROUPS};
use crate::amx::{self, ROW_BYTES, ROWS, Tiles, UNITS};
use crate::isa::Amx;

/// The highest tile.
pub(super) const ROWS_MAX: usize = 2 * ROWS;

/// Rows up to which two panels are multiplied at once.
const ROWS_ABREAST: usize = ROWS;

/// Rows of int8 from which on the tile unit is faster than vectors, whose results are the same bits:
/// measured on Sapphire Rapids (one core, N x K = 768 x 768), 13 to 11 us with four, 17 to 20 with
/// eight.
const INT8_ROWS_MIN: usize = 6;

/// Panels that are multiplied before their epilogues.
pub(super) const STRIP: usize = 4;

/// Bytes of a row of sums.
const SUMS_STRIDE: usize = PANEL * size_of::<f32>();

const LINE: usize = 64;

/// Tiles laid out for products of some height.
pub(super) struct Unit {
    precision: Precision,
    rows: usize,
    _tiles: Tiles,
}

/// What is multiplied: a tile of rows and a strip of panels.
pub(super) struct Block {
    /// Units of 32 bits along the inputs.
    pub(super) groups: usize,
    /// The first row, and bytes from one row to the next.
    pub(super) input: *const u8,
    pub(super) input_stride: usize,
    /// The first panel; the others lie right behind it.
    pub(super) panel: *const u8,
    pub(super) panels: usize,
    /// Of int8 the first panel's scales, likewise.
    pub(super) scales: *const f32,
    /// What will be needed soon, if it is known: one cache line a group and panel is asked for from
    /// here on, never read. The panels themselves are asked for by the hardware, and better so:
    /// measured on Sapphire Rapids (one core, 32 x 768 x 768), asking for the next one cost 20 %.
    pub(super) ahead: Option<*const u8>,
    /// A buffer for each panel.
    pub(super) sums: *mut tile::Buffer,
}

/// One panel of a [`Block`], or two, which are multiplied at once.
struct Piece<'a> {
    block: &'a Block,
    /// Of the strip.
    panels: Range<usize>,
}

/// Whether the tile unit multiplies so many rows.
pub(super) fn is_for(precision: Precision, rows: usize) -> bool {
    match precision {
        Precision::F32 => false,
        // Its sums are not those of vectors, and no row may depend on others.
        Precision::Bf16 => rows > 0,
        Precision::Int8 => rows >= INT8_ROWS_MIN,
    }
}

impl Unit {
    /// Lays out tiles for so many rows, at most [`ROWS_MAX`].
    pub(super) fn new(amx: Amx, precision: Precision, rows: usize) -> Self {
        let upper = rows.min(ROWS);
        let lower = rows.saturating_sub(ROWS).max(1);
        let rows_of = if rows > ROWS_ABREAST {
            [upper, upper, lower, lower, upper, lower, ROWS, ROWS]
        } else {
            [upper, upper, upper, upper, upper, lower, ROWS, ROWS]
        };
        Self {
            precision,
            rows,
            _tiles: Tiles::with_rows(amx, rows_of),
        }
    }

    /// The sums of a block, in its buffers.
    ///
    /// # Safety
    /// `input` points to the unit's rows of `groups` units of its precision; `panel` to up to
    /// [`STRIP`] panels at a cache line, `scales` to theirs, `sums` to a buffer for each.
    pub(super) unsafe fn sums(&self, block: &Block) {
        let abreast = if self.rows > ROWS_ABREAST { 1 } else { 2 };
        let is_int8 = self.precision == Precision::Int8;
        for panel in (0..block.panels).step_by(abreast) {
            let piece = Piece {
                block,
                panels: panel..block.panels.min(panel + abreast),
            };
            piece.ask_ahead();
            // SAFETY: the tiles are laid out for these rows; the rest is the caller's promise.
            unsafe {
                match (is_int8, self.rows > ROWS_ABREAST, piece.panels.len()) {
                    (false, true, _) => bf16::<true, false>(&piece, self.rows),
                    (false, false, 2) => bf16::<false, true>(&piece, self.rows),
                    (false, false, _) => bf16::<false, false>(&piece, self.rows),
                    (true, true, _) => int8::<true, false>(&piece, self.rows),
                    (true, false, 2) => int8::<false, true>(&piece, self.rows),
                    (true, false, _) => int8::<false, false>(&piece, self.rows),
                }
            }
        }
    }
}

impl Piece<'_> {
    fn input(&self) -> *const u8 {
        self.block.input
    }

    fn panel(&self) -> *const u8 {
        let groups = self.panels.start * self.block.groups;
        self.block.panel.wrapping_add(groups * GROUP_BYTES)
    }

    fn sums(&self) -> *mut f32 {
        self.block.sums.wrapping_add(self.panels.start).cast()
    }

    fn ask_ahead(&self) {
        let Some(ahead) = self.block.ahead else {
            return;
        };
        let groups = self.block.groups;
        for line in self.panels.start * groups..self.panels.end * groups {
            // SAFETY: prefetches never fault, wherever they point.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line * LINE).cast()) };
        }
    }

    /// The groups behind the last whole step, fewer than a step: copies with zeros behind, so that
    /// nothing beyond a row or a panel is read.
    ///
    /// # Safety
    /// As [`Unit::sums`].
    #[cold]
    #[inline(never)]
    unsafe fn rest(&self, rows: usize) -> Padded {
        let mut padded = Padded {
            input: [[0; ROW_BYTES]; ROWS_MAX],
            panels: [[0; UNITS * GROUP_BYTES]; 2],
        };
        let rest = self.block.groups % UNITS;
        let start = self.block.groups - rest;
        // SAFETY: rows and panels hold `groups` groups by the caller's promise.
        unsafe {
            for (row, copy) in padded.input.iter_mut().take(rows).enumerate() {
                let row = self.input().add(row * self.block.input_stride + start * 4);
                copy.as_mut_ptr().copy_from_nonoverlapping(row, rest * 4);
            }
            let panels = padded.panels.iter_mut().take(self.panels.len());
            for (index, copy) in panels.enumerate() {
                let group = index * self.block.groups + start;
                let panel = self.panel().add(group * GROUP_BYTES);
                let copy = copy.as_mut_ptr();
                copy.copy_from_nonoverlapping(panel, rest * GROUP_BYTES);
            }
        }
        padded
    }
}

/// A step whose last groups are missing.
#[repr(align(64))]
struct Padded {
    input: [[u8; ROW_BYTES]; ROWS_MAX],
    panels: [[u8; UNITS * GROUP_BYTES]; 2],
}

/// The product of bf16, sixteen groups a step. Four tiles hold sums, so that a
/// multiplication need not wait for another's result; two hold rows and two hold weights.
///
/// # Safety
/// As [`Unit::sums`]; the tiles are laid out for `rows`.
#[inline(always)]
unsafe fn bf16<const LOWER: bool, const TWO: bool>(piece: &Piece<'_>, rows: usize) {
    let upper: *mut u8 = piece.sums().cast();
    let lower = upper.wrapping_add(if TWO {
        size_of::<tile::Buffer>()
    } else {
        ROWS * SUMS_STRIDE
    });
    // SAFETY: the caller's promise.
    unsafe {
        amx::zero::<0>();
        amx::zero::<1>();
        amx::zero::<2>();
        amx::zero::<3>();
        let groups = piece.block.groups;
        let panel_bytes = groups * GROUP_BYTES;
        let (input, panel) = (piece.input(), piece.panel());
        for step in 0..groups / UNITS {
            let input = input.add(step * ROW_BYTES);
            let panel = panel.add(step * UNITS * GROUP_BYTES);
            bf16_step::<LOWER, TWO>((input, piece.block.input_stride), (panel, panel_bytes));
        }
        if !groups.is_multiple_of(UNITS) {
            let rest = piece.rest(rows);
            let panels = rest.panels.as_ptr().cast();
            bf16_step::<LOWER, TWO>(
                (rest.input.as_ptr().cast(), ROW_BYTES),
                (panels, UNITS * GROUP_BYTES),
            );
        }
        amx::store::<0>(upper, SUMS_STRIDE);
        amx::store::<1>(upper.add(ROW_BYTES), SUMS_STRIDE);
        if LOWER || TWO {
            amx::store::<2>(lower, SUMS_STRIDE);
            amx::store::<3>(lower.add(ROW_BYTES), SUMS_STRIDE);
        }
    }
}

/// Sixteen groups of rows and panels, each given as its start and a stride.
///
/// # Safety
/// As [`bf16`]; so many groups exist.
#[inline(always)]
unsafe fn bf16_step<const LOWER: bool, const TWO: bool>(
    (input, stride): (*const u8, usize),
    (panel, panel_bytes): (*const u8, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        amx::load::<4>(input, stride);
        amx::load::<6>(panel, GROUP_BYTES);
        amx::load::<7>(panel.add(ROW_BYTES), GROUP_BYTES);
        amx::dot_bf16::<0, 4, 6>();
        amx::dot_bf16::<1, 4, 7>();
        if LOWER {
            amx::load::<5>(input.add(ROWS * stride), stride);
            amx::dot_bf16::<2, 5, 6>();
            amx::dot_bf16::<3, 5, 7>();
        } else if TWO {
            let panel = panel.add(panel_bytes);
            amx::load::<6>(panel, GROUP_BYTES);
            amx::load::<7>(panel.add(ROW_BYTES), GROUP_BYTES);
            amx::dot_bf16::<2, 4, 6>();
            amx::dot_bf16::<3, 4, 7>();
        }
    }
}

/// Integer sums of a run of the four tiles, on their way to vectors.
#[repr(align(64))]
struct Integers([[[i32; UNITS]; ROWS]; 4]);

/// What happens to a tile of sums in a turn of the loop over runs.
struct Turn<'a> {
    /// The sums of the run before leave for here.
    store: Option<&'a mut Integers>,
    /// The present run is multiplied.
    multiply: bool,
    /// Those of the run before that are scaled and added.
    add: Option<&'a Integers>,
    /// Left and right scales of each panel, for [`Self::add`].
    scales: [[__m512; 2]; 2],
    /// The first totals of each tile, and their number.
    totals: [(*mut f32, usize); 4],
}

/// The product of int8, a run of inputs with one scale a step: exact integers within a run, then
/// scaled and added in f32 in the order of [`super::avx512`]. They pass through memory, and take their
/// time: the unit works on one run while the sums of the one before leave it and vectors add those
/// of the run before that.
///
/// # Safety
/// As [`Unit::sums`]; the tiles are laid out for `rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn int8<const LOWER: bool, const TWO: bool>(piece: &Piece<'_>, rows: usize) {
    const { assert!(UNITS == SCALED_GROUPS) };
    let mut integers = [const { Integers([[[0; UNITS]; ROWS]; 4]) }; 2];
    let block = piece.block;
    let runs = block.groups.div_ceil(UNITS);
    let is_whole = block.groups.is_multiple_of(UNITS);
    let panel_bytes = block.groups * GROUP_BYTES;
    let upper = piece.sums();
    let (below, lower) = if TWO {
        (size_of::<tile::Buffer>() / size_of::<f32>(), rows)
    } else {
        (ROWS * PANEL, rows.saturating_sub(ROWS))
    };
    let starts = [0, UNITS, below, below + UNITS].map(|start| upper.wrapping_add(start));
    let heights = [rows.min(ROWS), lower];
    let totals = [0, 1, 2, 3].map(|tile| (starts[tile], heights[tile / 2]));
    // SAFETY: the caller's promise; there are 32 scales for every run that has begun.
    unsafe {
        for (start, rows) in totals.iter().take(if LOWER || TWO { 4 } else { 2 }) {
            for row in 0..*rows {
                _mm512_store_ps(start.add(row * PANEL), _mm512_setzero_ps());
            }
        }
        if runs == 0 {
            return;
        }
        let padded = (!is_whole).then(|| piece.rest(rows));
        for turn in 0..runs + 2 {
            let [even, odd] = &mut integers;
            let (stored, added) = if turn % 2 == 0 {
                (even, odd)
            } else {
                (odd, even)
            };
            let run_added = turn.saturating_sub(2);
            let scales = [0, usize::from(TWO)].map(|panel| {
                let place = (piece.panels.start + panel) * runs + run_added;
                let scales = block.scales.add(place * PANEL);
                [_mm512_load_ps(scales), _mm512_load_ps(scales.add(UNITS))]
            });
            let state = Turn {
                store: (1..=runs).contains(&turn).then_some(stored),
                multiply: turn < runs,
                add: (turn >= 2).then_some(added),
                scales,
                totals,
            };
            match &padded {
                Some(rest) if turn + 1 == runs => int8_turn::<LOWER, TWO>(
                    (rest.input.as_ptr().cast(), ROW_BYTES),
                    (rest.panels.as_ptr().cast(), UNITS * GROUP_BYTES),
                    state,
                ),
                _ => int8_turn::<LOWER, TWO>(
                    (
                        piece.input().wrapping_add(turn * ROW_BYTES),
                        block.input_stride,
                    ),
                    (
                        piece.panel().wrapping_add(turn * UNITS * GROUP_BYTES),
                        panel_bytes,
                    ),
                    state,
                ),
            }
        }
    }
}

/// A turn: sixteen groups of rows and panels, each given as its start and a stride.
///
/// # Safety
/// As [`int8`]; so many groups exist where they are multiplied.
#[inline(always)]
unsafe fn int8_turn<const LOWER: bool, const TWO: bool>(
    (input, stride): (*const u8, usize),
    (panel, panel_bytes): (*const u8, usize),
    mut turn: Turn<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if turn.multiply {
            amx::load::<4>(input, stride);
            amx::load::<6>(panel, GROUP_BYTES);
            amx::load::<7>(panel.add(ROW_BYTES), GROUP_BYTES);
        }
        turn.of::<0, 4, 6, 0>();
        turn.of::<1, 4, 7, 0>();
        if LOWER {
            if turn.multiply {
                amx::load::<5>(input.add(ROWS * stride), stride);
            }
            turn.of::<2, 5, 6, 0>();
            turn.of::<3, 5, 7, 0>();
        } else if TWO {
            if turn.multiply {
                let panel = panel.add(panel_bytes);
                amx::load::<6>(panel, GROUP_BYTES);
                amx::load::<7>(panel.add(ROW_BYTES), GROUP_BYTES);
            }
            turn.of::<2, 4, 6, 1>();
            turn.of::<3, 4, 7, 1>();
        }
    }
}

impl Turn<'_> {
    /// Tile `T` of sums, of rows `A` and weights `B` of panel `P`.
    ///
    /// # Safety
    /// As [`int8_turn`].
    #[inline(always)]
    unsafe fn of<const T: usize, const A: usize, const B: usize, const P: usize>(&mut self) {
        // SAFETY: the caller's promise; a row of integers is a row of a tile and a vector at a cache
        // line.
        unsafe {
            if let Some(integers) = &mut self.store {
                amx::store::<T>(integers.0[T].as_mut_ptr().cast(), ROW_BYTES);
            }
            if self.multiply {
                amx::zero::<T>();
                amx::dot_u8_i8::<T, A, B>();
            }
            if let Some(integers) = self.add {
                let (totals, rows) = self.totals[T];
                let scales = self.scales[P][T % 2];
                for (row, integers) in integers.0[T].iter().take(rows).enumerate() {
                    let sums = _mm512_load_si512(integers.as_ptr().cast());
                    let total = totals.add(row * PANEL);
                    let sum =
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scales, _mm512_load_ps(total));
                    _mm512_store_ps(total, sum);
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use half::bf16;

    /// Bytes that end where memory ends: whoever reads on is killed.
    struct Cliff {
        pages: *mut u8,
        room: usize,
        bytes: usize,
    }

    impl Cliff {
        fn new(bytes: usize) -> Self {
            const PAGE: usize = 4096;
            let room = bytes.next_multiple_of(PAGE);
            // SAFETY: a fresh mapping, whose last page is then closed.
            unsafe {
                let (rights, flags) = (
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                );
                let pages = libc::mmap(std::ptr::null_mut(), room + PAGE, rights, flags, -1, 0);
                assert_ne!(pages, libc::MAP_FAILED);
                assert_eq!(
                    libc::mprotect(pages.byte_add(room), PAGE, libc::PROT_NONE),
                    0
                );
                let pages = pages.cast();
                Self { pages, room, bytes }
            }
        }

        fn start(&self) -> *const u8 {
            self.pages.wrapping_add(self.room - self.bytes)
        }

        fn numbers<T>(&mut self) -> &mut [T] {
            let length = self.bytes / size_of::<T>();
            // SAFETY: the mapping holds so many bytes, zeros at first, which are plain numbers, and is
            // borrowed exclusively.
            unsafe { std::slice::from_raw_parts_mut(self.start().cast_mut().cast(), length) }
        }

        fn fill(&mut self, precision: Precision, seed: usize) {
            let number = |index: usize| (index * 7919 + seed) % 251;
            if precision == Precision::Bf16 {
                for (index, x) in self.numbers::<bf16>().iter_mut().enumerate() {
                    *x = bf16::from_f32(number(index) as f32 / 64.0 - 2.0);
                }
            } else {
                for (index, x) in self.numbers::<u8>().iter_mut().enumerate() {
                    *x = number(index) as u8;
                }
            }
        }

        fn number(&self, precision: Precision, is_signed: bool, index: usize) -> f64 {
            // SAFETY: the caller asks for numbers that there are.
            unsafe {
                if precision == Precision::Bf16 {
                    let bits = [0, 1].map(|byte| *self.start().add(2 * index + byte));
                    f64::from(bf16::from_ne_bytes(bits))
                } else if is_signed {
                    f64::from(*self.start().cast::<i8>().add(index))
                } else {
                    f64::from(*self.start().add(index))
                }
            }
        }
    }

    /// Rows and panels end where memory does, and the sums are those of the definition.
    fn check(amx: Amx, precision: Precision, [rows, groups, panels]: [usize; 3]) {
        let unit = Unit::new(amx, precision, rows);
        let (k, width) = (groups * precision.group(), groups * GROUP_BYTES);
        let (mut x, mut w) = (Cliff::new(rows * groups * 4), Cliff::new(panels * width));
        let mut scales = Cliff::new(panels * groups.div_ceil(16) * PANEL * 4);
        x.fill(precision, 1);
        w.fill(precision, 2);
        for scale in scales.numbers::<f32>() {
            *scale = 0.5;
        }
        let mut sums = vec![tile::Buffer::new(); STRIP];
        let block = Block {
            groups,
            input: x.start(),
            input_stride: groups * 4,
            panel: w.start(),
            panels,
            scales: scales.start().cast(),
            ahead: (groups > 16).then_some(std::ptr::null()),
            sums: sums.as_mut_ptr(),
        };
        // SAFETY: rows, panels and scales were made for this block.
        unsafe { unit.sums(&block) };
        for (panel, sums) in sums.iter().enumerate() {
            for (row, output) in (0..ROWS_MAX).flat_map(|r| (0..PANEL).map(move |o| (r, o))) {
                let group = precision.group();
                let weight = |i: usize| i / group * group * PANEL + output * group + i % group;
                let product = |i: usize| {
                    x.number(precision, false, row * k + i)
                        * w.number(precision, true, panel * width * group / 4 + weight(i))
                };
                let expected = if panel < panels && row < rows {
                    (0..k).map(product).sum::<f64>()
                } else {
                    0.0
                };
                let factor = if precision == Precision::Int8 {
                    0.5
                } else {
                    1.0
                };
                // Multiples of powers of two that f32 holds.
                let found = f64::from(sums.row(row)[output]);
                let at = [rows, groups, panels, panel, row, output];
                assert_eq!(found, expected * factor, "{precision} {at:?}");
            }
        }
    }

    #[test]
    fn sums_are_exact_and_nothing_beyond_rows_and_panels_is_read() {
        let Isa::Amx(amx) = Isa::best() else { return };
        for precision in [Precision::Bf16, Precision::Int8] {
            for rows in [1, 2, 15, 16, 17, 31, 32] {
                for groups in [1, 5, 15, 16, 17, 40] {
                    for panels in 1..=STRIP {
                        check(amx, precision, [rows, groups, panels]);
                    }
                }
            }
        }
    }
}
