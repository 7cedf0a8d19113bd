//! Attention in training, forward and backward, against the f64 reference.

use badge_kernels::attention::{
    AttentionInput, AttentionScratch, AttentionShape, Projections, Segment, Sequences, attention,
};
use badge_kernels::bf16;
use badge_kernels::gemm::Output;
use badge_kernels::isa::Isa;
use badge_kernels::matrix::Matrix;
use badge_kernels::reference::{Row, wide};
use badge_kernels::threads::Pool;
use badge_kernels::training::Factor;
use badge_kernels::training::attention::{
    AttentionGradient, AttentionPass, BackwardScratch, ProjectionGradients, SoftmaxStatistics,
    attention_backward, attention_forward,
};
use badge_kernels::training::dropout::{DropoutMask, KeepBits};
use badge_kernels::training::reference;

use crate::training_dropout::random_bits;
use crate::{Random, SENTINEL, bits, sentinels};

/// Sequences of these lengths one after the other.
fn packed(lengths: &[usize]) -> Vec<Segment> {
    let mut start = 0;
    let segment = |length: &usize| {
        start += length;
        Segment {
            start: start - length,
            length: *length,
        }
    };
    lengths.iter().map(segment).collect()
}

/// Projections and the gradient of the output, as f32 and rounded.
struct Case {
    shape: AttentionShape,
    queries: Vec<Segment>,
    keys: Vec<Segment>,
    /// `Q`, `K`, `V`, `dO`
    f32: [Matrix<f32>; 4],
    bf16: [Matrix<bf16>; 4],
    keep: KeepBits,
}

fn last(segments: &[Segment]) -> usize {
    segments
        .iter()
        .map(|s| s.start + s.length)
        .max()
        .unwrap_or(0)
}

fn longest(segments: &[Segment]) -> usize {
    segments.iter().map(|s| s.length).max().unwrap_or(0)
}

impl Case {
    fn new(shape: AttentionShape, queries: Vec<Segment>, keys: Vec<Segment>) -> Self {
        let mut random = Random(80);
        let width = shape.heads * shape.head_size;
        let (m, t) = (last(&queries), last(&keys));
        // Queries large enough that softmaxes are far from even.
        let f32 = [(m, 3.0), (t, 1.0), (t, 1.0), (m, 1.0)].map(|(rows, scale)| {
            let mut matrix = random.matrix(rows, width);
            for i in 0..rows {
                matrix.row_mut(i).iter_mut().for_each(|x| *x *= scale);
            }
            matrix
        });
        let narrow = |wide: &Matrix<f32>| {
            let mut narrow = Matrix::zeros(wide.row_count(), width);
            for i in 0..wide.row_count() {
                let row = narrow.row_mut(i).iter_mut().zip(wide.row(i));
                row.for_each(|(narrow, x)| *narrow = bf16::from_f32(*x));
            }
            narrow
        };
        let bf16 = f32.each_ref().map(narrow);
        let keep = random_bits(&mut random, shape.heads * m, longest(&keys));
        Self {
            shape,
            queries,
            keys,
            f32,
            bf16,
            keep,
        }
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_size
    }

    fn mask(&self) -> DropoutMask<'_> {
        DropoutMask {
            keep: &self.keep,
            scale: 1.5,
        }
    }

    fn pass<'a>(&'a self, is_narrow: bool, dropout: Option<DropoutMask<'a>>) -> AttentionPass<'a> {
        let input = if is_narrow {
            let [queries, keys, values, _] = self.bf16.each_ref().map(|m| m.rows(m.row_count()));
            AttentionInput::Bf16(Projections {
                queries,
                keys,
                values,
            })
        } else {
            let [queries, keys, values, _] = self.f32.each_ref().map(|m| m.rows(m.row_count()));
            AttentionInput::F32(Projections {
                queries,
                keys,
                values,
            })
        };
        AttentionPass {
            input,
            sequences: Sequences {
                queries: &self.queries,
                keys: &self.keys,
            },
            dropout,
        }
    }

    fn gradient(&self, is_narrow: bool) -> Factor<'_> {
        if is_narrow {
            Factor::Bf16(self.bf16[3].rows(self.bf16[3].row_count()))
        } else {
            Factor::F32(self.f32[3].rows(self.f32[3].row_count()))
        }
    }

    fn wide(&self, is_narrow: bool) -> [Vec<Row>; 4] {
        if is_narrow {
            self.bf16.each_ref().map(|m| wide(m.rows(m.row_count())))
        } else {
            self.f32.each_ref().map(|m| wide(m.rows(m.row_count())))
        }
    }

    fn forward(&self, pool: &Pool, pass: &AttentionPass<'_>) -> (Matrix<f32>, SoftmaxStatistics) {
        let queries = last(&self.queries);
        let scratch = AttentionScratch::new(pool.threads(), longest(&self.keys), &self.shape);
        let mut statistics = SoftmaxStatistics::new(queries, &self.shape);
        let mut out = sentinels(queries, self.width());
        let into = Output::F32(out.rows_mut(queries));
        attention_forward(pool, pass, &scratch, &mut statistics, into);
        (out, statistics)
    }

    fn backward(&self, pool: &Pool, input: &AttentionGradient<'_>) -> [Matrix<f32>; 3] {
        let (m, t) = (last(&self.queries), last(&self.keys));
        let longest = longest(&self.keys).max(longest(&self.queries));
        let scratch = BackwardScratch::new(pool.threads(), longest, &self.shape);
        let mut out = [m, t, t].map(|rows| sentinels(rows, self.width()));
        let [queries, keys, values] = &mut out;
        let into = ProjectionGradients::Apart {
            queries: Output::F32(queries.rows_mut(m)),
            keys: Output::F32(keys.rows_mut(t)),
            values: Output::F32(values.rows_mut(t)),
        };
        attention_backward(pool, input, &scratch, into);
        out
    }
}

/// Rows of no segment are to be untouched; the others within the bound.
fn compare(what: &str, found: &Matrix<f32>, expected: &[Row], segments: &[Segment], bound: f64) {
    for (i, expected) in expected.iter().enumerate() {
        let inside = segments
            .iter()
            .any(|s| (s.start..s.start + s.length).contains(&i));
        for (found, expected) in found.row(i).iter().zip(expected) {
            if inside {
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error <= bound,
                    "{what}: row {i} has {found}, not {expected}: {error:e}"
                );
            } else {
                assert_eq!(*found, SENTINEL, "{what}: row {i}");
            }
        }
    }
}

fn check(pool: &Pool, case: &Case) {
    for is_narrow in [false, true] {
        if is_narrow && !case.shape.head_size.is_multiple_of(2) {
            continue;
        }
        for dropout in [None, Some(case.mask())] {
            let pass = case.pass(is_narrow, dropout);
            let lengths: Vec<usize> = case.keys.iter().map(|s| s.length).collect();
            let what = format!(
                "{} {:?} {lengths:?}, bf16: {is_narrow}, dropout: {}",
                pool.isa(),
                case.shape,
                dropout.is_some()
            );
            let [q, k, v, d_out] = case.wide(is_narrow);
            let exact = reference::Attention {
                shape: case.shape,
                projections: [&q, &k, &v],
                sequences: pass.sequences,
                dropout,
            };
            // Scores reach a few dozen: their rounding alone is 2e-6 of a probability. In bf16 each
            // probability and each of its gradients carries eight bits, and rows sum up to 70 of them.
            let (forward, backward) = if is_narrow {
                (8e-3, 6e-2)
            } else {
                (2e-5, 1e-4)
            };
            let (out, statistics) = case.forward(pool, &pass);
            compare(&what, &out, &exact.forward(), &case.queries, forward);
            let gradients = case.backward(
                pool,
                &AttentionGradient {
                    pass,
                    statistics: &statistics,
                    gradient: case.gradient(is_narrow),
                },
            );
            let [queries, keys, values] = &gradients;
            let expected = exact.backward(&d_out);
            compare(
                &format!("{what} dQ"),
                queries,
                &expected.queries,
                &case.queries,
                backward,
            );
            compare(
                &format!("{what} dK"),
                keys,
                &expected.keys,
                &case.keys,
                backward,
            );
            compare(
                &format!("{what} dV"),
                values,
                &expected.values,
                &case.keys,
                backward,
            );
        }
    }
}

#[test]
fn attention_of_all_sizes_agrees_with_the_reference_forward_and_backward() {
    for isa in Isa::available() {
        for pool in [Pool::new(isa, 1), Pool::new(isa, 3)] {
            for head_size in [1, 2, 6, 16, 31, 32, 33, 64, 70] {
                let shape = AttentionShape {
                    heads: 2,
                    head_size,
                };
                for lengths in [&[1][..], &[2, 1, 7], &[8, 9], &[31, 32, 33], &[65]] {
                    let segments = packed(lengths);
                    check(&pool, &Case::new(shape, segments.clone(), segments));
                }
            }
        }
    }
}

#[test]
fn long_sequences_agree_with_the_reference() {
    let shape = AttentionShape {
        heads: 1,
        head_size: 16,
    };
    for isa in Isa::available() {
        let segments = packed(&[130, 3, 200]);
        check(
            &Pool::new(isa, 2),
            &Case::new(shape, segments.clone(), segments),
        );
    }
}

/// As when [CLS] alone is wanted, with rows that belong to nobody.
#[test]
fn queries_may_be_fewer_than_keys() {
    let shape = AttentionShape {
        heads: 3,
        head_size: 32,
    };
    let segment = |start, length| Segment { start, length };
    let queries = vec![segment(0, 1), segment(2, 2), segment(5, 1)];
    let keys = vec![segment(0, 5), segment(7, 40), segment(50, 17)];
    for isa in Isa::available() {
        check(
            &Pool::new(isa, 2),
            &Case::new(shape, queries.clone(), keys.clone()),
        );
    }
}

/// Without dropout, training computes what inference computes.
#[test]
fn the_output_is_that_of_inference_to_the_bit() {
    let shape = AttentionShape {
        heads: 2,
        head_size: 32,
    };
    let segments = packed(&[5, 40, 17]);
    let case = Case::new(shape, segments.clone(), segments.clone());
    for isa in Isa::available() {
        let pool = Pool::new(isa, 2);
        for is_narrow in [false, true] {
            let pass = case.pass(is_narrow, None);
            let (found, _) = case.forward(&pool, &pass);
            let scratch = AttentionScratch::new(2, 40, &shape);
            let mut expected = Matrix::zeros(62, case.width());
            let into = Output::F32(expected.rows_mut(62));
            attention(&pool, pass.input, pass.sequences, &scratch, into);
            assert!(bits(found.rows(62)) == bits(expected.rows(62)), "{isa}");
        }
    }
}

/// Side by side, rounded, alone or among others: the same numbers.
#[test]
fn gradients_depend_neither_on_their_place_nor_on_neighbours_or_threads() {
    let shape = AttentionShape {
        heads: 2,
        head_size: 32,
    };
    let segments = packed(&[5, 70, 17]);
    let case = Case::new(shape, segments.clone(), segments.clone());
    let (rows, width) = (92, case.width());
    for isa in Isa::available() {
        for is_narrow in [false, true] {
            let pool = Pool::new(isa, 3);
            let pass = case.pass(is_narrow, Some(case.mask()));
            let (_, statistics) = case.forward(&pool, &pass);
            let input = AttentionGradient {
                pass,
                statistics: &statistics,
                gradient: case.gradient(is_narrow),
            };
            let apart = case.backward(&pool, &input);

            let scratch = BackwardScratch::new(1, 70, &shape);
            let mut joined = Matrix::zeros(rows, 3 * width);
            let into = ProjectionGradients::Joined(Output::F32(joined.rows_mut(rows)));
            let single = Pool::new(isa, 1);
            attention_backward(&single, &input, &scratch, into);
            let mut narrow = Matrix::<bf16>::zeros(rows, 3 * width);
            let into = ProjectionGradients::Joined(Output::Bf16(narrow.rows_mut(rows)));
            attention_backward(&single, &input, &scratch, into);
            for i in 0..rows {
                for (part, apart) in apart.iter().enumerate() {
                    let columns = part * width..(part + 1) * width;
                    assert_eq!(joined.row(i)[columns.clone()], *apart.row(i), "{isa}");
                    let rounded = apart.row(i).iter().map(|x| bf16::from_f32(*x));
                    assert!(rounded.eq(narrow.row(i)[columns].iter().copied()), "{isa}");
                }
            }

            let mut alone = input;
            alone.pass.sequences = Sequences {
                queries: &segments[1..2],
                keys: &segments[1..2],
            };
            let lonely = case.backward(&pool, &alone);
            for (lonely, apart) in lonely.iter().zip(&apart) {
                assert_eq!(lonely.row(4), [SENTINEL; 64]);
                (5..75).for_each(|i| assert_eq!(lonely.row(i), apart.row(i), "{isa}"));
            }
        }
    }
}

#[test]
#[should_panic(expected = "a mask of 2 x 4 elements for 2 x 5")]
fn a_mask_of_too_few_keys_is_refused() {
    let shape = AttentionShape {
        heads: 1,
        head_size: 4,
    };
    let (queries, keys) = (packed(&[2]), packed(&[5]));
    let mut case = Case::new(shape, queries, keys);
    case.keep = KeepBits::new(2, 4);
    let pass = case.pass(false, Some(case.mask()));
    case.forward(&Pool::new(Isa::Scalar, 1), &pass);
}
