//! Every backward formula against central differences of its forward pass.

use super::*;
use crate::training::dropout::{KeepBits, keep_bits};

/// Half the distance of two evaluations: its square times a third derivative, and the rounding of the
/// loss over it, are both about 1e-10.
const STEP: f64 = 1e-5;
const BOUND: f64 = 1e-8;

/// Numbers in -1..1 without order.
fn rows(count: usize, columns: usize, seed: usize) -> Vec<Row> {
    let number = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f64 / 1001.5 - 1.0;
    (0..count)
        .map(|i| (0..columns).map(|j| number(i * columns + j)).collect())
        .collect()
}

/// A loss whose gradient by the output is `weights`.
fn loss(output: &[Row], weights: &[Row]) -> f64 {
    let pairs = output.iter().flatten().zip(weights.iter().flatten());
    pairs.map(|(y, w)| y * w).sum()
}

/// Asserts that `gradient` is that of `loss` at `x`.
fn assert_gradient(what: &str, x: &[Row], gradient: &[Row], loss: impl Fn(&[Row]) -> f64) {
    let mut x = x.to_vec();
    assert_eq!(x.len(), gradient.len(), "{what}");
    for (i, gradient) in gradient.iter().enumerate() {
        for (j, gradient) in gradient.iter().enumerate() {
            let before = x[i][j];
            x[i][j] = before + STEP;
            let above = loss(&x);
            x[i][j] = before - STEP;
            let difference = (above - loss(&x)) / (2.0 * STEP);
            x[i][j] = before;
            assert!(
                (difference - gradient).abs() < BOUND,
                "{what} [{i}, {j}]: {gradient}, by differences {difference}"
            );
        }
    }
}

/// Bits that keep about two elements of three.
fn mask(rows: usize, columns: usize) -> KeepBits {
    let mut keep = KeepBits::new(rows, columns);
    let pool = crate::threads::Pool::new(crate::isa::Isa::Scalar, 1);
    keep.fill(&pool, &|row, words| {
        let random = |j: usize| ((row * columns + j) * 40_503 % 65_536) as u16;
        let random: Vec<u16> = (0..columns).map(random).collect();
        keep_bits(&random, 21_845, words);
    });
    keep
}

#[test]
fn derivatives_are_slopes_of_their_activations() {
    // No point of the grid is 0, where two of them have a kink.
    let z = [(-160..160).map(|i| f64::from(i) * 0.05 + 0.01).collect()];
    let ones = [vec![1.0; 320]];
    for function in Activation::ALL {
        let gradient = activation_backward(function, &z, &ones);
        assert_gradient(&format!("{function:?}"), &z, &gradient, |z| {
            loss(&activation_forward(function, z), &ones)
        });
    }
    assert_eq!(derivative(Activation::Relu, 0.0), 0.0);
    assert_eq!(derivative(Activation::LeakyRelu, 0.0), 0.01);
}

#[test]
fn dropout_is_its_own_backward() {
    let keep = mask(3, 70);
    let mask = Some(DropoutMask {
        keep: &keep,
        scale: 1.5,
    });
    let (x, dy) = (rows(3, 70, 1), rows(3, 70, 2));
    let gradient = dropout(&dy, mask);
    assert_gradient("dropout", &x, &gradient, |x| loss(&dropout(x, mask), &dy));
    let zeros = gradient.iter().flatten().filter(|g| **g == 0.0).count();
    assert!((40..100).contains(&zeros), "{zeros} of 210 dropped");
}

#[test]
fn the_gradients_of_a_layer_norm_are_those_of_differences() {
    let (s, dy) = (rows(4, 9, 3), rows(4, 9, 4));
    let numbers = |seed| -> Vec<f32> { rows(1, 9, seed)[0].iter().map(|x| *x as f32).collect() };
    let (weight, bias) = (numbers(5), numbers(6));
    let parameters = NormParameters {
        weight: &weight,
        bias: &bias,
        eps: 1e-3,
    };
    let gradients = layer_norm_backward(&s, &dy, parameters);
    assert_gradient("ds", &s, &gradients.sum, |s| {
        loss(&layer_norm_forward(s, parameters), &dy)
    });
    // Weights and bias are f32: they enter linearly, so they may be moved far.
    let moved = |of_weight: bool, j: usize| {
        let (mut weight, mut bias) = (weight.clone(), bias.clone());
        let moved = if of_weight { &mut weight } else { &mut bias };
        moved[j] += 1.0;
        let distance = f64::from(moved[j])
            - f64::from(if of_weight {
                numbers(5)[j]
            } else {
                numbers(6)[j]
            });
        let parameters = NormParameters {
            weight: &weight,
            bias: &bias,
            ..parameters
        };
        (loss(&layer_norm_forward(&s, parameters), &dy), distance)
    };
    let before = loss(&layer_norm_forward(&s, parameters), &dy);
    for j in 0..9 {
        for (of_weight, gradient) in [(true, gradients.weight[j]), (false, gradients.bias[j])] {
            let (after, distance) = moved(of_weight, j);
            let slope = (after - before) / distance;
            assert!((slope - gradient).abs() < BOUND, "{of_weight} [{j}]");
        }
    }
}

#[test]
fn an_entry_gathers_the_gradients_of_its_tokens() {
    let token = |word| Token {
        word,
        ..Token::default()
    };
    let tokens = [token(2), token(0), token(2)];
    let table = embedding_backward(
        3,
        &tokens,
        |t| t.word,
        &[vec![1.0], vec![10.0], vec![100.0]],
    );
    assert_eq!(table, [[10.0], [0.0], [101.0]]);
}

#[test]
fn the_gradients_of_attention_are_those_of_differences_with_and_without_dropout() {
    let shape = AttentionShape {
        heads: 2,
        head_size: 3,
    };
    let segment = |start, length| Segment { start, length };
    // Of the first sequence one row asks, of the others all; row 3 of the queries is nobody's.
    let sequences = Sequences {
        queries: &[segment(0, 1), segment(1, 2), segment(4, 4)],
        keys: &[segment(0, 3), segment(3, 2), segment(5, 4)],
    };
    let (q, k, v) = (rows(8, 6, 7), rows(9, 6, 8), rows(9, 6, 9));
    let dy = rows(8, 6, 10);
    let keep = mask(16, 4);
    let dropped = DropoutMask {
        keep: &keep,
        scale: 1.5,
    };
    for dropout in [None, Some(dropped)] {
        let of = |projections: [&[Row]; 3]| {
            let attention = Attention {
                shape,
                projections,
                sequences,
                dropout,
            };
            loss(&attention.forward(), &dy)
        };
        let attention = Attention {
            shape,
            projections: [&q, &k, &v],
            sequences,
            dropout,
        };
        let gradients = attention.backward(&dy);
        let what = |name| format!("{name}, dropout: {}", dropout.is_some());
        assert_gradient(&what("dQ"), &q, &gradients.queries, |q| of([q, &k, &v]));
        assert_gradient(&what("dK"), &k, &gradients.keys, |k| of([&q, k, &v]));
        assert_gradient(&what("dV"), &v, &gradients.values, |v| of([&q, &k, v]));
    }
}
