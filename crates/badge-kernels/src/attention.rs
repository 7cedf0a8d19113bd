//! Multi-head attention over sequences packed one after the other: `softmax(Q Kᵀ / √k) V` a head.
//!
//! No padding is computed: each sequence attends to its own rows alone. For one sequence and head
//! the keys are transposed into panels and the values laid out as panels, both as [`crate::gemm`]
//! packs weights, so that scores and context are tiles like any other product. A tile of eight
//! queries stays in the first-level cache from its scores to its context.

use std::ops::Range;
use std::sync::Mutex;

use half::bf16;

use crate::buffer::Buffer;
use crate::gemm::Output;
use crate::gemm::tile::{self, PANEL, TILE_ROWS, TileFunction};
use crate::isa::Isa;
use crate::matrix::{Rows, SharedRows};
use crate::simd::{Number, Operation, Simd};
use crate::softmax::exponentials;
use crate::threads::{Pool, Task};
use crate::training::dropout::DropoutMask;

pub(crate) mod pack;
pub(crate) mod transpose;

use pack::{ComputedRows, Factor, HeadRows, TileOfRows};

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

    pub(crate) fn shape(&self) -> AttentionShape {
        self.shape
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
    output: Output<'_>,
) {
    let request = Request {
        input,
        sequences,
        dropout: None,
        statistics: None,
    };
    compute(pool, &request, scratch, output);
}

/// [`attention`], and what training wants besides.
pub(crate) fn compute(
    pool: &Pool,
    request: &Request<'_>,
    scratch: &AttentionScratch,
    mut output: Output<'_>,
) {
    let shape = scratch.shape;
    let (count, columns, out) = share(&mut output);
    assert_eq!(columns, shape.heads * shape.head_size, "output columns");
    let workers = scratch.workers.len();
    assert!(workers >= pool.threads(), "scratch for {workers} workers");
    check_disjoint(request.sequences.queries, count);
    let job = Job {
        shape,
        request,
        scratch,
        out,
        isa: pool.isa(),
    };
    match request.input {
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

/// Rows and columns of an output, and access for threads that write disjoint parts.
pub(crate) fn share(output: &mut Output<'_>) -> (usize, usize, SharedOutput) {
    match output {
        Output::F32(rows) => (
            rows.count(),
            rows.columns(),
            SharedOutput::F32(rows.share()),
        ),
        Output::Bf16(rows) => (
            rows.count(),
            rows.columns(),
            SharedOutput::Bf16(rows.share()),
        ),
    }
}

/// Segments in ascending order that do not overlap, so that tasks write disjoint rows.
pub(crate) fn check_disjoint(segments: &[Segment], rows: usize) {
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

/// Rows of either type that several workers write, each its own part.
#[derive(Clone, Copy)]
pub(crate) enum SharedOutput {
    F32(SharedRows<f32>),
    Bf16(SharedRows<bf16>),
}

impl SharedOutput {
    /// Writes `factor x` to some columns of a row.
    ///
    /// # Safety
    /// The rows are alive, and nobody else uses this part at the same time.
    #[inline(always)]
    pub(crate) unsafe fn write<S: Simd>(
        self,
        simd: S,
        (row, columns): (usize, Range<usize>),
        x: &[f32],
        factor: f32,
    ) {
        #[inline(always)]
        fn row_of<S: Simd, T: Number>(simd: S, out: &mut [T], x: &[f32], factor: f32) {
            let factor = simd.splat(factor);
            for (out, x) in out.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
                T::store(simd, simd.mul(simd.load_part(x, 0.0), factor), out);
            }
        }
        match self {
            // SAFETY: the caller's promise.
            Self::F32(rows) => row_of(simd, unsafe { rows.part(row, columns) }, x, factor),
            // SAFETY: the caller's promise.
            Self::Bf16(rows) => row_of(simd, unsafe { rows.part(row, columns) }, x, factor),
        }
    }
}

/// What [`compute`] is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) input: AttentionInput<'a>,
    pub(crate) sequences: Sequences<'a>,
    /// Of the probabilities: row `h M + i` is head `h` of query row `i`, column `j` its sequence's key
    /// `j`.
    pub(crate) dropout: Option<DropoutMask<'a>>,
    /// Rows `2 h` and `2 h + 1` get the largest score and the inverse sum of each query row.
    pub(crate) statistics: Option<SharedRows<f32>>,
}

struct Job<'a> {
    shape: AttentionShape,
    request: &'a Request<'a>,
    scratch: &'a AttentionScratch,
    out: SharedOutput,
    isa: Isa,
}

impl Job<'_> {
    fn run<T: Factor>(&self, pool: &Pool, projections: &Projections<'_, T>) {
        let sequences = self.request.sequences;
        projections.check(self.shape, sequences);
        let longest = sequences.keys.iter().map(|s| s.length).max().unwrap_or(0);
        assert!(longest <= self.scratch.keys_max, "{longest} keys");
        if let Some(mask) = self.request.dropout {
            mask.assert_covers(self.shape.heads * projections.queries.count(), longest);
        }
        let tiles = tile::functions(self.isa, T::PRECISION);
        pool.run(sequences.queries.len() * self.shape.heads, &|task: Task| {
            let (index, head) = (task.index / self.shape.heads, task.index % self.shape.heads);
            let of = |rows, segments: &[Segment]| self.shape.head(rows, segments[index], head);
            let head = Head {
                job: self,
                tiles,
                queries: of(projections.queries, sequences.queries),
                keys: of(projections.keys, sequences.keys),
                values: of(projections.values, sequences.keys),
                index: head,
            };
            let worker = self.scratch.workers[task.worker].lock();
            head.compute(&mut worker.expect("no task panics while it holds the scratch"));
        });
    }
}

impl AttentionShape {
    /// The columns of a head in the rows of a sequence.
    pub(crate) fn head<T>(
        self,
        rows: Rows<'_, T>,
        segment: Segment,
        head: usize,
    ) -> HeadRows<'_, T> {
        HeadRows {
            rows,
            first: segment.start,
            length: segment.length,
            column: head * self.head_size,
            size: self.head_size,
        }
    }
}

impl<T> Projections<'_, T> {
    /// Asserts that the columns are those of the heads and that the segments exist.
    pub(crate) fn check(&self, shape: AttentionShape, sequences: Sequences<'_>) {
        let width = shape.heads * shape.head_size;
        for rows in [&self.queries, &self.keys, &self.values] {
            assert_eq!(rows.columns(), width, "columns of a projection");
        }
        assert_eq!(
            sequences.queries.len(),
            sequences.keys.len(),
            "a key segment for each of queries"
        );
        let inside = |s: &Segment, rows: &Rows<'_, T>| {
            s.length > 0 && s.start <= rows.count() && s.length <= rows.count() - s.start
        };
        for (query, key) in sequences.queries.iter().zip(sequences.keys) {
            let count = self.queries.count();
            assert!(inside(query, &self.queries), "{query:?} of {count} rows");
            assert!(
                inside(key, &self.keys) && inside(key, &self.values),
                "{key:?}"
            );
        }
    }
}

/// One head of one sequence.
struct Head<'a, T> {
    job: &'a Job<'a>,
    tiles: &'static [TileFunction; TILE_ROWS],
    queries: HeadRows<'a, T>,
    keys: HeadRows<'a, T>,
    values: HeadRows<'a, T>,
    /// Which head.
    index: usize,
}

impl<T: Factor> Head<'_, T> {
    fn compute(&self, scratch: &mut Scratch) {
        self.keys.pack_across(self.job.isa, &mut scratch.keys);
        self.values.pack_along(self.job.isa, &mut scratch.values);
        let length = self.queries.length;
        let tiles = length.div_ceil(tile::rows_max(self.job.isa));
        for index in 0..tiles {
            let start = length * index / tiles;
            let rows = self
                .queries
                .part(start, length * (index + 1) / tiles - start);
            let sums = self.score(scratch, &rows);
            self.weigh(scratch, &rows, &sums[..rows.length]);
        }
    }

    /// Exponentials of the scores of the queries of a tile, and their sums.
    fn score(&self, scratch: &mut Scratch, queries: &HeadRows<'_, T>) -> [f32; TILE_ROWS] {
        let keys = self.keys.length;
        let stride = keys.next_multiple_of(PANEL);
        let tile = TileOfRows {
            tiles: self.tiles,
            rows: queries.length,
            input: queries.address(),
            groups: queries.groups(),
        };
        let scores = &mut scratch.scores[..queries.length * stride];
        // SAFETY: `tiles` belongs to the pool's instruction set; the address is good for all rows.
        unsafe {
            tile.times(
                &scratch.keys,
                stride / PANEL,
                &mut scratch.tile,
                |panel, sums| {
                    for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
                        sums.copy_row(row, &mut scores[panel * PANEL..]);
                    }
                },
            );
        }
        let request = &self.job.request;
        self.job.isa.run(Exponentials {
            probabilities: (T::GROUP > 1).then_some(&mut scratch.probabilities[..scores.len()]),
            scores,
            keys,
            scale: 1.0 / (self.job.shape.head_size as f32).sqrt(),
            head: self.index,
            first: queries.first,
            statistics: request.statistics,
            mask: request
                .dropout
                .map(|mask| (mask, self.index * queries.rows.count())),
        })
    }

    /// The context of these queries: exponentials times values, over the sums.
    fn weigh(&self, scratch: &mut Scratch, queries: &HeadRows<'_, T>, sums: &[f32]) {
        let size = self.job.shape.head_size;
        let weights = ComputedRows {
            f32: &scratch.scores,
            bf16: &scratch.probabilities,
            stride: self.keys.length.next_multiple_of(PANEL),
        };
        let tile = TileOfRows {
            tiles: self.tiles,
            rows: sums.len(),
            input: T::address(&weights),
            groups: self.keys.groups_of_rows(),
        };
        // SAFETY: as in `score`; the rows of probabilities hold a whole number of panels, of which
        // all units of keys have been written.
        unsafe {
            tile.times(
                &scratch.values,
                size.div_ceil(PANEL),
                &mut scratch.tile,
                |panel, tile| {
                    let columns = panel * PANEL..size.min((panel + 1) * PANEL);
                    self.job.isa.run(Normalise {
                        tile,
                        sums,
                        out: self.job.out,
                        first: queries.first,
                        columns: queries.column + columns.start..queries.column + columns.end,
                    });
                },
            );
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
    /// Which head.
    head: usize,
    /// The row of queries of the first row of scores.
    first: usize,
    /// As in [`Request`].
    statistics: Option<SharedRows<f32>>,
    /// The mask, and its row for the head's query 0.
    mask: Option<(DropoutMask<'a>, usize)>,
}

impl Operation for Exponentials<'_> {
    type Output = [f32; TILE_ROWS];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f32; TILE_ROWS] {
        let stride = self.keys.next_multiple_of(PANEL);
        let mut sums = [0.0; TILE_ROWS];
        let rows = self.scores.chunks_exact_mut(stride);
        for (index, (sum, row)) in sums.iter_mut().zip(rows).enumerate() {
            let numerators = exponentials(simd, &mut row[..self.keys], self.scale);
            *sum = numerators.sum;
            // A unit of two may reach one key too far.
            row[self.keys..].fill(0.0);
            let query = self.first + index;
            if let Some(statistics) = self.statistics {
                // SAFETY: each task owns one head's columns of one segment's rows, and segments
                // are disjoint by `check_disjoint`.
                unsafe {
                    statistics.part(2 * self.head, query..query + 1)[0] = numerators.largest;
                    statistics.part(2 * self.head + 1, query..query + 1)[0] = 1.0 / *sum;
                }
            }
            if let Some((mask, first)) = self.mask {
                let mask = mask.row(first + query);
                for (index, x) in row[..self.keys].chunks_mut(S::LANES).enumerate() {
                    let kept = mask.apply(simd, simd.load_part(x, 0.0), index * S::LANES);
                    simd.store_part(kept, x);
                }
            }
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
    out: SharedOutput,
    first: usize,
    columns: Range<usize>,
}

impl Operation for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, sum) in self.sums.iter().enumerate() {
            let context = &self.tile.row(row)[..self.columns.len()];
            let columns = self.columns.clone();
            // SAFETY: each task owns one head's columns of one segment's rows, and segments are
            // disjoint by `check_disjoint`.
            unsafe {
                self.out
                    .write(simd, (self.first + row, columns), context, 1.0 / sum);
            };
        }
    }
}
