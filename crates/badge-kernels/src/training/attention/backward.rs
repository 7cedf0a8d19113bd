//! One head of one sequence backward, 64 queries at a time.
//!
//! For a block of queries: tiles of scores `S = Q Kᵀ` and of `dP̃ = dO Vᵀ` become rows of `P̃` and `dS`,
//! and `dQ = dS K` at once. Both are then transposed, so that their columns are rows of tiles, for
//! `dV += P̃ᵀ dO` and `dK += dSᵀ Q`. A block of 64 x 64 and its transpose stay in the second-level cache.

use std::f32::consts::LOG2_E;
use std::ops::Range;
use std::sync::Mutex;

use half::bf16;

use super::AttentionGradient;
use crate::activation::exp2_or_least;
use crate::attention::pack::{ComputedRows, Factor, HeadRows, TileOfRows};
use crate::attention::transpose::{SIDE, transpose};
use crate::attention::{AttentionShape, Projections, Segment, SharedOutput};
use crate::buffer::Buffer;
use crate::gemm::tile::{self, PANEL, TILE_ROWS, TileFunction};
use crate::isa::Isa;
use crate::matrix::Rows;
use crate::quantise::narrow_row;
use crate::simd::{Operation, Simd};
use crate::threads::{Pool, Task};
use crate::training::dropout::{DropoutMask, MaskRow};

/// Queries of a block, a multiple of [`SIDE`].
const BLOCK: usize = 64;

/// Memory for backward, one part a worker.
#[derive(Debug)]
pub struct BackwardScratch {
    workers: Vec<Mutex<Scratch>>,
    rows_max: usize,
    shape: AttentionShape,
}

#[derive(Debug)]
struct Scratch {
    keys_across: Buffer<i32>,
    values_across: Buffer<i32>,
    keys_along: Buffer<i32>,
    queries_along: Buffer<i32>,
    gradient_along: Buffer<i32>,
    /// Rows of `P̃`, a query each.
    weights: ScratchRows,
    /// Rows of `dS / √k`.
    slopes: ScratchRows,
    /// `P̃ᵀ`, a key a row.
    weights_across: ScratchRows,
    /// `dSᵀ / √k`
    slopes_across: ScratchRows,
    keys_gradient: Buffer<f32>,
    values_gradient: Buffer<f32>,
    tile: tile::Buffer,
}

/// Rows in both types; bf16 only where products want it.
#[derive(Debug)]
struct ScratchRows {
    f32: Buffer<f32>,
    bf16: Buffer<bf16>,
}

impl ScratchRows {
    fn new(length: usize) -> Self {
        Self {
            f32: Buffer::zeroed(length),
            bf16: Buffer::zeroed(length),
        }
    }

    /// Rows from number `start` on.
    fn from(&self, start: usize, stride: usize) -> ComputedRows<'_> {
        ComputedRows {
            f32: &self.f32[start..],
            bf16: &self.bf16[start..],
            stride,
        }
    }

    fn bytes(&self) -> usize {
        self.f32.bytes() + self.bf16.bytes()
    }
}

impl Scratch {
    fn new(rows_max: usize, shape: AttentionShape) -> Self {
        let rows = rows_max.next_multiple_of(PANEL);
        let columns = shape.head_size.next_multiple_of(PANEL);
        let panels = |rows: usize| Buffer::zeroed(rows * columns);
        let block = || ScratchRows::new(BLOCK * rows);
        Self {
            keys_across: panels(rows),
            values_across: panels(rows),
            keys_along: panels(rows),
            queries_along: panels(BLOCK),
            gradient_along: panels(BLOCK),
            weights: block(),
            slopes: block(),
            weights_across: block(),
            slopes_across: block(),
            keys_gradient: Buffer::zeroed(rows * columns),
            values_gradient: Buffer::zeroed(rows * columns),
            tile: tile::Buffer::new(),
        }
    }

    fn bytes(&self) -> usize {
        let panels = [
            &self.keys_across,
            &self.values_across,
            &self.keys_along,
            &self.queries_along,
            &self.gradient_along,
        ];
        let rows = [
            &self.weights,
            &self.slopes,
            &self.weights_across,
            &self.slopes_across,
        ];
        panels.iter().map(|panels| panels.bytes()).sum::<usize>()
            + rows.iter().map(|rows| rows.bytes()).sum::<usize>()
            + self.keys_gradient.bytes()
            + self.values_gradient.bytes()
            + size_of::<Self>()
    }
}

impl BackwardScratch {
    /// Room for sequences of up to `rows_max` keys on `threads` workers.
    pub fn new(threads: usize, rows_max: usize, shape: &AttentionShape) -> Self {
        let scratch = || Mutex::new(Scratch::new(rows_max, *shape));
        Self {
            workers: (0..threads).map(|_| scratch()).collect(),
            rows_max,
            shape: *shape,
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let one = self.workers.first().map_or(0, |worker| {
            worker
                .lock()
                .expect("no task panics while it holds the scratch")
                .bytes()
        });
        self.workers.len() * one
    }

    pub(super) fn shape(&self) -> AttentionShape {
        self.shape
    }
}

/// Where the gradient of one projection goes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) rows: SharedOutput,
    /// Number of rows.
    pub(super) count: usize,
    /// The column of head 0.
    pub(super) column: usize,
}

/// A backward pass.
pub(super) struct Job<'a> {
    pub(super) input: &'a AttentionGradient<'a>,
    pub(super) scratch: &'a BackwardScratch,
    /// Of queries, keys and values.
    pub(super) out: [Target; 3],
    pub(super) isa: Isa,
}

impl Job<'_> {
    pub(super) fn run<T: Factor>(
        &self,
        pool: &Pool,
        projections: &Projections<'_, T>,
        gradient: Rows<'_, T>,
    ) {
        let shape = self.scratch.shape;
        let sequences = self.input.pass.sequences;
        projections.check(shape, sequences);
        let queries = projections.queries.count();
        let found = (gradient.count(), gradient.columns());
        assert_eq!(found, (queries, shape.heads * shape.head_size), "gradient");
        let longest = sequences.keys.iter().map(|s| s.length).max().unwrap_or(0);
        assert!(longest <= self.scratch.rows_max, "{longest} keys");
        let workers = self.scratch.workers.len();
        assert!(workers >= pool.threads(), "scratch for {workers} workers");
        if let Some(mask) = self.input.pass.dropout {
            mask.assert_covers(shape.heads * queries, longest);
        }
        let tiles = tile::functions(self.isa, T::PRECISION);
        pool.run(sequences.queries.len() * shape.heads, &|task: Task| {
            let (index, head) = (task.index / shape.heads, task.index % shape.heads);
            let of = |rows, segments: &[Segment]| shape.head(rows, segments[index], head);
            let head = Head {
                job: self,
                tiles,
                queries: of(projections.queries, sequences.queries),
                gradient: of(gradient, sequences.queries),
                keys: of(projections.keys, sequences.keys),
                values: of(projections.values, sequences.keys),
                index: head,
            };
            let worker = self.scratch.workers[task.worker].lock();
            head.compute(&mut worker.expect("no task panics while it holds the scratch"));
        });
    }
}

/// One head of one sequence.
struct Head<'a, T> {
    job: &'a Job<'a>,
    tiles: &'static [TileFunction; TILE_ROWS],
    queries: HeadRows<'a, T>,
    gradient: HeadRows<'a, T>,
    keys: HeadRows<'a, T>,
    values: HeadRows<'a, T>,
    /// Which head.
    index: usize,
}

impl<T: Factor> Head<'_, T> {
    fn compute(&self, scratch: &mut Scratch) {
        let isa = self.job.isa;
        self.keys.pack_across(isa, &mut scratch.keys_across);
        self.values.pack_across(isa, &mut scratch.values_across);
        self.keys.pack_along(isa, &mut scratch.keys_along);
        for start in (0..self.queries.length).step_by(BLOCK) {
            let length = BLOCK.min(self.queries.length - start);
            let queries = self.queries.part(start, length);
            let gradient = self.gradient.part(start, length);
            queries.pack_along(isa, &mut scratch.queries_along);
            gradient.pack_along(isa, &mut scratch.gradient_along);
            for rows in self.tiles_of(length) {
                self.slope(scratch, (&queries, &gradient), &rows);
                self.write_queries(scratch, queries.first, &rows);
            }
            self.turn(scratch, length);
            self.accumulate(scratch, queries.groups_of_rows(), start == 0);
        }
        self.write_keys_and_values(scratch);
    }

    /// `length` rows as tiles of nearly the same height.
    fn tiles_of(&self, length: usize) -> impl Iterator<Item = Range<usize>> + use<T> {
        let tiles = length.div_ceil(tile::rows_max(self.job.isa));
        (0..tiles).map(move |index| length * index / tiles..length * (index + 1) / tiles)
    }

    /// Numbers from one row of probabilities to the next.
    fn stride(&self) -> usize {
        self.keys.length.next_multiple_of(PANEL)
    }

    /// `P̃` and `dS / √k` of some queries of a block.
    fn slope(
        &self,
        scratch: &mut Scratch,
        (queries, gradient): (&HeadRows<'_, T>, &HeadRows<'_, T>),
        rows: &Range<usize>,
    ) {
        let (keys, stride) = (self.keys.length, self.stride());
        let numbers = rows.start * stride..rows.end * stride;
        let products = [
            (queries, &scratch.keys_across, &mut scratch.weights.f32),
            (gradient, &scratch.values_across, &mut scratch.slopes.f32),
        ];
        for (factor, packed, out) in products {
            let factor = factor.part(rows.start, rows.len());
            let tile = TileOfRows {
                tiles: self.tiles,
                rows: rows.len(),
                input: factor.address(),
                groups: factor.groups(),
            };
            let out = &mut out[numbers.clone()];
            // SAFETY: `tiles` belongs to the pool's instruction set; the address is good for all rows.
            unsafe {
                tile.times(packed, stride / PANEL, &mut scratch.tile, |panel, sums| {
                    for (row, out) in out.chunks_exact_mut(stride).enumerate() {
                        sums.copy_row(row, &mut out[panel * PANEL..]);
                    }
                });
            }
        }
        let first = queries.first + rows.start;
        let of_queries = first..first + rows.len();
        let mask_row = self.index * self.queries.rows.count() + first;
        self.job.isa.run(TileOfSlopes {
            weights: &mut scratch.weights.f32[numbers.clone()],
            slopes: &mut scratch.slopes.f32[numbers.clone()],
            narrow: (T::GROUP > 1).then_some(&mut scratch.slopes.bf16[numbers]),
            keys,
            scale: 1.0 / (self.keys.size as f32).sqrt(),
            statistics: self
                .job
                .input
                .statistics
                .of_head(self.index)
                .map(|numbers| &numbers[of_queries.clone()]),
            mask: self.job.input.pass.dropout.map(|mask| (mask, mask_row)),
        });
    }

    /// `dQ = dS K / √k` of the queries of a tile; row 0 of the block is row `first` of all.
    fn write_queries(&self, scratch: &mut Scratch, first: usize, rows: &Range<usize>) {
        let stride = self.stride();
        let tile = TileOfRows {
            tiles: self.tiles,
            rows: rows.len(),
            input: T::address(&scratch.slopes.from(rows.start * stride, stride)),
            groups: self.keys.groups_of_rows(),
        };
        let target = self.job.out[0];
        // SAFETY: as in `slope`; the rows of slopes hold a whole number of panels.
        unsafe {
            let panels = self.keys.size.div_ceil(PANEL);
            tile.times(
                &scratch.keys_along,
                panels,
                &mut scratch.tile,
                |panel, sums| {
                    let columns = panel * PANEL..self.keys.size.min((panel + 1) * PANEL);
                    self.job.isa.run(WriteRows {
                        out: target.rows,
                        row: first + rows.start,
                        column: target.column + self.keys.column + columns.start,
                        rows: (0..rows.len()).map(|row| &sums.row(row)[..columns.len()]),
                    });
                },
            );
        }
    }

    /// Transposes the first `length` rows of `P̃` and `dS`.
    fn turn(&self, scratch: &mut Scratch, length: usize) {
        let (keys, stride) = (self.keys.length, self.stride());
        let pairs = [
            (&mut scratch.weights, &mut scratch.weights_across),
            (&mut scratch.slopes, &mut scratch.slopes_across),
        ];
        for (rows, across) in pairs {
            if !length.is_multiple_of(T::GROUP) {
                // The last unit of two reaches one query too far.
                rows.f32[length * stride..][..stride].fill(0.0);
            }
            for row in (0..length).step_by(SIDE) {
                for column in (0..keys).step_by(SIDE) {
                    let square: [*const i32; SIDE] = std::array::from_fn(|index| {
                        rows.f32[(row + index) * stride + column..][..SIDE]
                            .as_ptr()
                            .cast()
                    });
                    let out = &mut across.f32[column * BLOCK + row..];
                    // SAFETY: an f32 and an i32 are both 32 plain bits.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len())
                    };
                    // SAFETY: each row was sliced to sixteen numbers.
                    unsafe { transpose(self.job.isa, &square, out, BLOCK) };
                }
            }
            if T::GROUP > 1 {
                let numbers = keys * BLOCK;
                self.job.isa.run(NarrowRows {
                    wide: &across.f32[..numbers],
                    narrow: &mut across.bf16[..numbers],
                    length: length.next_multiple_of(T::GROUP),
                });
            }
        }
    }

    /// `dV += P̃ᵀ dO` and `dK += dSᵀ Q / √k` over a block of `groups` units of queries.
    fn accumulate(&self, scratch: &mut Scratch, groups: usize, is_first: bool) {
        let columns = self.keys.size.next_multiple_of(PANEL);
        let products = [
            (
                &scratch.weights_across,
                &scratch.gradient_along,
                &mut scratch.values_gradient,
            ),
            (
                &scratch.slopes_across,
                &scratch.queries_along,
                &mut scratch.keys_gradient,
            ),
        ];
        for (factor, packed, out) in products {
            for rows in self.tiles_of(self.keys.length) {
                let tile = TileOfRows {
                    tiles: self.tiles,
                    rows: rows.len(),
                    input: T::address(&factor.from(rows.start * BLOCK, BLOCK)),
                    groups,
                };
                let out = &mut out[rows.start * columns..rows.end * columns];
                // SAFETY: as in `slope`; the rows hold `BLOCK` numbers.
                unsafe {
                    tile.times(packed, columns / PANEL, &mut scratch.tile, |panel, sums| {
                        for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                            let out = &mut out[panel * PANEL..][..PANEL];
                            if is_first {
                                sums.copy_row(row, out);
                            } else {
                                let pairs = out.iter_mut().zip(sums.row(row));
                                pairs.for_each(|(out, sum)| *out += sum);
                            }
                        }
                    });
                }
            }
        }
    }

    fn write_keys_and_values(&self, scratch: &Scratch) {
        let columns = self.keys.size.next_multiple_of(PANEL);
        let gradients = [&scratch.keys_gradient, &scratch.values_gradient];
        for (target, gradient) in self.job.out[1..].iter().zip(gradients) {
            let rows = gradient.chunks_exact(columns).take(self.keys.length);
            self.job.isa.run(WriteRows {
                out: target.rows,
                row: self.keys.first,
                column: target.column + self.keys.column,
                rows: rows.map(|row| &row[..self.keys.size]),
            });
        }
    }
}

/// From scores and `dP̃` to `P̃` and `dS / √k`.
struct TileOfSlopes<'a> {
    /// Rows of whole panels: scores, then `P̃`.
    weights: &'a mut [f32],
    /// `dP̃`, then `dS / √k`.
    slopes: &'a mut [f32],
    /// A copy of the latter, where products want bf16.
    narrow: Option<&'a mut [bf16]>,
    keys: usize,
    scale: f32,
    /// The largest score and the inverse sum of each row.
    statistics: [&'a [f32]; 2],
    /// The mask, and its row for the first row.
    mask: Option<(DropoutMask<'a>, usize)>,
}

impl Operation for TileOfSlopes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let stride = self.keys.next_multiple_of(PANEL);
        let rows = self.weights.chunks_exact_mut(stride);
        let rows = rows.zip(self.slopes.chunks_exact_mut(stride));
        for (index, (weights, slopes)) in rows.enumerate() {
            let row = SlopeRow {
                largest: self.statistics[0][index],
                inverse: self.statistics[1][index],
                scale: self.scale,
                mask: self.mask.map(|(mask, first)| mask.row(first + index)),
            };
            let (weights, weights_rest) = weights.split_at_mut(self.keys);
            let (slopes, slopes_rest) = slopes.split_at_mut(self.keys);
            let mean = row.probabilities(s, weights, slopes);
            row.slopes(s, weights, slopes, mean);
            weights_rest.fill(0.0);
            slopes_rest.fill(0.0);
        }
        if let Some(narrow) = self.narrow {
            narrow_row(s, self.slopes, narrow);
        }
    }
}

/// A query.
struct SlopeRow<'a> {
    largest: f32,
    inverse: f32,
    scale: f32,
    mask: Option<MaskRow<'a>>,
}

impl SlopeRow<'_> {
    /// From scores to `P` and from `dP̃` to `dP`; returns `Σ P dP`.
    #[inline(always)]
    fn probabilities<S: Simd>(&self, s: S, weights: &mut [f32], slopes: &mut [f32]) -> f32 {
        let (largest, inverse) = (s.splat(self.largest), s.splat(self.inverse));
        // The same steps as in forward, so that the same bits come out.
        let scale = s.splat(self.scale * LOG2_E);
        let mut sum = s.splat(0.0);
        let vectors = weights
            .chunks_mut(S::LANES)
            .zip(slopes.chunks_mut(S::LANES));
        for (index, (weight, slope)) in vectors.enumerate() {
            // Lanes beyond the row have the largest score, whose exponential is 1, and no slope.
            let score = s.load_part(weight, self.largest);
            let e = exp2_or_least(s, s.mul(s.sub(score, largest), scale));
            let p = s.mul(e, inverse);
            let mut dp = s.load_part(slope, 0.0);
            if let Some(mask) = self.mask {
                dp = mask.apply(s, dp, index * S::LANES);
            }
            sum = s.mul_add(p, dp, sum);
            s.store_part(p, weight);
            s.store_part(dp, slope);
        }
        s.sum(sum)
    }

    /// From `P` to `P̃` and from `dP` to `dS / √k`.
    #[inline(always)]
    fn slopes<S: Simd>(&self, s: S, weights: &mut [f32], slopes: &mut [f32], mean: f32) {
        let (mean, scale) = (s.splat(mean), s.splat(self.scale));
        let vectors = weights
            .chunks_mut(S::LANES)
            .zip(slopes.chunks_mut(S::LANES));
        for (index, (weight, slope)) in vectors.enumerate() {
            let p = s.load_part(weight, 0.0);
            let ds = s.mul(s.mul(p, scale), s.sub(s.load_part(slope, 0.0), mean));
            s.store_part(ds, slope);
            if let Some(mask) = self.mask {
                s.store_part(mask.apply(s, p, index * S::LANES), weight);
            }
        }
    }
}

/// Rounds the first `length` numbers of each row of a block to bf16.
struct NarrowRows<'a> {
    wide: &'a [f32],
    narrow: &'a mut [bf16],
    length: usize,
}

impl Operation for NarrowRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.wide.chunks_exact(BLOCK);
        for (wide, narrow) in rows.zip(self.narrow.chunks_exact_mut(BLOCK)) {
            narrow_row(s, &wide[..self.length], &mut narrow[..self.length]);
        }
    }
}

/// Writes rows of one head's columns of a gradient.
struct WriteRows<I> {
    out: SharedOutput,
    /// The first row.
    row: usize,
    /// The first column.
    column: usize,
    rows: I,
}

impl<'a, I: Iterator<Item = &'a [f32]>> Operation for WriteRows<I> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (index, x) in self.rows.enumerate() {
            let place = (self.row + index, self.column..self.column + x.len());
            // SAFETY: each task owns one head's columns of one segment's rows, and segments are
            // disjoint by `check_disjoint`.
            unsafe { self.out.write(s, place, x, 1.0) };
        }
    }
}
