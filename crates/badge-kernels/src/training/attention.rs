//! Attention in training: dropout of the probabilities, and the backward pass.
//!
//! Probabilities are not kept: backward computes them again from queries, keys and two numbers a row.

use half::bf16;

use super::Factor;
use super::dropout::DropoutMask;
use crate::attention::{AttentionInput, AttentionScratch, AttentionShape, Segment, Sequences};
use crate::gemm::Output;
use crate::matrix::{Matrix, RowsMut};
use crate::reference::{Row, wide};
use crate::threads::Pool;

/// What forward and backward read alike.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPass<'a> {
    /// `Q: [M, H k]`, `K` and `V: [T, H k]`.
    pub input: AttentionInput<'a>,
    /// Which rows attend to which.
    pub sequences: Sequences<'a>,
    /// The mask of the probabilities: its row `h M + i` is head `h` of query row `i`, its column `j` the
    /// `j`-th key of that row's sequence.
    pub dropout: Option<DropoutMask<'a>>,
}

/// What backward needs of each softmax: the largest score and the sum of exponentials, a query row
/// and head.
#[derive(Debug)]
pub struct SoftmaxStatistics {
    /// `[2 H, M]`: for each head the largest scores, then the inverse sums.
    rows: Matrix<f32>,
    shape: AttentionShape,
}

impl SoftmaxStatistics {
    /// Room for `queries` rows of queries.
    pub fn new(queries: usize, shape: &AttentionShape) -> Self {
        Self {
            rows: Matrix::zeros(2 * shape.heads, queries),
            shape: *shape,
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

/// What [`attention_backward`] reads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionGradient<'a> {
    /// As in forward.
    pub pass: AttentionPass<'a>,
    /// From forward.
    pub statistics: &'a SoftmaxStatistics,
    /// `dO = ∂L/∂out: [M, H k]`, in the type of the projections.
    pub gradient: Factor<'a>,
}

/// Where the gradients of the projections go.
#[derive(Debug)]
pub enum ProjectionGradients<'a> {
    /// `dQ`, `dK` and `dV` side by side, `[T, 3 H k]`, where each row is a query and a key.
    Joined(Output<'a>),
    /// Each by itself.
    Apart {
        /// `dQ: [M, H k]`
        queries: Output<'a>,
        /// `dK: [T, H k]`
        keys: Output<'a>,
        /// `dV: [T, H k]`
        values: Output<'a>,
    },
}

/// Memory for backward, one part a worker.
#[derive(Debug)]
pub struct BackwardScratch {
    shape: AttentionShape,
}

impl BackwardScratch {
    /// Room for sequences of up to `rows_max` queries and keys on `threads` workers.
    pub fn new(threads: usize, rows_max: usize, shape: &AttentionShape) -> Self {
        let _ = (threads, rows_max);
        Self { shape: *shape }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        0
    }
}

/// `out = dropout(softmax(Q Kᵀ / √k)) V`, head by head, keeping what backward needs.
///
/// # Panics
/// As [`attention`](crate::attention::attention), or when the mask or the statistics have too few rows
/// or columns.
pub fn attention_forward(
    pool: &Pool,
    pass: &AttentionPass<'_>,
    scratch: &AttentionScratch,
    statistics: &mut SoftmaxStatistics,
    output: Output<'_>,
) {
    let _ = (pool, scratch);
    let shape = statistics.shape;
    let [q, k, v] = projections(pass);
    if let Some(mask) = pass.dropout {
        let longest = pass.sequences.keys.iter().map(|s| s.length).max();
        mask.assert_covers(shape.heads * q.len(), longest.unwrap_or(0));
    }
    let mut out = vec![vec![0.0; shape.heads * shape.head_size]; q.len()];
    for_each_head(pass, shape, |queries, keys, head| {
        let columns = head * shape.head_size..(head + 1) * shape.head_size;
        for i in rows_of(queries) {
            let scores = scores(&q[i][columns.clone()], &k[rows_of(keys)], columns.start);
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            statistics.rows.row_mut(2 * head)[i] = largest as f32;
            statistics.rows.row_mut(2 * head + 1)[i] = (1.0 / sum) as f32;
            for (j, s) in scores.iter().enumerate() {
                let p = (s - largest).exp() / sum * factor(pass, (head, i, j), q.len());
                for column in columns.clone() {
                    out[i][column] += p * v[keys.start + j][column];
                }
            }
        }
    });
    write(output, 0, &out, pass.sequences.queries);
}

/// Backward of [`attention_forward`]. With `P` the probabilities, `M` the mask (0 or its scale) and
/// `P̃ = P ⊙ M`:
/// `dV = P̃ᵀ dO`, `dP = (dO Vᵀ) ⊙ M`, `dS = P ⊙ (dP - Σⱼ P dP)`, `dQ = dS K / √k`, `dK = dSᵀ Q / √k`.
///
/// Rows outside the segments are not written.
///
/// # Panics
/// When shapes disagree, or scratch or statistics are too small.
pub fn attention_backward(
    pool: &Pool,
    input: &AttentionGradient<'_>,
    scratch: &BackwardScratch,
    out: ProjectionGradients<'_>,
) {
    let _ = pool;
    let AttentionGradient {
        pass,
        statistics,
        gradient,
    } = input;
    let shape = scratch.shape;
    let width = shape.heads * shape.head_size;
    let scale = 1.0 / (shape.head_size as f64).sqrt();
    let [q, k, v] = projections(pass);
    let d_out = match gradient {
        Factor::F32(rows) => wide(*rows),
        Factor::Bf16(rows) => wide(*rows),
    };
    let mut dq = vec![vec![0.0; width]; q.len()];
    let mut dk = vec![vec![0.0; width]; k.len()];
    let mut dv = dk.clone();
    for_each_head(pass, shape, |queries, keys, head| {
        let columns = head * shape.head_size..(head + 1) * shape.head_size;
        for i in rows_of(queries) {
            let scores = scores(&q[i][columns.clone()], &k[rows_of(keys)], columns.start);
            let (largest, inverse) = (
                f64::from(statistics.rows.row(2 * head)[i]),
                f64::from(statistics.rows.row(2 * head + 1)[i]),
            );
            let p: Row = scores
                .iter()
                .map(|s| (s - largest).exp() * inverse)
                .collect();
            let mask: Row = (0..p.len())
                .map(|j| factor(pass, (head, i, j), q.len()))
                .collect();
            let dp: Row = (0..p.len())
                .map(|j| {
                    let row = &v[keys.start + j];
                    let dot: f64 = columns.clone().map(|c| d_out[i][c] * row[c]).sum();
                    dot * mask[j]
                })
                .collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..p.len() {
                let ds = p[j] * (dp[j] - mean) * scale;
                let row = keys.start + j;
                for c in columns.clone() {
                    dq[i][c] += ds * k[row][c];
                    dk[row][c] += ds * q[i][c];
                    dv[row][c] += p[j] * mask[j] * d_out[i][c];
                }
            }
        }
    });
    write_gradients(out, [&dq, &dk, &dv], pass.sequences);
}

fn write_gradients(
    out: ProjectionGradients<'_>,
    [dq, dk, dv]: [&[Row]; 3],
    sequences: Sequences<'_>,
) {
    let width = dq.first().map_or(0, Vec::len);
    match out {
        ProjectionGradients::Joined(mut output) => {
            for (start, rows) in [(0, dq), (width, dk), (2 * width, dv)] {
                let output = match &mut output {
                    Output::F32(rows) => Output::F32(rows.reborrow()),
                    Output::Bf16(rows) => Output::Bf16(rows.reborrow()),
                };
                write(output, start, rows, sequences.queries);
            }
        }
        ProjectionGradients::Apart {
            queries,
            keys,
            values,
        } => {
            write(queries, 0, dq, sequences.queries);
            write(keys, 0, dk, sequences.keys);
            write(values, 0, dv, sequences.keys);
        }
    }
}

fn projections(pass: &AttentionPass<'_>) -> [Vec<Row>; 3] {
    match pass.input {
        AttentionInput::F32(p) => [p.queries, p.keys, p.values].map(wide),
        AttentionInput::Bf16(p) => [p.queries, p.keys, p.values].map(wide),
    }
}

fn for_each_head(
    pass: &AttentionPass<'_>,
    shape: AttentionShape,
    mut work: impl FnMut(&Segment, &Segment, usize),
) {
    for (queries, keys) in pass.sequences.queries.iter().zip(pass.sequences.keys) {
        (0..shape.heads).for_each(|head| work(queries, keys, head));
    }
}

fn rows_of(segment: &Segment) -> std::ops::Range<usize> {
    segment.start..segment.start + segment.length
}

fn scores(query: &[f64], keys: &[Row], column: usize) -> Row {
    let scale = 1.0 / (query.len() as f64).sqrt();
    let score = |key: &Row| -> f64 {
        let key = &key[column..column + query.len()];
        query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * scale
    };
    keys.iter().map(score).collect()
}

fn factor(pass: &AttentionPass<'_>, (head, i, j): (usize, usize, usize), queries: usize) -> f64 {
    match pass.dropout {
        Some(mask) if mask.keep.keeps(head * queries + i, j) => f64::from(mask.scale),
        Some(_) => 0.0,
        None => 1.0,
    }
}

fn write(out: Output<'_>, column: usize, rows: &[Row], segments: &[Segment]) {
    fn each<T>(
        mut out: RowsMut<'_, T>,
        column: usize,
        rows: &[Row],
        segments: &[Segment],
        narrow: impl Fn(f64) -> T,
    ) {
        for i in segments.iter().flat_map(rows_of) {
            for (j, x) in rows[i].iter().enumerate() {
                out.row_mut(i)[column + j] = narrow(*x);
            }
        }
    }
    match out {
        Output::F32(out) => each(out, column, rows, segments, |x| x as f32),
        Output::Bf16(out) => each(out, column, rows, segments, |x| bf16::from_f32(x as f32)),
    }
}
