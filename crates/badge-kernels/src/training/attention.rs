//! Attention in training: dropout of the probabilities, and the backward pass.
//!
//! Probabilities are not kept: backward computes them again from queries, keys and two numbers a row.

use super::Factor;
use super::dropout::DropoutMask;
use crate::attention::{
    AttentionInput, AttentionScratch, AttentionShape, Request, Sequences, check_disjoint, compute,
    share,
};
use crate::gemm::Output;
use crate::matrix::Matrix;
use crate::threads::Pool;

mod backward;

pub use backward::BackwardScratch;
use backward::{Job, Target};

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

    /// The largest scores and the inverse sums of a head.
    fn of_head(&self, head: usize) -> [&[f32]; 2] {
        [self.rows.row(2 * head), self.rows.row(2 * head + 1)]
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

/// `out = dropout(softmax(Q Kᵀ / √k)) V`, head by head, keeping what backward needs.
///
/// # Accuracy
/// That of [`attention`](crate::attention::attention), whose bits these are without dropout.
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
    let heads = statistics.shape.heads;
    assert_eq!(
        scratch.shape(),
        statistics.shape,
        "scratch of another shape"
    );
    let request = Request {
        input: pass.input,
        sequences: pass.sequences,
        dropout: pass.dropout,
        statistics: Some(statistics.rows.rows_mut(2 * heads).share()),
    };
    compute(pool, &request, scratch, output);
}

/// Backward of [`attention_forward`]. With `P` the probabilities, `M` the mask (0 or its scale) and
/// `P̃ = P ⊙ M`:
/// `dV = P̃ᵀ dO`, `dP = (dO Vᵀ) ⊙ M`, `dS = P ⊙ (dP - Σⱼ P dP)`, `dQ = dS K / √k`, `dK = dSᵀ Q / √k`.
///
/// Rows outside the segments are not written. Sums over queries are taken of 64 at a time, then over
/// these sums, both in order: neighbours and the number of threads change no bit.
///
/// # Accuracy
/// f32: `P`, `dP` and each product are within a few roundings of their largest terms; scores round as
/// in forward. bf16: the factors `P̃` and `dS` carry a relative error of `2⁻⁹`, all else is f32.
///
/// # Panics
/// When shapes or types disagree, segments overlap, or scratch, mask or statistics are too small.
pub fn attention_backward(
    pool: &Pool,
    input: &AttentionGradient<'_>,
    scratch: &BackwardScratch,
    mut out: ProjectionGradients<'_>,
) {
    let shape = scratch.shape();
    assert_eq!(shape, input.statistics.shape, "scratch of another shape");
    let job = Job {
        input,
        scratch,
        out: out.share(shape, input.pass.sequences),
        isa: pool.isa(),
    };
    match (&input.pass.input, input.gradient) {
        (AttentionInput::F32(projections), Factor::F32(gradient)) => {
            job.run(pool, projections, gradient);
        }
        (AttentionInput::Bf16(projections), Factor::Bf16(gradient)) => {
            let size = shape.head_size;
            assert!(size.is_multiple_of(2), "bf16 wants an even head size");
            job.run(pool, projections, gradient);
        }
        _ => panic!("the gradient of attention has another type than its projections"),
    }
}

impl ProjectionGradients<'_> {
    /// Where each of the three goes.
    fn share(&mut self, shape: AttentionShape, sequences: Sequences<'_>) -> [Target; 3] {
        let width = shape.heads * shape.head_size;
        let targets = match self {
            Self::Joined(output) => {
                let (count, columns, rows) = share(output);
                assert_eq!(columns, 3 * width, "columns of the joined gradients");
                [0, 1, 2].map(|index| Target {
                    rows,
                    count,
                    column: index * width,
                })
            }
            Self::Apart {
                queries,
                keys,
                values,
            } => [queries, keys, values].map(|output| {
                let (count, columns, rows) = share(output);
                assert_eq!(columns, width, "columns of the gradient of a projection");
                Target {
                    rows,
                    count,
                    column: 0,
                }
            }),
        };
        let segments = [sequences.queries, sequences.keys, sequences.keys];
        for (target, segments) in targets.iter().zip(segments) {
            check_disjoint(segments, target.count);
        }
        targets
    }
}
