//! The products of a linear layer `Y = X Wᵀ + b` in training: `Y` and `dX = dY W` through
//! [`gemm`](crate::gemm::gemm) with weights that are packed again after every step, and the gradient
//! `dW = dYᵀ X`, which needs no packed weights.

use std::ops::Range;

use super::Factor;
use crate::gemm::repack::repack;
use crate::gemm::{PackedMatrix, Precision};
use crate::isa::Isa;
use crate::matrix::{Matrix, SharedRows, SharedSlice};
use crate::threads::{Pool, Task};

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod left;
mod scalar;
mod tile;

use left::Pack;
use tile::{COLUMNS, Kernel, Tile};

const CACHE_LINE: usize = 64;

/// The weights of a linear layer in training, packed for both directions.
#[derive(Debug)]
pub struct TrainedMatrix {
    forward: PackedMatrix,
    backward: PackedMatrix,
}

impl TrainedMatrix {
    /// Room for weights `W: [outputs, inputs]`, all zero until [`Self::pack`].
    ///
    /// # Panics
    /// For [`Precision::Int8`], which is not trained in.
    pub fn new(outputs: usize, inputs: usize, precision: Precision) -> Self {
        assert_ne!(precision, Precision::Int8, "int8 weights are not trained");
        Self {
            forward: PackedMatrix::zeros(outputs, inputs, precision),
            backward: PackedMatrix::zeros(inputs, outputs, precision),
        }
    }

    /// Packs `weights: [outputs, inputs]`, row after row. Nothing is allocated.
    ///
    /// # Panics
    /// When there are not `outputs * inputs` of them.
    pub fn pack(&mut self, pool: &Pool, weights: &[f32]) {
        repack(pool, weights, &mut self.forward, &mut self.backward);
    }

    /// `W`, for `Y = X Wᵀ`.
    pub fn forward(&self) -> &PackedMatrix {
        &self.forward
    }

    /// `Wᵀ`, for `dX = dY W`.
    pub fn backward(&self) -> &PackedMatrix {
        &self.backward
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.forward.bytes() + self.backward.bytes()
    }
}

/// Outputs of a task: whole tiles of eight, six and sixteen. A block of the left factor over
/// [`TOKENS_AT_ONCE`] takes 192 KiB; with two panels of the right one, of 128 KiB each, it stays in
/// the second-level cache of 1 MiB.
const BLOCK: usize = 48;

/// Tokens that are summed in registers before the gradient is added to.
const TOKENS_AT_ONCE: usize = 1024;

/// Working memory of [`weight_gradient`], for any shapes.
#[derive(Debug)]
pub struct GradientScratch {
    /// A row for each thread: its block of the left factor, and for the tile unit one of the right.
    units: Matrix<i32>,
}

impl GradientScratch {
    /// Working memory for calls on this pool.
    pub fn new(pool: &Pool) -> Self {
        let units = match pool.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => amx::SCRATCH.max(BLOCK * TOKENS_AT_ONCE),
            _ => BLOCK * TOKENS_AT_ONCE,
        };
        Self {
            units: Matrix::zeros(pool.threads(), units),
        }
    }
}

/// `G ← G + dYᵀ X`, the gradient of the weights of `Y = X Wᵀ`.
///
/// # Shapes
/// `dY: [T, N]`, `X: [T, K]`, `gradient: [N, K]` row after row.
///
/// # Accuracy
/// Sums in f32, so within `2⁻²⁴ (T + 4) (Σ|dy x| + |g|)` of the exact result for the factors as they
/// are. Their order depends on `T` alone.
///
/// # Panics
/// When shapes or precisions disagree, or `scratch` is of a pool of fewer threads or of another
/// instruction set.
pub fn weight_gradient(
    pool: &Pool,
    dy: Factor<'_>,
    x: Factor<'_>,
    scratch: &mut GradientScratch,
    gradient: &mut [f32],
) {
    let (n, k) = (dy.columns(), x.columns());
    assert_eq!(dy.count(), x.count(), "rows of both factors");
    assert_eq!(
        dy.precision(),
        x.precision(),
        "both factors in one precision"
    );
    assert_eq!(
        Some(gradient.len()),
        n.checked_mul(k),
        "gradient of {n} x {k}"
    );
    let workers = scratch.units.row_count();
    assert!(workers >= pool.threads(), "scratch of a smaller pool");
    let job = WeightGradient {
        isa: pool.isa(),
        threads: pool.threads(),
        kernel: tile::kernel(pool.isa(), x.precision()),
        dy,
        x,
        units: scratch.units.rows_mut(workers).share(),
        gradient: SharedSlice::new(gradient),
    };
    if k == 0 || x.count() == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Amx(amx), Precision::Bf16) = (job.isa, x.precision()) {
        let height = amx::outputs_of_task(n, pool.threads());
        pool.run(n.div_ceil(height), &|task: Task| {
            let outputs = task.index * height..n.min((task.index + 1) * height);
            // SAFETY: as below.
            unsafe { job.block_by_unit(amx, outputs, task.worker) };
        });
        return;
    }
    // SAFETY: each block of outputs is one task, and no two tasks of a worker run at once.
    pool.run(n.div_ceil(BLOCK), &|task: Task| unsafe { job.block(task) });
}

/// One call of [`weight_gradient`].
struct WeightGradient<'a> {
    isa: Isa,
    threads: usize,
    kernel: Kernel,
    dy: Factor<'a>,
    x: Factor<'a>,
    units: SharedRows<i32>,
    gradient: SharedSlice<f32>,
}

impl WeightGradient<'_> {
    /// Adds to the rows of one block of outputs.
    ///
    /// # Safety
    /// Nobody else uses these rows of the gradient and the worker's units at the same time.
    unsafe fn block(&self, task: Task) {
        let outputs = task.index * BLOCK..self.dy.columns().min((task.index + 1) * BLOCK);
        let k = self.x.columns();
        // SAFETY: the caller's promise.
        let units = unsafe { self.units.row(task.worker) };
        // SAFETY: the caller's promise.
        let gradient = unsafe { self.gradient.part(outputs.start * k..outputs.end * k) };
        for tokens in self.parts() {
            self.isa.run(Pack {
                factor: self.dy,
                tokens: tokens.clone(),
                outputs: outputs.clone(),
                height: self.kernel.outputs,
                step: self.kernel.step,
                room: tokens.len().div_ceil(self.kernel.step.tokens()),
                units,
            });
            // What this thread is likely to pack next.
            let next = if tokens.end < self.x.count() {
                self.dy.address_of(tokens.end, outputs.start)
            } else {
                self.dy.address_of(0, outputs.start + self.threads * BLOCK)
            };
            self.tiles(&tokens, units, gradient, next);
        }
    }

    /// The tokens, in parts that are summed in registers: of even length, whole pairs but for the last
    /// token.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tokens = self.x.count();
        let (pairs, parts) = (tokens.div_ceil(2), tokens.div_ceil(TOKENS_AT_ONCE));
        let bound = move |part: usize| (pairs * part / parts * 2).min(tokens);
        (0..parts).map(move |part| bound(part)..bound(part + 1))
    }

    /// All tiles of a block over some tokens, panel after panel of the right factor. The left
    /// factor from `next` on is asked for on the way.
    fn tiles(&self, tokens: &Range<usize>, units: &[i32], gradient: &mut [f32], next: *const u8) {
        let Kernel {
            tiles,
            outputs: height,
            step,
        } = self.kernel;
        let k = self.x.columns();
        let outputs = gradient.len() / k;
        let tile_units = tokens.len().div_ceil(step.tokens()) * height;
        assert!(units.len() >= outputs.div_ceil(height) * tile_units);
        let right_stride = self.x.address().1;
        for column in (0..k).step_by(COLUMNS) {
            let next_panel = if column + COLUMNS < k {
                column + COLUMNS
            } else {
                0
            };
            let next_panel = self.x.address_of(tokens.start, next_panel);
            for (index, output) in (0..outputs).step_by(height).enumerate() {
                let rows = height.min(outputs - output);
                // The first two tiles of a panel ask for the next one; of the first panel, the
                // others ask for the left factor.
                let (ahead, ahead_stride) = match index.checked_sub(2) {
                    Some(index) if column == 0 => self.lines(self.dy, next, index),
                    _ => self.lines(self.x, next_panel, index % 2),
                };
                let tile = Tile {
                    tokens: tokens.len(),
                    left: units[index * tile_units..].as_ptr(),
                    left_stride: height,
                    right: self.x.address_of(tokens.start, column),
                    right_stride,
                    columns: COLUMNS.min(k - column),
                    ahead,
                    ahead_stride,
                    gradient: gradient[output * k + column..].as_mut_ptr(),
                    gradient_stride: k,
                };
                // SAFETY: `tiles` belongs to the pool's instruction set, which the machine has. The
                // units of all tiles are there by the assert; `x` has these tokens and columns; the
                // gradient has rows of `k` numbers for `rows` outputs from `output` on, and is
                // borrowed exclusively.
                unsafe { (tiles[rows - 1])(&tile) };
            }
        }
    }

    /// Where the cache lines lie, one a step, that the tile with this index asks for: rows from
    /// `start` on take a line for every token, or for every other one where steps are pairs.
    fn lines(&self, factor: Factor<'_>, start: *const u8, index: usize) -> (*const u8, usize) {
        let (tokens, stride) = (self.kernel.step.tokens(), factor.address().1);
        let offset = index % tokens * stride + index / tokens * CACHE_LINE;
        (start.wrapping_add(offset), tokens * stride)
    }
}
