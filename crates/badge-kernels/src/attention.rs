//! Multi-head attention over sequences packed one after the other: `softmax(Q Kᵀ / √k) V` a head.
//!
//! No padding is computed: each sequence attends to its own rows alone. For one sequence and head
//! the keys are transposed into panels and the values laid out as panels, both as [`crate::gemm`]
//! packs weights, so that scores and context are tiles like any other product. A tile of eight
//! queries stays in the first-level cache from its scores to its context.

use std::sync::Mutex;

use half::bf16;

use crate::buffer::{Buffer, Zeroable};
use crate::gemm::tile::{self, PANEL, TILE_ROWS, Tile, TileFunction};
use crate::gemm::{Output, Precision};
use crate::isa::Isa;
use crate::matrix::{Rows, SharedRows};
use crate::simd::{Operation, Simd};
use crate::softmax::exponentials;
use crate::threads::{Pool, Task};

mod transpose;

use transpose::{SIDE, transpose};

/// Heads of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Number of heads, `H`.
    pub heads: usize,
    /// Columns of a head, `k`.
    pub head_size: usize,
}

/// Rows of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its first row.
    pub start: usize,
    /// Number of its rows.
    pub length: usize,
}

/// Queries `[M, H k]`, keys and values `[T, H k]`; all may be slices of wider rows.
#[derive(Debug, Clone, Copy)]
pub enum AttentionInput<'a> {
    /// Products and softmax in f32.
    F32(Projections<'a, f32>),
    /// Factors in bf16, sums and softmax in f32. The head size must be even.
    Bf16(Projections<'a, bf16>),
}

/// The three projections of the rows.
#[derive(Debug, Clone, Copy)]
pub struct Projections<'a, T> {
    /// `Q`
    pub queries: Rows<'a, T>,
    /// `K`
    pub keys: Rows<'a, T>,
    /// `V`
    pub values: Rows<'a, T>,
}

/// Which query rows attend to which key rows, sequence by sequence.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// Rows of `Q` and of the output.
    pub queries: &'a [Segment],
    /// Rows of `K` and `V`, as many entries.
    pub keys: &'a [Segment],
}

/// Memory for the panels and scores of one sequence and head, one per worker.
#[derive(Debug)]
pub struct AttentionScratch {
    workers: Vec<Mutex<Scratch>>,
    keys_max: usize,
    shape: AttentionShape,
}

/// In units of 32 bits, so that f32 and pairs of bf16 share the memory.
#[derive(Debug)]
struct Scratch {
    keys: Buffer<i32>,
    values: Buffer<i32>,
    scores: Buffer<f32>,
    probabilities: Buffer<bf16>,
    tile: tile::Buffer,
}

impl AttentionScratch {
    /// Room for sequences of up to `keys_max` rows on `threads` workers.
    pub fn new(threads: usize, keys_max: usize, shape: &AttentionShape) -> Self {
        let keys = keys_max.next_multiple_of(PANEL);
        let columns = shape.head_size.next_multiple_of(PANEL);
        let scratch = || Scratch {
            keys: Buffer::zeroed(keys * columns),
            values: Buffer::zeroed(keys * columns),
            scores: Buffer::zeroed(TILE_ROWS * keys),
            probabilities: Buffer::zeroed(TILE_ROWS * keys),
            tile: tile::Buffer::new(),
        };
        Self {
            workers: (0..threads).map(|_| Mutex::new(scratch())).collect(),
            keys_max,
            shape: *shape,
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let keys = self.keys_max.next_multiple_of(PANEL);
        let columns = self.shape.head_size.next_multiple_of(PANEL);
        let numbers = 2 * keys * columns * size_of::<i32>();
        let weights = TILE_ROWS * keys * (size_of::<f32>() + size_of::<bf16>());
        self.workers.len() * (numbers + weights + size_of::<Scratch>())
    }
}

/// Attention of every sequence: `out = softmax(Q Kᵀ / √k) V`, head by head.
///
/// # Shapes
/// `Q` and `out: [M, H k]`, `K` and `V: [T, H k]`.
///
/// # Accuracy
/// f32: within `1e-6 max|V|` times a few of the f64 reference at the lengths of BERT. bf16: factors
/// and probabilities carry a relative error of `2⁻⁹`.
///
/// # Panics
/// When shapes disagree, a segment is empty or leaves its rows, or the scratch is too small.
pub fn attention(
    pool: &Pool,
    input: AttentionInput<'_>,
    sequences: Sequences<'_>,
    scratch: &AttentionScratch,
    mut output: Output<'_>,
) {
    let shape = scratch.shape;
    let width = shape.heads * shape.head_size;
    let (count, columns, out) = match &mut output {
        Output::F32(rows) => (rows.count(), rows.columns(), Context::F32(rows.share())),
        Output::Bf16(rows) => (rows.count(), rows.columns(), Context::Bf16(rows.share())),
    };
    assert_eq!(columns, width, "output columns");
    assert_eq!(
        sequences.queries.len(),
        sequences.keys.len(),
        "a key segment for each of queries"
    );
    let workers = scratch.workers.len();
    assert!(workers >= pool.threads(), "scratch for {workers} workers");
    check_disjoint(sequences.queries, count);
    let job = Job {
        shape,
        sequences,
        scratch,
        out,
        isa: pool.isa(),
    };
    match input {
        AttentionInput::F32(projections) => job.run(pool, &projections),
        AttentionInput::Bf16(projections) => {
            assert!(
                shape.head_size.is_multiple_of(2),
                "bf16 wants an even head size"
            );
            job.run(pool, &projections);
        }
    }
}

/// Segments in ascending order that do not overlap, so that tasks write disjoint rows.
fn check_disjoint(segments: &[Segment], rows: usize) {
    let mut end = 0;
    for segment in segments {
        assert!(
            segment.start >= end && segment.length > 0,
            "segments must ascend: {segments:?}"
        );
        end = segment
            .start
            .checked_add(segment.length)
            .expect("a segment ends");
    }
    assert!(end <= rows, "segments end at row {end} of {rows}");
}

/// The output as all workers share it.
#[derive(Clone, Copy)]
enum Context {
    F32(SharedRows<f32>),
    Bf16(SharedRows<bf16>),
}

struct Job<'a> {
    shape: AttentionShape,
    sequences: Sequences<'a>,
    scratch: &'a AttentionScratch,
    out: Context,
    isa: Isa,
}

/// The types that attention multiplies.
trait Factor: Zeroable {
    const PRECISION: Precision;
    /// Numbers in a unit of 32 bits.
    const GROUP: usize;
    /// The unit that starts with the first number of `numbers`; missing ones are zero.
    fn unit(numbers: &[Self]) -> i32;
    /// The units of two rows, column by column: f32 uses the first only; a missing second is zero.
    fn units_of_rows(first: &[Self], second: Option<&[Self]>, units: &mut [i32]);
    /// The probabilities of a tile as rows of this type, and the bytes between them.
    fn probabilities(weights: &Weights<'_>) -> (*const u8, usize);
}

/// Unnormalised probabilities of a tile, in both types.
struct Weights<'a> {
    f32: &'a [f32],
    bf16: &'a [bf16],
    stride: usize,
}

impl Factor for f32 {
    const PRECISION: Precision = Precision::F32;
    const GROUP: usize = 1;

    fn unit(numbers: &[Self]) -> i32 {
        numbers[0].to_bits() as i32
    }
    fn units_of_rows(first: &[Self], _: Option<&[Self]>, units: &mut [i32]) {
        for (unit, number) in units.iter_mut().zip(first) {
            *unit = number.to_bits() as i32;
        }
    }
    fn probabilities(weights: &Weights<'_>) -> (*const u8, usize) {
        (
            weights.f32.as_ptr().cast(),
            weights.stride * size_of::<f32>(),
        )
    }
}

impl Factor for bf16 {
    const PRECISION: Precision = Precision::Bf16;
    const GROUP: usize = 2;

    fn unit(numbers: &[Self]) -> i32 {
        pair(numbers[0], numbers[1])
    }
    fn units_of_rows(first: &[Self], second: Option<&[Self]>, units: &mut [i32]) {
        let units = units.iter_mut().zip(first);
        match second {
            Some(second) => units
                .zip(second)
                .for_each(|((unit, first), second)| *unit = pair(*first, *second)),
            None => units.for_each(|(unit, first)| *unit = pair(*first, bf16::ZERO)),
        }
    }
    fn probabilities(weights: &Weights<'_>) -> (*const u8, usize) {
        (
            weights.bf16.as_ptr().cast(),
            weights.stride * size_of::<bf16>(),
        )
    }
}

fn pair(first: bf16, second: bf16) -> i32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    i32::from_ne_bytes([a, b, c, d])
}

impl Job<'_> {
    fn run<T: Factor>(&self, pool: &Pool, projections: &Projections<'_, T>) {
        let Projections {
            queries,
            keys,
            values,
        } = projections;
        let width = self.shape.heads * self.shape.head_size;
        for rows in [queries, keys, values] {
            assert_eq!(rows.columns(), width, "columns of a projection");
        }
        let inside = |s: &Segment, count: usize| {
            s.length > 0 && s.start <= count && s.length <= count - s.start
        };
        for (query, key) in self.sequences.queries.iter().zip(self.sequences.keys) {
            assert!(
                inside(query, queries.count()),
                "{query:?} of {} rows",
                queries.count()
            );
            assert!(
                inside(key, keys.count()) && inside(key, values.count()),
                "{key:?}"
            );
            assert!(key.length <= self.scratch.keys_max, "{} keys", key.length);
        }
        let tiles = tile::functions(self.isa, T::PRECISION);
        pool.run(
            self.sequences.queries.len() * self.shape.heads,
            &|task: Task| {
                let index = task.index / self.shape.heads;
                let head = Head {
                    job: self,
                    tiles,
                    projections,
                    queries: self.sequences.queries[index],
                    keys: self.sequences.keys[index],
                    column: task.index % self.shape.heads * self.shape.head_size,
                };
                let worker = self.scratch.workers[task.worker].lock();
                head.compute(&mut worker.expect("no task panics while it holds the scratch"));
            },
        );
    }
}

/// One head of one sequence.
struct Head<'a, T> {
    job: &'a Job<'a>,
    tiles: &'static [TileFunction; TILE_ROWS],
    projections: &'a Projections<'a, T>,
    queries: Segment,
    keys: Segment,
    /// First column of the head.
    column: usize,
}

impl<T: Factor> Head<'_, T> {
    fn compute(&self, scratch: &mut Scratch) {
        self.pack_keys(&mut scratch.keys);
        self.pack_values(&mut scratch.values);
        let tiles = self
            .queries
            .length
            .div_ceil(tile::rows_max(self.job.isa, T::PRECISION));
        for index in 0..tiles {
            let rows =
                self.queries.length * index / tiles..self.queries.length * (index + 1) / tiles;
            let first = self.queries.start + rows.start;
            let sums = self.score(scratch, first, rows.len());
            self.weigh(scratch, first, &sums[..rows.len()]);
        }
    }

    /// Units along a head.
    fn groups(&self) -> usize {
        self.job.shape.head_size / T::GROUP
    }

    /// Keys as panels: 32 keys side by side, unit after unit of the head.
    fn pack_keys(&self, packed: &mut [i32]) {
        let groups = self.groups();
        let squares = if groups >= SIDE {
            self.keys.length / SIDE
        } else {
            0
        };
        for square in 0..squares {
            self.pack_key_square(packed, square * SIDE);
        }
        for key in squares * SIDE..self.keys.length.next_multiple_of(PANEL) {
            let (panel, lane) = (key / PANEL, key % PANEL);
            let packed = &mut packed[panel * groups * PANEL..][..groups * PANEL];
            let columns = packed.chunks_exact_mut(PANEL).map(|units| &mut units[lane]);
            if key < self.keys.length {
                let row = self.row(&self.projections.keys, key);
                let numbers = row.chunks_exact(T::GROUP);
                columns
                    .zip(numbers)
                    .for_each(|(unit, numbers)| *unit = T::unit(numbers));
            } else {
                columns.for_each(|unit| *unit = 0);
            }
        }
    }

    /// Sixteen keys from `key` on, sixteen units at a time; the last square of units may overlap the
    /// one before.
    fn pack_key_square(&self, packed: &mut [i32], key: usize) {
        let groups = self.groups();
        let rows: [*const i32; SIDE] = std::array::from_fn(|lane| {
            self.row(&self.projections.keys, key + lane).as_ptr().cast()
        });
        let start = key / PANEL * groups * PANEL + key % PANEL;
        for square in 0..groups.div_ceil(SIDE) {
            let unit = (square * SIDE).min(groups - SIDE);
            let out = &mut packed[start + unit * PANEL..];
            let rows = rows.map(|row| row.wrapping_add(unit));
            // SAFETY: each row holds `groups` units, of which sixteen from `unit` on exist.
            unsafe { transpose(self.job.isa, &rows, out, PANEL) };
        }
    }

    /// The head's part of row `index` of the sequence.
    fn row<'b>(&self, rows: &Rows<'b, T>, index: usize) -> &'b [T] {
        let row = rows.row(self.keys.start + index);
        &row[self.column..self.column + self.job.shape.head_size]
    }

    /// Values as panels: 32 columns of the head side by side, unit after unit of keys.
    fn pack_values(&self, packed: &mut [i32]) {
        let size = self.job.shape.head_size;
        let groups = self.keys.length.div_ceil(T::GROUP);
        for group in 0..groups {
            let first = self.row(&self.projections.values, group * T::GROUP);
            let second = group * T::GROUP + 1;
            let second =
                (second < self.keys.length).then(|| self.row(&self.projections.values, second));
            for panel in 0..size.div_ceil(PANEL) {
                let units = &mut packed[(panel * groups + group) * PANEL..][..PANEL];
                let columns = panel * PANEL..size.min((panel + 1) * PANEL);
                let (units, rest) = units.split_at_mut(columns.len());
                T::units_of_rows(
                    &first[columns.clone()],
                    second.map(|row| &row[columns]),
                    units,
                );
                rest.fill(0);
            }
        }
    }

    /// Exponentials of the scores of `rows` queries from row `first` on, and their sums.
    fn score(&self, scratch: &mut Scratch, first: usize, rows: usize) -> [f32; TILE_ROWS] {
        let (keys, groups) = (self.keys.length, self.groups());
        let stride = keys.next_multiple_of(PANEL);
        let queries = &self.projections.queries;
        // From here on several rows are read: the pointer must be good for all of them.
        let query = queries.elements()[first * queries.stride() + self.column..].as_ptr();
        for panel in 0..keys.div_ceil(PANEL) {
            let packed = &scratch.keys[panel * groups * PANEL..][..groups * PANEL];
            let tile = Tile {
                groups,
                input: query.cast(),
                input_stride: queries.stride() * size_of::<T>(),
                panel: packed.as_ptr().cast(),
                ahead: packed.as_ptr().cast(),
                scales: std::ptr::null(),
                sums: scratch.tile.as_mut_ptr(),
            };
            // SAFETY: `tiles` belongs to the pool's instruction set; `rows` queries from `first` on
            // lie in the segment, checked in `run`, and hold the head's `groups` units; the panel
            // was sliced to its size and starts at a cache line.
            unsafe { (self.tiles[rows - 1])(&tile) };
            for row in 0..rows {
                scratch.scores[row * stride + panel * PANEL..][..PANEL]
                    .copy_from_slice(scratch.tile.row(row));
            }
        }
        self.job.isa.run(Exponentials {
            scores: &mut scratch.scores[..rows * stride],
            probabilities: (T::GROUP > 1).then_some(&mut scratch.probabilities[..rows * stride]),
            keys,
            scale: 1.0 / (self.job.shape.head_size as f32).sqrt(),
        })
    }

    /// The context of these queries: exponentials times values, over the sums.
    fn weigh(&self, scratch: &mut Scratch, first: usize, sums: &[f32]) {
        let groups = self.keys.length.div_ceil(T::GROUP);
        let size = self.job.shape.head_size;
        let weights = Weights {
            f32: &scratch.scores,
            bf16: &scratch.probabilities,
            stride: self.keys.length.next_multiple_of(PANEL),
        };
        let (input, input_stride) = T::probabilities(&weights);
        for panel in 0..size.div_ceil(PANEL) {
            let packed = &scratch.values[panel * groups * PANEL..][..groups * PANEL];
            let tile = Tile {
                groups,
                input,
                input_stride,
                panel: packed.as_ptr().cast(),
                ahead: packed.as_ptr().cast(),
                scales: std::ptr::null(),
                sums: scratch.tile.as_mut_ptr(),
            };
            // SAFETY: as in `score`; the rows of probabilities hold a whole number of panels, of
            // which `groups` units have been written.
            unsafe { (self.tiles[sums.len() - 1])(&tile) };
            let columns = panel * PANEL..size.min((panel + 1) * PANEL);
            self.job.isa.run(Normalise {
                tile: &scratch.tile,
                sums,
                out: self.job.out,
                first,
                columns: self.column + columns.start..self.column + columns.end,
            });
        }
    }
}

/// Turns the scores of a tile into exponentials and sums them.
struct Exponentials<'a> {
    /// Rows of whole panels.
    scores: &'a mut [f32],
    /// A copy of the exponentials, where the product wants bf16.
    probabilities: Option<&'a mut [bf16]>,
    keys: usize,
    scale: f32,
}

impl Operation for Exponentials<'_> {
    type Output = [f32; TILE_ROWS];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f32; TILE_ROWS] {
        let stride = self.keys.next_multiple_of(PANEL);
        let mut sums = [0.0; TILE_ROWS];
        for (sum, row) in sums.iter_mut().zip(self.scores.chunks_exact_mut(stride)) {
            *sum = exponentials(simd, &mut row[..self.keys], self.scale);
            // A unit of two may reach one key too far.
            row[self.keys..].fill(0.0);
        }
        if let Some(probabilities) = self.probabilities {
            let narrow = probabilities.chunks_exact_mut(S::LANES);
            for (narrow, wide) in narrow.zip(self.scores.chunks_exact(S::LANES)) {
                simd.store_bf16(simd.load(wide), narrow);
            }
        }
        sums
    }
}

/// Divides a tile of context by the sums of its rows and writes it.
struct Normalise<'a> {
    tile: &'a tile::Buffer,
    sums: &'a [f32],
    out: Context,
    first: usize,
    columns: std::ops::Range<usize>,
}

impl Operation for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, sum) in self.sums.iter().enumerate() {
            let inverse = simd.splat(1.0 / sum);
            let context = &self.tile.row(row)[..self.columns.len()];
            let context = context.chunks(S::LANES);
            match self.out {
                Context::F32(out) => {
                    // SAFETY: each task owns one head's columns of one segment's rows, and segments
                    // are disjoint by `check_disjoint`.
                    let out = unsafe { out.part(self.first + row, self.columns.clone()) };
                    for (out, x) in out.chunks_mut(S::LANES).zip(context) {
                        simd.store_part(simd.mul(simd.load_part(x, 0.0), inverse), out);
                    }
                }
                Context::Bf16(out) => {
                    // SAFETY: as above.
                    let out = unsafe { out.part(self.first + row, self.columns.clone()) };
                    for (out, x) in out.chunks_mut(S::LANES).zip(context) {
                        simd.store_bf16(simd.mul(simd.load_part(x, 0.0), inverse), out);
                    }
                }
            }
        }
    }
}
