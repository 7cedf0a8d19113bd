//! Layer norm in training, with the dropout and the residual sum before it.

use half::bf16;

use super::dropout::DropoutMask;
use crate::gemm::Output;
use crate::matrix::{Rows, RowsMut};
use crate::threads::Pool;

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
    /// `s`, which backward reads. Needless where it is `x` itself.
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
/// That of [`layer_norm`](crate::layer_norm::layer_norm), from the rounded `s`.
///
/// # Panics
/// When shapes disagree.
pub fn layer_norm_forward(
    pool: &Pool,
    input: NormInput<'_>,
    parameters: NormParameters<'_>,
    out: NormForward<'_>,
) {
    let _ = pool;
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
    let columns = x.columns();
    assert_eq!(parameters.weight.len(), columns, "columns of a layer norm");
    assert_eq!(
        (normalised.count(), normalised.columns()),
        (x.count(), columns)
    );
    for i in 0..x.count() {
        let mut row = x.row(i).to_vec();
        if let Some(mask) = dropout {
            for (j, x) in row.iter_mut().enumerate() {
                *x = if mask.keep.keeps(i, j) {
                    *x * mask.scale
                } else {
                    0.0
                };
            }
        }
        if let Some(residual) = residual {
            row.iter_mut()
                .zip(residual.row(i))
                .for_each(|(x, r)| *x += r);
        }
        if let Some(sum) = &mut sum {
            sum.row_mut(i).copy_from_slice(&row);
        }
        let mean = row.iter().sum::<f32>() / columns as f32;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / columns as f32;
        let inverse = 1.0 / (variance + parameters.eps).sqrt();
        statistics.means[i] = mean;
        statistics.inverse_deviations[i] = inverse;
        for (j, y) in normalised.row_mut(i).iter_mut().enumerate() {
            *y = (row[j] - mean) * inverse * parameters.weight[j] + parameters.bias[j];
        }
        if let Some(narrow) = &mut narrow {
            for (narrow, y) in narrow.row_mut(i).iter_mut().zip(normalised.row_mut(i)) {
                *narrow = bf16::from_f32(*y);
            }
        }
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

/// Memory for partial sums of the gradients of weight and bias.
#[derive(Debug)]
pub struct NormScratch {
    partial: Vec<f32>,
}

impl NormScratch {
    /// Room for `rows` rows of `columns` elements.
    pub fn new(rows: usize, columns: usize) -> Self {
        let _ = (rows, columns);
        Self {
            partial: Vec::new(),
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
/// # Panics
/// When shapes disagree or the scratch is too small.
pub fn layer_norm_backward(
    pool: &Pool,
    input: NormGradient<'_>,
    scratch: &mut NormScratch,
    out: NormBackward<'_>,
) {
    let _ = (pool, scratch);
    let NormBackward {
        mut sum,
        branch,
        weight,
        bias,
    } = out;
    let columns = input.weight.len();
    let count = input.sum.count();
    for i in 0..count {
        let (x, dy) = (input.sum.row(i), input.gradient.row(i));
        let (mean, inverse) = (
            input.statistics.means[i],
            input.statistics.inverse_deviations[i],
        );
        let normal: Vec<f32> = x.iter().map(|x| (x - mean) * inverse).collect();
        let g: Vec<f32> = dy.iter().zip(input.weight).map(|(a, b)| a * b).collect();
        let g_mean = g.iter().sum::<f32>() / columns as f32;
        let gx_mean = g.iter().zip(&normal).map(|(g, n)| g * n).sum::<f32>() / columns as f32;
        for (j, ds) in sum.row_mut(i).iter_mut().enumerate() {
            *ds = inverse * (g[j] - g_mean - normal[j] * gx_mean);
            weight[j] += dy[j] * normal[j];
            bias[j] += dy[j];
        }
    }
    let Some(NormBranch { dropout, out }) = branch else {
        return;
    };
    let value = |i: usize, j: usize, ds: f32| match dropout {
        Some(mask) if mask.keep.keeps(i, j) => ds * mask.scale,
        Some(_) => 0.0,
        None => ds,
    };
    match out {
        Output::F32(mut out) => {
            for i in 0..count {
                for (j, ds) in sum.row_mut(i).iter().enumerate() {
                    out.row_mut(i)[j] = value(i, j, *ds);
                }
            }
        }
        Output::Bf16(mut out) => {
            for i in 0..count {
                for (j, ds) in sum.row_mut(i).iter().enumerate() {
                    out.row_mut(i)[j] = bf16::from_f32(value(i, j, *ds));
                }
            }
        }
    }
}
