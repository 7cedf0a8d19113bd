//! The products of a linear layer `Y = X Wᵀ + b` in training: `Y` and `dX = dY W` through
//! [`gemm`](crate::gemm::gemm) with weights that are packed again after every step, and the gradient
//! `dW = dYᵀ X`, which needs no packed weights.

use crate::gemm::{PackedMatrix, Precision};
use crate::matrix::SharedSlice;
use crate::threads::{Pool, Task};

use super::Factor;

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
        let zeros = vec![0.0; outputs * inputs];
        Self {
            forward: PackedMatrix::pack(&zeros, outputs, inputs, precision),
            backward: PackedMatrix::pack(&zeros, inputs, outputs, precision),
        }
    }

    /// Packs `weights: [outputs, inputs]`, row after row.
    ///
    /// # Panics
    /// When there are not `outputs * inputs` of them.
    pub fn pack(&mut self, pool: &Pool, weights: &[f32]) {
        let _ = pool;
        let (n, k) = (self.forward.outputs(), self.forward.inputs());
        let precision = self.forward.precision();
        self.forward = PackedMatrix::pack(weights, n, k, precision);
        let transposed: Vec<f32> = (0..n * k).map(|i| weights[i % n * k + i / n]).collect();
        self.backward = PackedMatrix::pack(&transposed, k, n, precision);
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

/// Working memory of [`weight_gradient`], for any shapes.
#[derive(Debug)]
pub struct GradientScratch {
    threads: usize,
}

impl GradientScratch {
    /// Working memory for calls on this pool.
    pub fn new(pool: &Pool) -> Self {
        Self {
            threads: pool.threads(),
        }
    }
}

/// `G ← G + dYᵀ X`, the gradient of the weights of `Y = X Wᵀ`.
///
/// # Shapes
/// `dY: [T, N]`, `X: [T, K]`, `gradient: [N, K]` row after row.
///
/// # Panics
/// When shapes or precisions disagree, or `scratch` is of a pool of fewer threads.
pub fn weight_gradient(
    pool: &Pool,
    dy: Factor<'_>,
    x: Factor<'_>,
    scratch: &mut GradientScratch,
    gradient: &mut [f32],
) {
    let (n, k) = (dy.columns(), x.columns());
    assert_eq!(dy.count(), x.count(), "rows of both factors");
    assert_eq!(gradient.len(), n * k, "gradient of {n} x {k}");
    assert!(
        scratch.threads >= pool.threads(),
        "scratch of a smaller pool"
    );
    let gradient = SharedSlice::new(gradient);
    pool.run(n, &|Task { index, .. }| {
        // SAFETY: each row is one task.
        let row = unsafe { gradient.part(index * k..(index + 1) * k) };
        match (dy, x) {
            (Factor::F32(dy), Factor::F32(x)) => {
                for token in 0..x.count() {
                    let factor = dy.row(token)[index];
                    let terms = x.row(token).iter().map(|x| x * factor);
                    row.iter_mut()
                        .zip(terms)
                        .for_each(|(sum, term)| *sum += term);
                }
            }
            (Factor::Bf16(dy), Factor::Bf16(x)) => {
                for token in 0..x.count() {
                    let factor = dy.row(token)[index].to_f32();
                    let terms = x.row(token).iter().map(|x| x.to_f32() * factor);
                    row.iter_mut()
                        .zip(terms)
                        .for_each(|(sum, term)| *sum += term);
                }
            }
            _ => panic!("both factors in one precision"),
        }
    });
}
