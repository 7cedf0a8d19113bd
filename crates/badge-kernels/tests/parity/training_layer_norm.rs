//! Layer norm in training, forward and backward, within its documented bounds.

use badge_kernels::bf16;
use badge_kernels::gemm::Output;
use badge_kernels::layer_norm::{LayerNorm, Narrow, NormOutput, layer_norm};
use badge_kernels::matrix::Matrix;
use badge_kernels::reference::{Row, wide};
use badge_kernels::threads::Pool;
use badge_kernels::training::dropout::DropoutMask;
use badge_kernels::training::layer_norm::{
    NormBackward, NormBranch, NormForward, NormGradient, NormInput, NormParameters, NormScratch,
    NormStatistics, layer_norm_backward, layer_norm_forward,
};
use badge_kernels::training::reference;

use crate::training_dropout::random_bits;
use crate::{Random, assert_close, assert_untouched, bits, lengths, name, pools, sentinels};

const EPS: f32 = 1e-12;

struct Weights {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Weights {
    fn random(random: &mut Random, columns: usize) -> Self {
        Self {
            weight: random.numbers(columns),
            bias: random.numbers(columns),
        }
    }

    fn parameters(&self) -> NormParameters<'_> {
        NormParameters {
            weight: &self.weight,
            bias: &self.bias,
            eps: EPS,
        }
    }
}

/// Forward of plain rows, with their sums written and statistics kept.
struct Forward {
    sum: Matrix<f32>,
    normalised: Matrix<f32>,
    narrow: Matrix<bf16>,
    statistics: NormStatistics,
}

fn forward(pool: &Pool, input: NormInput<'_>, weights: &Weights) -> Forward {
    let (rows, columns) = (input.x.count(), input.x.columns());
    let mut out = Forward {
        sum: sentinels(rows + 1, columns),
        normalised: sentinels(rows + 1, columns),
        narrow: Matrix::zeros(rows, columns),
        statistics: NormStatistics::new(rows + 1),
    };
    let into = NormForward {
        sum: Some(out.sum.rows_mut(rows)),
        normalised: out.normalised.rows_mut(rows),
        narrow: Some(out.narrow.rows_mut(rows)),
        statistics: &mut out.statistics,
    };
    layer_norm_forward(pool, input, weights.parameters(), into);
    assert_untouched(&name(pool), &out.sum, rows);
    assert_untouched(&name(pool), &out.normalised, rows);
    out
}

#[test]
fn sums_are_dropped_out_added_and_normalised_as_in_inference() {
    let mut random = Random(70);
    for pool in pools() {
        for columns in lengths() {
            let rows = 1 + random.below(20);
            let x = random.matrix(rows, columns);
            let residual = random.matrix(rows, columns);
            let keep = random_bits(&mut random, rows, columns);
            let mask = DropoutMask {
                keep: &keep,
                scale: 1.5,
            };
            let weights = Weights::random(&mut random, columns);
            let what = format!("{}, {rows} x {columns}", name(&pool));
            for (dropout, residual) in [
                (None, None),
                (None, Some(&residual)),
                (Some(mask), None),
                (Some(mask), Some(&residual)),
            ] {
                let input = NormInput {
                    x: x.rows(rows),
                    dropout,
                    residual: residual.map(|r| r.rows(rows)),
                };
                let out = forward(&pool, input, &weights);
                let dropped = reference::dropout(&wide(x.rows(rows)), dropout);
                let zeros = Matrix::zeros(rows, columns);
                let residual = wide(residual.unwrap_or(&zeros).rows(rows));
                let sum: Vec<Row> = (dropped.iter().zip(&residual))
                    .map(|(x, r)| x.iter().zip(r).map(|(x, r)| x + r).collect())
                    .collect();
                // Two roundings of numbers below 2.5.
                assert_close(&what, out.sum.rows(rows), &sum, |_, _| 4e-7);
                // From the rounded sums on, it is the layer norm of inference.
                let norm = LayerNorm::new(weights.weight.clone(), weights.bias.clone(), EPS);
                let mut expected = Matrix::zeros(rows, columns);
                let inference = NormOutput {
                    f32: expected.rows_mut(rows),
                    narrow: Narrow::None,
                };
                layer_norm(&pool, out.sum.rows(rows), None, &norm, inference);
                assert!(
                    bits(out.normalised.rows(rows)) == bits(expected.rows(rows)),
                    "{what}"
                );
                for i in 0..rows {
                    let rounded = expected.row(i).iter().map(|x| bf16::from_f32(*x));
                    assert!(rounded.eq(out.narrow.row(i).iter().copied()), "{what}");
                }
                if dropout.is_none() && input.residual.is_none() {
                    without_sums_the_rest_is_the_same(&pool, input, &weights, &out);
                }
            }
        }
    }
}

fn without_sums_the_rest_is_the_same(
    pool: &Pool,
    input: NormInput<'_>,
    weights: &Weights,
    with: &Forward,
) {
    let (rows, columns) = (input.x.count(), input.x.columns());
    let mut normalised = Matrix::zeros(rows, columns);
    let mut statistics = NormStatistics::new(rows);
    let into = NormForward {
        sum: None,
        normalised: normalised.rows_mut(rows),
        narrow: None,
        statistics: &mut statistics,
    };
    layer_norm_forward(pool, input, weights.parameters(), into);
    assert!(bits(normalised.rows(rows)) == bits(with.normalised.rows(rows)));
}

/// Backward over all that forward left.
struct Backward {
    sum: Matrix<f32>,
    branch: Matrix<f32>,
    narrow: Matrix<bf16>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

fn backward(
    pool: &Pool,
    dy: &Matrix<f32>,
    forward: &Forward,
    weights: &Weights,
    dropout: Option<DropoutMask<'_>>,
) -> Backward {
    let (rows, columns) = (dy.row_count(), dy.columns());
    let mut out = Backward {
        sum: sentinels(rows + 1, columns),
        branch: sentinels(rows + 1, columns),
        narrow: Matrix::zeros(rows, columns),
        weight: vec![0.5; columns],
        bias: vec![0.25; columns],
    };
    let input = NormGradient {
        gradient: dy.rows(rows),
        sum: forward.sum.rows(rows),
        statistics: &forward.statistics,
        weight: &weights.weight,
    };
    let mut scratch = NormScratch::new(rows, columns);
    let mut other = Matrix::zeros(rows, columns);
    let mut gradients = [vec![0.0; columns], vec![0.0; columns]];
    let [weight, bias] = &mut gradients;
    let into = NormBackward {
        sum: other.rows_mut(rows),
        branch: Some(NormBranch {
            dropout,
            out: Output::Bf16(out.narrow.rows_mut(rows)),
        }),
        weight,
        bias,
    };
    layer_norm_backward(pool, input, &mut scratch, into);
    let into = NormBackward {
        sum: out.sum.rows_mut(rows),
        branch: Some(NormBranch {
            dropout,
            out: Output::F32(out.branch.rows_mut(rows)),
        }),
        weight: &mut out.weight,
        bias: &mut out.bias,
    };
    layer_norm_backward(pool, input, &mut scratch, into);
    assert_untouched(&name(pool), &out.sum, rows);
    assert_untouched(&name(pool), &out.branch, rows);
    out
}

/// `2⁻²⁰ (ρ (|g| + mean |g| + |x̂| mean |g x̂|) + ...)`: the bound that the documentation states.
fn assert_in_bounds(
    what: &str,
    forward: &Forward,
    dy: &Matrix<f32>,
    weights: &Weights,
    out: &Backward,
) {
    let (rows, columns) = (dy.row_count(), dy.columns());
    let (s, dy) = (wide(forward.sum.rows(rows)), wide(dy.rows(rows)));
    let expected = reference::layer_norm_backward(&s, &dy, weights.parameters());
    let weight = |j: usize| f64::from(weights.weight[j]).abs();
    let sizes: Vec<(f64, f64, f64)> = (s.iter().zip(&dy))
        .map(|(s, dy)| {
            let (_, inverse) = reference::norm_statistics(s, EPS);
            let size = s.iter().fold(0.0_f64, |most, x| most.max(x.abs())) * inverse;
            let g = (0..columns).map(|j| dy[j].abs() * weight(j));
            let largest = dy.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            (inverse, size, g.fold(largest * 1e-3, f64::max))
        })
        .collect();
    let unit = 2.0_f64.powi(-20);
    let scale = |i: usize| {
        let (inverse, size, g) = sizes[i];
        unit * inverse * g * (1.0 + size) * (1.0 + size)
    };
    assert_close(what, out.sum.rows(rows), &expected.sum, |i, _| scale(i));
    let total: f64 = sizes.iter().map(|(_, size, _)| 1.0 + size).sum();
    let gradients = [
        (&out.weight, &expected.weight, 0.5),
        (&out.bias, &expected.bias, 0.25),
    ];
    for (found, expected, start) in gradients {
        for (j, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - start - expected).abs();
            assert!(
                error <= unit * total,
                "{what}: {error:e} at {j}, {expected}"
            );
        }
    }
}

#[test]
fn gradients_are_within_the_bound_at_every_width() {
    let mut random = Random(71);
    for pool in pools() {
        for columns in lengths() {
            let rows = 1 + random.below(40);
            let mut x = random.matrix(rows, columns);
            for i in 0..rows {
                let mean = [0.0, 0.3, -5.0][i % 3];
                x.row_mut(i).iter_mut().for_each(|x| *x += mean);
            }
            let keep = random_bits(&mut random, rows, columns);
            let mask = DropoutMask {
                keep: &keep,
                scale: 1.5,
            };
            let weights = Weights::random(&mut random, columns);
            let input = NormInput {
                x: x.rows(rows),
                dropout: None,
                residual: None,
            };
            let forward = forward(&pool, input, &weights);
            let dy = random.matrix(rows, columns);
            let what = format!("{}, {rows} x {columns}", name(&pool));
            for dropout in [None, Some(mask)] {
                let out = backward(&pool, &dy, &forward, &weights, dropout);
                // A single column, or two that nearly agree, leave a variance of rounding errors.
                if columns > 2 {
                    assert_in_bounds(&what, &forward, &dy, &weights, &out);
                }
                for i in 0..rows {
                    for (j, ds) in out.sum.row(i).iter().enumerate() {
                        let expected = match dropout {
                            Some(_) if keep.keeps(i, j) => 1.5 * ds,
                            Some(_) => 0.0,
                            None => *ds,
                        };
                        assert_eq!(out.branch.row(i)[j], expected, "{what}");
                        assert_eq!(out.narrow.row(i)[j], bf16::from_f32(expected), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let mut random = Random(72);
    let (rows, columns) = (203, 101);
    let (x, dy) = (random.matrix(rows, columns), random.matrix(rows, columns));
    let weights = Weights::random(&mut random, columns);
    for pool in pools() {
        let single = Pool::new(pool.isa(), 1);
        let [one, many] = [&single, &pool].map(|pool| {
            let input = NormInput {
                x: x.rows(rows),
                dropout: None,
                residual: None,
            };
            let forward = forward(pool, input, &weights);
            let out = backward(pool, &dy, &forward, &weights, None);
            (bits(out.sum.rows(rows)), out.weight, out.bias)
        });
        assert!(one == many, "{}", name(&pool));
    }
}
