//! Backward passes again, naively and in f64: the specification, and the oracle of all tests.
//!
//! Nothing here is fast, and nothing is shared with what it specifies. The tests below hold each
//! formula to finite differences of the forward pass.

use std::ops::Range;

use super::dropout::DropoutMask;
use super::layer_norm::NormParameters;
use crate::activation::Activation;
use crate::attention::{AttentionShape, Segment, Sequences};
use crate::embedding::Token;
use crate::reference::{Row, activation, softmax};

/// `g'(x)`; at the kink of ReLU and LeakyReLU the left derivative.
pub fn derivative(function: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match function {
        Activation::Gelu => {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) + x * density
        }
        Activation::GeluTanh => {
            let scale = (2.0 / std::f64::consts::PI).sqrt();
            let tanh = (scale * (x + 0.044_715 * x.powi(3))).tanh();
            let slope = scale * (1.0 + 3.0 * 0.044_715 * x * x);
            0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope
        }
        Activation::QuickGelu => {
            let s = sigmoid(1.702 * x);
            s + 1.702 * x * s * (1.0 - s)
        }
        Activation::Relu => f64::from(x > 0.0),
        Activation::LeakyRelu => {
            if x > 0.0 {
                1.0
            } else {
                0.01
            }
        }
        Activation::Swish => {
            let s = sigmoid(x);
            s + x * s * (1.0 - s)
        }
        Activation::Mish => {
            let tanh = (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh();
            tanh + x * (1.0 - tanh * tanh) * sigmoid(x)
        }
        Activation::Tanh => 1.0 - x.tanh() * x.tanh(),
        Activation::Sigmoid => sigmoid(x) * sigmoid(-x),
        Activation::Identity => 1.0,
    }
}

/// `g(z)` of every element.
pub fn activation_forward(function: Activation, z: &[Row]) -> Vec<Row> {
    let row = |row: &Row| row.iter().map(|z| activation(function, *z)).collect();
    z.iter().map(row).collect()
}

/// `dy ⊙ g'(z)`
pub fn activation_backward(function: Activation, z: &[Row], dy: &[Row]) -> Vec<Row> {
    let row = |(z, dy): (&Row, &Row)| {
        let pairs = z.iter().zip(dy);
        pairs.map(|(z, dy)| dy * derivative(function, *z)).collect()
    };
    z.iter().zip(dy).map(row).collect()
}

/// 0 for a dropped element, the scale for a kept one, 1 without a mask.
pub fn kept(mask: Option<DropoutMask<'_>>, row: usize, column: usize) -> f64 {
    match mask {
        Some(mask) if mask.keep.keeps(row, column) => f64::from(mask.scale),
        Some(_) => 0.0,
        None => 1.0,
    }
}

/// The elements times what [`kept`] says of them.
pub fn dropout(x: &[Row], mask: Option<DropoutMask<'_>>) -> Vec<Row> {
    let row = |(i, row): (usize, &Row)| {
        let elements = row.iter().enumerate();
        elements.map(|(j, x)| x * kept(mask, i, j)).collect()
    };
    x.iter().enumerate().map(row).collect()
}

/// Mean and `1 / √(variance + ε)` of a row.
pub fn norm_statistics(row: &[f64], eps: f32) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean, 1.0 / (variance + f64::from(eps)).sqrt())
}

/// `(s - μ) ρ w + b` of each row.
pub fn layer_norm_forward(s: &[Row], parameters: NormParameters<'_>) -> Vec<Row> {
    let normalise = |row: &Row| {
        let (mean, inverse) = norm_statistics(row, parameters.eps);
        let weights = parameters.weight.iter().zip(parameters.bias);
        let elements = row.iter().zip(weights);
        elements
            .map(|(x, (w, b))| (x - mean) * inverse * f64::from(*w) + f64::from(*b))
            .collect()
    };
    s.iter().map(normalise).collect()
}

/// Gradients of a layer norm.
#[derive(Debug, Clone, PartialEq)]
pub struct NormGradients {
    /// `ds = ρ (g - mean(g) - x̂ mean(g x̂))` with `g = dy w`
    pub sum: Vec<Row>,
    /// `dw = Σ_t dy x̂`
    pub weight: Row,
    /// `db = Σ_t dy`
    pub bias: Row,
}

/// Backward of [`layer_norm_forward`].
pub fn layer_norm_backward(s: &[Row], dy: &[Row], parameters: NormParameters<'_>) -> NormGradients {
    let columns = parameters.weight.len();
    let mut gradients = NormGradients {
        sum: Vec::new(),
        weight: vec![0.0; columns],
        bias: vec![0.0; columns],
    };
    for (row, dy) in s.iter().zip(dy) {
        let (mean, inverse) = norm_statistics(row, parameters.eps);
        let normal: Row = row.iter().map(|x| (x - mean) * inverse).collect();
        let weights = parameters.weight.iter().map(|w| f64::from(*w));
        let g: Row = dy.iter().zip(weights).map(|(dy, w)| dy * w).collect();
        let g_mean = g.iter().sum::<f64>() / columns as f64;
        let gx_mean = g.iter().zip(&normal).map(|(g, x)| g * x).sum::<f64>() / columns as f64;
        let ds = g.iter().zip(&normal);
        let ds = ds.map(|(g, x)| inverse * (g - g_mean - x * gx_mean));
        gradients.sum.push(ds.collect());
        for (j, (dy, x)) in dy.iter().zip(&normal).enumerate() {
            gradients.weight[j] += dy * x;
            gradients.bias[j] += dy;
        }
    }
    gradients
}

/// The gradient of a table of `entries` rows: the sum of the rows of `dy` that looked each of them up.
pub fn embedding_backward(
    entries: usize,
    tokens: &[Token],
    entry: impl Fn(&Token) -> u32,
    dy: &[Row],
) -> Vec<Row> {
    let columns = dy.first().map_or(0, Vec::len);
    let mut table = vec![vec![0.0; columns]; entries];
    for (token, dy) in tokens.iter().zip(dy) {
        let row = table[entry(token) as usize].iter_mut();
        row.zip(dy).for_each(|(sum, dy)| *sum += dy);
    }
    table
}

/// Attention in training, as [`attention_forward`](super::attention::attention_forward) has it.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Heads and their size.
    pub shape: AttentionShape,
    /// `Q`, `K` and `V`.
    pub projections: [&'a [Row]; 3],
    /// Which rows attend to which.
    pub sequences: Sequences<'a>,
    /// Row `h M + i`, column `j`: head `h`, query row `i`, the `j`-th key of its sequence.
    pub dropout: Option<DropoutMask<'a>>,
}

/// `dQ`, `dK` and `dV`.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionGradients {
    /// `dS K / √k`
    pub queries: Vec<Row>,
    /// `dSᵀ Q / √k`
    pub keys: Vec<Row>,
    /// `P̃ᵀ dO`
    pub values: Vec<Row>,
}

/// A query row in one head: its probabilities and the multipliers of its mask.
struct QueryRow {
    index: usize,
    columns: Range<usize>,
    keys: Range<usize>,
    probabilities: Row,
    mask: Row,
}

impl Attention<'_> {
    /// `softmax(Q Kᵀ / √k)` masked, times `V`. Rows of `Q` in no segment give rows of zeros.
    pub fn forward(&self) -> Vec<Row> {
        let [queries, _, values] = self.projections;
        let mut out = vec![vec![0.0; self.shape.heads * self.shape.head_size]; queries.len()];
        self.for_each_row(|row| {
            for (j, key) in row.keys.clone().enumerate() {
                for c in row.columns.clone() {
                    out[row.index][c] += row.probabilities[j] * row.mask[j] * values[key][c];
                }
            }
        });
        out
    }

    /// Of `gradient = ∂L/∂O`: with `P` the probabilities, `M` the mask and `P̃ = P ⊙ M`:
    /// `dP = (dO Vᵀ) ⊙ M`, `dS = P ⊙ (dP - Σⱼ P dP)`, and as the fields of the result say.
    pub fn backward(&self, gradient: &[Row]) -> AttentionGradients {
        let [queries, keys, values] = self.projections;
        let zeros = |rows: &[Row]| vec![vec![0.0; rows[0].len()]; rows.len()];
        let mut out = AttentionGradients {
            queries: zeros(queries),
            keys: zeros(keys),
            values: zeros(values),
        };
        let scale = 1.0 / (self.shape.head_size as f64).sqrt();
        self.for_each_row(|row| {
            let p = &row.probabilities;
            let gradient = &gradient[row.index];
            let dp = |(j, key): (usize, usize)| {
                let products = row.columns.clone().map(|c| gradient[c] * values[key][c]);
                products.sum::<f64>() * row.mask[j]
            };
            let dp: Row = row.keys.clone().enumerate().map(dp).collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for (j, key) in row.keys.clone().enumerate() {
                let ds = p[j] * (dp[j] - mean) * scale;
                for c in row.columns.clone() {
                    out.queries[row.index][c] += ds * keys[key][c];
                    out.keys[key][c] += ds * queries[row.index][c];
                    out.values[key][c] += p[j] * row.mask[j] * gradient[c];
                }
            }
        });
        out
    }

    fn for_each_row(&self, mut work: impl FnMut(QueryRow)) {
        let [queries, keys, _] = self.projections;
        let size = self.shape.head_size;
        let rows = |segment: &Segment| segment.start..segment.start + segment.length;
        for (of_queries, of_keys) in self.sequences.queries.iter().zip(self.sequences.keys) {
            for head in 0..self.shape.heads {
                for index in rows(of_queries) {
                    let columns = head * size..(head + 1) * size;
                    let score = |key: usize| {
                        let products = columns.clone().map(|c| queries[index][c] * keys[key][c]);
                        products.sum::<f64>() / (size as f64).sqrt()
                    };
                    let scores: Row = rows(of_keys).map(score).collect();
                    let mask_row = head * queries.len() + index;
                    let mask = (0..of_keys.length).map(|j| kept(self.dropout, mask_row, j));
                    work(QueryRow {
                        index,
                        columns: columns.clone(),
                        keys: rows(of_keys),
                        probabilities: softmax(&scores),
                        mask: mask.collect(),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
