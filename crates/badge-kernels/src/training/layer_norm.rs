//! Layer norm in training, with the dropout and the residual sum before it.

use half::bf16;

use super::dropout::{DropoutMask, MaskRow};
use crate::gemm::Output;
use crate::layer_norm::{scale_and_shift, statistics};
use crate::matrix::{Rows, RowsMut, SharedRows, SharedSlice, for_each_row};
use crate::quantise::narrow_row;
use crate::simd::{Number, Operation, Simd};
use crate::threads::{Pool, Task};

/// Weights of a layer norm.
#[derive(Debug, Clone, Copy)]
pub struct NormParameters<'a> {
    /// `w: [D]`
    pub weight: &'a [f32],
    /// `b: [D]`
    pub bias: &'a [f32],
    /// `ε`, under the root.
    pub eps: f32,
}

/// What backward needs of each row: its mean `μ` and `ρ = 1 / √(variance + ε)`.
#[derive(Debug, Clone, Default)]
pub struct NormStatistics {
    means: Vec<f32>,
    inverse_deviations: Vec<f32>,
}

impl NormStatistics {
    /// Room for `rows` rows.
    pub fn new(rows: usize) -> Self {
        Self {
            means: vec![0.0; rows],
            inverse_deviations: vec![0.0; rows],
        }
    }

    fn assert_hold(&self, rows: usize) {
        let room = self.means.len();
        assert!(rows <= room, "statistics of {room} rows for {rows}");
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        2 * self.means.len() * size_of::<f32>()
    }
}

/// What is normalised: `s = dropout(x) + residual`.
#[derive(Debug, Clone, Copy)]
pub struct NormInput<'a> {
    /// `x: [T, D]`
    pub x: Rows<'a, f32>,
    /// The mask of `x`; none keeps all of it.
    pub dropout: Option<DropoutMask<'a>>,
    /// Added where there is one.
    pub residual: Option<Rows<'a, f32>>,
}

/// What [`layer_norm_forward`] writes.
#[derive(Debug)]
pub struct NormForward<'a> {
    /// `s`, which backward reads; none where it is `x` itself.
    pub sum: Option<RowsMut<'a, f32>>,
    /// `y`
    pub normalised: RowsMut<'a, f32>,
    /// `y` as the factor of the next product.
    pub narrow: Option<RowsMut<'a, bf16>>,
    /// Means and deviations of `s`.
    pub statistics: &'a mut NormStatistics,
}

/// `y = x̂ w + b` with `x̂ = (s - μ) ρ` of each row of `s = dropout(x) + residual`.
///
/// # Accuracy
/// `s` is rounded twice; from it on, that of [`layer_norm`](crate::layer_norm::layer_norm), whose bits
/// these are.
///
/// # Panics
/// When shapes disagree, or there is a mask or a residual but no place for the sum.
pub fn layer_norm_forward(
    pool: &Pool,
    input: NormInput<'_>,
    parameters: NormParameters<'_>,
    out: NormForward<'_>,
) {
    let NormInput {
        x,
        dropout,
        residual,
    } = input;
    let NormForward {
        mut sum,
        mut normalised,
        mut narrow,
        statistics,
    } = out;
    let shape = (x.count(), x.columns());
    let NormParameters { weight, bias, .. } = parameters;
    assert_eq!(
        (weight.len(), bias.len()),
        (shape.1, shape.1),
        "weights of a layer norm"
    );
    let rows = residual.iter().map(|rows| (rows.count(), rows.columns()));
    let rows = rows.chain(sum.iter().map(|rows| (rows.count(), rows.columns())));
    let rows = rows.chain(narrow.iter().map(|rows| (rows.count(), rows.columns())));
    let rows = rows.chain([(normalised.count(), normalised.columns())]);
    rows.for_each(|rows| assert_eq!(rows, shape, "rows of another shape"));
    statistics.assert_hold(shape.0);
    if let Some(mask) = dropout {
        mask.assert_covers(shape.0, shape.1);
    }
    let is_plain = dropout.is_none() && residual.is_none();
    assert!(is_plain || sum.is_some(), "a sum needs its place");
    let job = Forward {
        input,
        parameters,
        sum: sum.as_mut().map(RowsMut::share),
        normalised: normalised.share(),
        narrow: narrow.as_mut().map(RowsMut::share),
        means: SharedSlice::new(&mut statistics.means),
        inverse_deviations: SharedSlice::new(&mut statistics.inverse_deviations),
    };
    let isa = pool.isa();
    for_each_row(pool, shape.0, &|index| {
        isa.run(ForwardRow { job: &job, index });
    });
}

struct Forward<'a> {
    input: NormInput<'a>,
    parameters: NormParameters<'a>,
    sum: Option<SharedRows<f32>>,
    normalised: SharedRows<f32>,
    narrow: Option<SharedRows<bf16>>,
    means: SharedSlice<f32>,
    inverse_deviations: SharedSlice<f32>,
}

/// One row, which is the only task to write it.
struct ForwardRow<'a> {
    job: &'a Forward<'a>,
    index: usize,
}

impl Operation for ForwardRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (job, index) = (self.job, self.index);
        let NormInput {
            x,
            dropout,
            residual,
        } = job.input;
        let mut row = x.row(index);
        if let Some(sum) = job.sum {
            // SAFETY: each row is one task.
            let sum = unsafe { sum.row(index) };
            let mask = dropout.map(|mask| mask.row(index));
            add_residual(s, row, mask, residual.map(|rows| rows.row(index)), sum);
            row = sum;
        }
        let (mean, inverse) = statistics(s, row, job.parameters.eps);
        // SAFETY: each row is one task.
        let out = unsafe {
            *job.means.element(index) = mean;
            *job.inverse_deviations.element(index) = inverse;
            job.normalised.row(index)
        };
        let parameters = (job.parameters.weight, job.parameters.bias);
        scale_and_shift(s, row, (mean, inverse), parameters, out);
        if let Some(narrow) = job.narrow {
            // SAFETY: each row is one task.
            narrow_row(s, out, unsafe { narrow.row(index) });
        }
    }
}

/// `sum = mask(x) + residual`
#[inline(always)]
fn add_residual<S: Simd>(
    s: S,
    x: &[f32],
    mask: Option<MaskRow<'_>>,
    residual: Option<&[f32]>,
    sum: &mut [f32],
) {
    let vectors = x.chunks(S::LANES).zip(sum.chunks_mut(S::LANES));
    for (index, (x, sum)) in vectors.enumerate() {
        let start = index * S::LANES;
        let mut v = s.load_part(x, 0.0);
        if let Some(mask) = mask {
            v = mask.apply(s, v, start);
        }
        if let Some(residual) = residual {
            v = s.add(v, s.load_part(&residual[start..start + x.len()], 0.0));
        }
        s.store_part(v, sum);
    }
}

/// What [`layer_norm_backward`] reads.
#[derive(Debug, Clone, Copy)]
pub struct NormGradient<'a> {
    /// `dy = ∂L/∂y: [T, D]`
    pub gradient: Rows<'a, f32>,
    /// `s: [T, D]`
    pub sum: Rows<'a, f32>,
    /// Of `s`, from forward.
    pub statistics: &'a NormStatistics,
    /// `w: [D]`
    pub weight: &'a [f32],
}

/// What [`layer_norm_backward`] writes.
#[derive(Debug)]
pub struct NormBackward<'a> {
    /// `ds: [T, D]`, which is the gradient of the residual too.
    pub sum: RowsMut<'a, f32>,
    /// The gradient of `x`, where it differs from `ds` or is wanted as a factor in bf16.
    pub branch: Option<NormBranch<'a>>,
    /// `dw: [D]`, added to.
    pub weight: &'a mut [f32],
    /// `db: [D]`, added to.
    pub bias: &'a mut [f32],
}

/// The gradient of what was dropped out and added to the residual.
#[derive(Debug)]
pub struct NormBranch<'a> {
    /// The mask of forward.
    pub dropout: Option<DropoutMask<'a>>,
    /// `dx = mask(ds): [T, D]`
    pub out: Output<'a>,
}

/// Rows whose parts of `dw` and `db` are summed first, by one thread. The partial sums are then a
/// twentieth of the memory that is read.
const CHUNK: usize = 16;

/// Columns of a task that adds up partial sums: four cache lines.
const STRIP: usize = 64;

/// Memory for partial sums of the gradients of weight and bias.
#[derive(Debug)]
pub struct NormScratch {
    /// `dw`, then `db`, of one chunk of rows after the other.
    partial: Vec<f32>,
}

impl NormScratch {
    /// Room for `rows` rows of `columns` elements.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self {
            partial: vec![0.0; rows.div_ceil(CHUNK) * 2 * columns],
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.partial[..])
    }
}

/// Backward of [`layer_norm_forward`]: with `g = dy w`,
/// `ds = ρ (g - mean(g) - x̂ mean(g x̂))`, `dw ← dw + Σ_t dy x̂`, `db ← db + Σ_t dy`.
///
/// Sums over rows are taken of 16 rows at a time, then over these sums, both in order.
///
/// # Accuracy
/// With `X = max |s| ρ` and `G = max |g|` of a row, `ds` is within `2⁻²⁰ ρ G (1 + X)²`, and `dw` and
/// `db` within `2⁻²⁰ Σ_t |dy| (1 + X)`.
///
/// # Panics
/// When shapes disagree or the scratch is too small.
pub fn layer_norm_backward(
    pool: &Pool,
    input: NormGradient<'_>,
    scratch: &mut NormScratch,
    out: NormBackward<'_>,
) {
    let NormBackward {
        mut sum,
        branch,
        weight,
        bias,
    } = out;
    let (count, columns) = (input.sum.count(), input.weight.len());
    let shapes = [
        (input.sum.count(), input.sum.columns()),
        (input.gradient.count(), input.gradient.columns()),
        (sum.count(), sum.columns()),
    ];
    assert_eq!(shapes, [(count, columns); 3], "rows of another shape");
    assert_eq!(
        (weight.len(), bias.len()),
        (columns, columns),
        "gradients of a layer norm"
    );
    input.statistics.assert_hold(count);
    let chunks = count.div_ceil(CHUNK);
    let room = scratch.partial.len();
    assert!(room >= chunks * 2 * columns, "scratch of {room} numbers");
    let mut branch = branch;
    let job = Backward {
        input,
        sum: sum.share(),
        branch: branch.as_mut().map(|branch| branch.share((count, columns))),
        partial: SharedSlice::new(&mut scratch.partial),
    };
    let isa = pool.isa();
    pool.run(chunks, &|task: Task| {
        isa.run(BackwardChunk {
            job: &job,
            index: task.index,
        });
    });
    let gradients = [weight, bias].map(SharedSlice::new);
    let partial = &scratch.partial[..chunks * 2 * columns];
    pool.run(columns.div_ceil(STRIP), &|task: Task| {
        let strip = task.index * STRIP..columns.min((task.index + 1) * STRIP);
        for (half, gradient) in gradients.iter().enumerate() {
            isa.run(AddPartialSums {
                rows: &partial[half * columns..],
                pitch: 2 * columns,
                start: strip.start,
                // SAFETY: each task has columns of its own.
                gradient: unsafe { gradient.part(strip.clone()) },
            });
        }
    });
}

impl NormBranch<'_> {
    fn share(&mut self, shape: (usize, usize)) -> SharedBranch<'_> {
        if let Some(mask) = &self.dropout {
            mask.assert_covers(shape.0, shape.1);
        }
        let (found, out) = match &mut self.out {
            Output::F32(rows) => ((rows.count(), rows.columns()), SharedOut::F32(rows.share())),
            Output::Bf16(rows) => (
                (rows.count(), rows.columns()),
                SharedOut::Bf16(rows.share()),
            ),
        };
        assert_eq!(found, shape, "branch of another shape");
        SharedBranch {
            dropout: self.dropout,
            out,
        }
    }
}

struct SharedBranch<'a> {
    dropout: Option<DropoutMask<'a>>,
    out: SharedOut,
}

enum SharedOut {
    F32(SharedRows<f32>),
    Bf16(SharedRows<bf16>),
}

struct Backward<'a> {
    input: NormGradient<'a>,
    sum: SharedRows<f32>,
    branch: Option<SharedBranch<'a>>,
    partial: SharedSlice<f32>,
}

/// Some rows, with their part of the gradients of weight and bias.
struct BackwardChunk<'a> {
    job: &'a Backward<'a>,
    index: usize,
}

impl Operation for BackwardChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let job = self.job;
        let columns = job.input.weight.len();
        let start = self.index * 2 * columns;
        // SAFETY: each chunk is one task.
        let partial = unsafe { job.partial.part(start..start + 2 * columns) };
        partial.fill(0.0);
        let (weight, bias) = partial.split_at_mut(columns);
        let count = job.input.sum.count();
        for index in self.index * CHUNK..count.min((self.index + 1) * CHUNK) {
            let row = BackwardRow {
                x: job.input.sum.row(index),
                dy: job.input.gradient.row(index),
                weight: job.input.weight,
                mean: job.input.statistics.means[index],
                inverse: job.input.statistics.inverse_deviations[index],
            };
            let means = row.sums(s, weight, bias);
            // SAFETY: each row belongs to one chunk.
            let out = unsafe { job.sum.row(index) };
            row.gradient(s, means, out);
            if let Some(branch) = &job.branch {
                let mask = branch.dropout.map(|mask| mask.row(index));
                match &branch.out {
                    // SAFETY: as above.
                    SharedOut::F32(rows) => copy(s, out, mask, unsafe { rows.row(index) }),
                    // SAFETY: as above.
                    SharedOut::Bf16(rows) => copy(s, out, mask, unsafe { rows.row(index) }),
                }
            }
        }
    }
}

/// `out = mask(x)`
#[inline(always)]
fn copy<S: Simd, T: Number>(s: S, x: &[f32], mask: Option<MaskRow<'_>>, out: &mut [T]) {
    let vectors = x.chunks(S::LANES).zip(out.chunks_mut(S::LANES));
    for (index, (x, out)) in vectors.enumerate() {
        let mut v = s.load_part(x, 0.0);
        if let Some(mask) = mask {
            v = mask.apply(s, v, index * S::LANES);
        }
        T::store(s, v, out);
    }
}

struct BackwardRow<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    weight: &'a [f32],
    mean: f32,
    inverse: f32,
}

impl BackwardRow<'_> {
    /// Adds `dy x̂` and `dy` to the gradients, and returns the means of `g` and `g x̂`.
    #[inline(always)]
    fn sums<S: Simd>(&self, s: S, weight: &mut [f32], bias: &mut [f32]) -> (f32, f32) {
        let (mean, inverse) = (s.splat(self.mean), s.splat(self.inverse));
        // Two of each, for one alone would wait for its last addition at every step.
        let (mut plain, mut scaled) = ([s.splat(0.0); 2], [s.splat(0.0); 2]);
        let rows = self.x.chunks(S::LANES).zip(self.dy.chunks(S::LANES));
        let gradients = weight.chunks_mut(S::LANES).zip(bias.chunks_mut(S::LANES));
        let vectors = rows.zip(self.weight.chunks(S::LANES)).zip(gradients);
        for (index, (((x, dy), w), (dw, db))) in vectors.enumerate() {
            let (dy, w) = (s.load_part(dy, 0.0), s.load_part(w, 0.0));
            let normal = s.mul(s.sub(s.load_part(x, 0.0), mean), inverse);
            s.store_part(s.mul_add(dy, normal, s.load_part(dw, 0.0)), dw);
            s.store_part(s.add(dy, s.load_part(db, 0.0)), db);
            let g = s.mul(dy, w);
            let sums = index % 2;
            plain[sums] = s.add(plain[sums], g);
            scaled[sums] = s.mul_add(g, normal, scaled[sums]);
        }
        let count = self.x.len() as f32;
        let total = |sums: [S::F32; 2]| s.sum(s.add(sums[0], sums[1])) / count;
        (total(plain), total(scaled))
    }

    /// `ρ (g - mean(g) - x̂ mean(g x̂))`
    #[inline(always)]
    fn gradient<S: Simd>(&self, s: S, (plain, scaled): (f32, f32), out: &mut [f32]) {
        let (mean, inverse) = (s.splat(self.mean), s.splat(self.inverse));
        let (plain, scaled) = (s.splat(plain), s.splat(-scaled));
        let rows = self.x.chunks(S::LANES).zip(self.dy.chunks(S::LANES));
        let vectors = rows
            .zip(self.weight.chunks(S::LANES))
            .zip(out.chunks_mut(S::LANES));
        for (((x, dy), w), out) in vectors {
            let normal = s.mul(s.sub(s.load_part(x, 0.0), mean), inverse);
            let g = s.mul(s.load_part(dy, 0.0), s.load_part(w, 0.0));
            let centred = s.mul_add(normal, scaled, s.sub(g, plain));
            s.store_part(s.mul(inverse, centred), out);
        }
    }
}

/// Adds a strip of columns of all partial sums to a gradient, in order.
struct AddPartialSums<'a> {
    rows: &'a [f32],
    pitch: usize,
    /// The first column.
    start: usize,
    gradient: &'a mut [f32],
}

impl Operation for AddPartialSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (index, sums) in self.gradient.chunks_mut(S::LANES).enumerate() {
            let start = self.start + index * S::LANES;
            let mut total = s.splat(0.0);
            for row in self.rows.chunks(self.pitch) {
                let partial = s.load_part(&row[start..start + sums.len()], 0.0);
                total = s.add(total, partial);
            }
            s.store_part(s.add(s.load_part(sums, 0.0), total), sums);
        }
    }
}
