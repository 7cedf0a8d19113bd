//! Every operation again, naively and in f64: the specification, and the oracle of all tests.
//!
//! Nothing here is fast, and nothing is shared with what it specifies. Integers are exact, so
//! [`quantise`] and [`quantise_weights`] are specified in f32, to the bit.

use crate::activation::Activation;
use crate::attention::{AttentionShape, Segment, Sequences};
use crate::embedding::{EmbeddingTables, Token};
use crate::gemm::Epilogue;
use crate::layer_norm::LayerNorm;
use crate::matrix::Rows;
use crate::quantise::QuantisedRows;
use crate::training::adamw::AdamWStep;

/// A row of numbers.
pub type Row = Vec<f64>;

/// The rows as f64.
pub fn wide<T: Copy + Into<f64>>(rows: Rows<'_, T>) -> Vec<Row> {
    (0..rows.count())
        .map(|i| rows.row(i).iter().map(|x| (*x).into()).collect())
        .collect()
}

/// `values`, which holds rows of `columns` numbers one after the other, as f64.
pub fn wide_slice(values: &[f32], columns: usize) -> Vec<Row> {
    values
        .chunks_exact(columns)
        .map(|row| row.iter().copied().map(f64::from).collect())
        .collect()
}

/// `Y = g(X Wᵀ + b) + R` with `X: [M, K]` and `W: [N, K]`. Where a product runs in lower precision,
/// its exact result is this function of the rounded or [dequantised](dequantise) factors.
pub fn gemm(x: &[Row], weights: &[Row], epilogue: &Epilogue<'_>) -> Vec<Row> {
    let output = |i: usize, j: usize| {
        let bias = epilogue.bias.map_or(0.0, |b| f64::from(b[j]));
        let residual = epilogue.residual.map_or(0.0, |r| f64::from(r.row(i)[j]));
        activation(epilogue.activation, dot(&x[i], &weights[j]) + bias) + residual
    };
    (0..x.len())
        .map(|i| (0..weights.len()).map(|j| output(i, j)).collect())
        .collect()
}

/// The integer sums of an int8 product: `Σ (q - zero point) w` over the inputs, for each row of
/// `x: [M, K]` and of `weights: [N, K]`.
pub fn gemm_int8(x: QuantisedRows<'_>, weights: &[Vec<i8>]) -> Vec<Vec<i32>> {
    let sum = |i: usize, weights: &[i8]| {
        let pairs = x.values.row(i).iter().zip(weights);
        pairs
            .map(|(q, w)| (i32::from(*q) - x.zero_points[i]) * i32::from(*w))
            .sum()
    };
    (0..x.values.count())
        .map(|i| weights.iter().map(|w| sum(i, w)).collect())
        .collect()
}

/// `softmax(Q Kᵀ / √k) V` for each pair of segments and each head. Rows of `Q: [M, H k]` in no
/// segment give rows of zeros.
pub fn attention(
    shape: AttentionShape,
    [queries, keys, values]: [&[Row]; 3],
    sequences: Sequences<'_>,
) -> Vec<Row> {
    let mut out = vec![vec![0.0; shape.heads * shape.head_size]; queries.len()];
    for (of_queries, of_keys) in sequences.queries.iter().zip(sequences.keys) {
        for head in 0..shape.heads {
            let columns = head * shape.head_size..(head + 1) * shape.head_size;
            for i in rows_of(of_queries) {
                let score = |j: usize| dot(&queries[i][columns.clone()], &keys[j][columns.clone()]);
                let scale = 1.0 / (shape.head_size as f64).sqrt();
                let scores: Row = rows_of(of_keys).map(|j| score(j) * scale).collect();
                for (p, j) in softmax(&scores).into_iter().zip(rows_of(of_keys)) {
                    for column in columns.clone() {
                        out[i][column] += p * values[j][column];
                    }
                }
            }
        }
    }
    out
}

fn rows_of(segment: &Segment) -> std::ops::Range<usize> {
    segment.start..segment.start + segment.length
}

/// `exp(xⱼ) / Σ exp(xₖ)`, computed from differences to the largest.
pub fn softmax(x: &[f64]) -> Row {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Row = x.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

/// `(x - mean) / √(variance + ε) w + b` of each row, or of the rows that `source` names.
pub fn layer_norm(x: &[Row], source: Option<&[u32]>, norm: &LayerNorm) -> Vec<Row> {
    let all: Vec<u32> = (0..x.len() as u32).collect();
    let normalise = |x: &[f64]| {
        let count = x.len() as f64;
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance + f64::from(norm.eps())).sqrt();
        let weights = norm.weight().iter().zip(norm.bias());
        x.iter()
            .zip(weights)
            .map(|(x, (w, b))| (x - mean) / deviation * f64::from(*w) + f64::from(*b))
            .collect()
    };
    let source = source.unwrap_or(&all);
    source.iter().map(|i| normalise(&x[*i as usize])).collect()
}

/// `word + segment + position` for each token.
pub fn embedding_sum(tables: &EmbeddingTables<'_>, tokens: &[Token]) -> Vec<Row> {
    let entry = |table: Rows<'_, f32>, i: u32, column| f64::from(table.row(i as usize)[column]);
    let sum = |token: &Token, column: usize| {
        entry(tables.words, token.word, column)
            + entry(tables.token_types, token.token_type, column)
            + entry(tables.positions, token.position, column)
    };
    let columns = tables.words.columns();
    tokens
        .iter()
        .map(|token| (0..columns).map(|column| sum(token, column)).collect())
        .collect()
}

/// Bytes, scale and zero point of one row of finite numbers, to the bit.
///
/// With `low = min(0, min x)` and `high = max(0, max x)`: `scale = (high - low) / 255`, or 1 where
/// that is below the smallest normal number; `zero point = round(-low / scale)`;
/// `q = round(x / scale) + zero point`, cut to `0..=255`. Divisions by `scale` are products with
/// `1 / scale`, and [`f32::round_ties_even`] rounds.
pub fn quantise(x: &[f32]) -> (Vec<u8>, f32, i32) {
    let low = x.iter().copied().fold(0.0, f32::min);
    let high = x.iter().copied().fold(0.0, f32::max);
    let scale = match (high - low) / 255.0 {
        scale if scale >= f32::MIN_POSITIVE => scale,
        _ => 1.0,
    };
    let inverse = 1.0 / scale;
    let zero_point = (-low * inverse).round_ties_even();
    let byte = |x: &f32| ((x * inverse).round_ties_even() + zero_point).clamp(0.0, 255.0) as u8;
    (x.iter().map(byte).collect(), scale, zero_point as i32)
}

/// Values and scale of weights that share one, a run of 64 inputs of one output, to the bit:
/// `scale = max |w| / 127` (1 where all are zero), `value = round(w / scale)`, ties to even.
pub fn quantise_weights(weights: &[f32]) -> (Vec<i8>, f32) {
    let largest = weights.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
    let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let value = |w: &f32| (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
    (weights.iter().map(value).collect(), scale)
}

/// `scale (q - zero point)`: the numbers that quantised rows stand for.
pub fn dequantise(x: QuantisedRows<'_>) -> Vec<Row> {
    let number =
        |i: usize, q: u8| f64::from(x.scales[i]) * (f64::from(q) - f64::from(x.zero_points[i]));
    (0..x.values.count())
        .map(|i| x.values.row(i).iter().map(|q| number(i, *q)).collect())
        .collect()
}

/// An activation function.
pub fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        // The complement, for `1 + erf` of a very negative number loses all digits.
        Activation::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh => {
            let scale = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (scale * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu => x.max(0.01 * x),
        Activation::Swish => x * sigmoid(x),
        // `ln(1 + eˣ)` without overflow.
        Activation::Mish => x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh(),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Identity => x,
    }
}

/// `dYᵀ X` with `dY: [T, N]` and `X: [T, K]`: the gradient of weights.
pub fn weight_gradient(dy: &[Row], x: &[Row], inputs: usize) -> Vec<Row> {
    let outputs = dy.first().map_or(0, Vec::len);
    let sum = |n: usize, k: usize| dy.iter().zip(x).map(|(dy, x)| dy[n] * x[k]).sum();
    (0..outputs)
        .map(|n| (0..inputs).map(|k| sum(n, k)).collect())
        .collect()
}

/// `Σ_t dY[t]`: the gradient of a bias.
pub fn bias_gradient(dy: &[Row], outputs: usize) -> Row {
    (0..outputs)
        .map(|n| dy.iter().map(|row| row[n]).sum())
        .collect()
}

/// Parameter, mean and square after one step of AdamW.
pub fn adamw(step: &AdamWStep, [p, g, m, v]: [f64; 4]) -> [f64; 3] {
    let wide = f64::from;
    let g = wide(step.clip) * g;
    let m = wide(step.beta1) * m + wide(step.fresh1) * g;
    let v = wide(step.beta2) * v + wide(step.fresh2) * g * g;
    let root = v.sqrt() / wide(step.square_correction) + wide(step.eps);
    [wide(step.keep) * p - wide(step.rate) * m / root, m, v]
}

/// `Σ xᵢ²`.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "factors of a dot product");
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the other tests take on trust, against numbers worked out by hand.
    #[test]
    fn small_cases_come_out_as_by_hand() {
        let x = [vec![1.0, 2.0], vec![0.0, -1.0]];
        let weights = [vec![3.0, 4.0], vec![1.0, -1.0], vec![0.0, 2.0]];
        let product = gemm(&x, &weights, &Epilogue::NONE);
        assert_eq!(product, [[11.0, -1.0, 4.0], [-4.0, 1.0, -2.0]]);

        let thirds = softmax(&[0.0, 2.0_f64.ln()]);
        assert!((thirds[0] - 1.0 / 3.0).abs() < 1e-15);

        let norm = LayerNorm::new(vec![2.0, 1.0], vec![0.0, 10.0], 0.0);
        assert_eq!(layer_norm(&x, Some(&[1]), &norm), [[2.0, 9.0]]);
    }

    #[test]
    fn quantised_rows_contain_zero_and_their_extremes() {
        assert_eq!(quantise(&[0.0, 0.5, 2.55]), (vec![0, 50, 255], 0.01, 0));
        assert_eq!(quantise(&[-2.55, -0.5]), (vec![0, 205], 0.01, 255));
        assert_eq!(quantise(&[0.0, 0.0]), (vec![0, 0], 1.0, 0));
        assert_eq!(
            quantise_weights(&[1.0, -2.0]),
            (vec![64, -127], 2.0 / 127.0)
        );
    }

    #[test]
    fn attention_of_one_key_is_its_value() {
        let shape = AttentionShape {
            heads: 1,
            head_size: 2,
        };
        let segment = |start, length| Segment { start, length };
        let sequences = Sequences {
            queries: &[segment(1, 1)],
            keys: &[segment(0, 1)],
        };
        let (q, v) = (vec![vec![0.3, 0.4]; 2], vec![vec![5.0, 6.0]; 1]);
        let out = attention(shape, [&q, &q, &v], sequences);
        assert_eq!(out, [[0.0, 0.0], [5.0, 6.0]]);
    }

    #[test]
    fn activations_take_known_values() {
        let close = |a, x: f64, y: f64| assert!((activation(a, x) - y).abs() < 1e-9, "{a:?}({x})");
        close(Activation::Gelu, 1.0, 0.841_344_746_068_543);
        close(Activation::GeluTanh, 1.0, 0.841_191_990_608_3);
        close(Activation::QuickGelu, 1.0, 0.845_795_765_893_4);
        close(Activation::Relu, -1.0, 0.0);
        close(Activation::LeakyRelu, -1.0, -0.01);
        close(Activation::Swish, 1.0, 0.731_058_578_630_005);
        close(Activation::Mish, 1.0, 0.865_098_388_267_3);
        close(Activation::Tanh, 1.0, 0.761_594_155_955_765);
        close(Activation::Sigmoid, 0.0, 0.5);
        close(Activation::Identity, -3.0, -3.0);
    }
}
