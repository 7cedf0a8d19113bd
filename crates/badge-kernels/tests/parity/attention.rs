//! Attention against the f64 reference.

use badge_kernels::attention::{
    AttentionInput, AttentionScratch, AttentionShape, Projections, Segment, Sequences, attention,
};
use badge_kernels::bf16;
use badge_kernels::gemm::Output;
use badge_kernels::isa::Isa;
use badge_kernels::matrix::Matrix;
use badge_kernels::reference;
use badge_kernels::threads::Pool;

use crate::numbers;

/// Sequences of `lengths` one after the other.
fn packed(lengths: &[usize]) -> Vec<Segment> {
    let mut start = 0;
    let segment = |length: &usize| {
        let segment = Segment {
            start,
            length: *length,
        };
        start += length;
        segment
    };
    lengths.iter().map(segment).collect()
}

/// Queries, keys and values side by side, as f32 and as bf16.
struct Rows {
    width: usize,
    f32: Matrix<f32>,
    bf16: Matrix<bf16>,
}

impl Rows {
    fn new(count: usize, shape: AttentionShape) -> Self {
        let width = shape.heads * shape.head_size;
        let values = numbers(count * 3 * width, 5);
        let narrow: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
        Self {
            width,
            f32: Matrix::from_rows(&values, 3 * width),
            bf16: Matrix::from_rows(&narrow, 3 * width),
        }
    }

    fn f32(&self) -> Projections<'_, f32> {
        let (rows, d) = (self.f32.rows(self.f32.row_count()), self.width);
        Projections {
            queries: rows.slice(0..d),
            keys: rows.slice(d..2 * d),
            values: rows.slice(2 * d..3 * d),
        }
    }

    fn bf16(&self) -> Projections<'_, bf16> {
        let (rows, d) = (self.bf16.rows(self.bf16.row_count()), self.width);
        Projections {
            queries: rows.slice(0..d),
            keys: rows.slice(d..2 * d),
            values: rows.slice(2 * d..3 * d),
        }
    }
}

/// What the reference makes of the same numbers.
fn exact<T: Copy + Into<f64>>(
    shape: AttentionShape,
    rows: Projections<'_, T>,
    sequences: Sequences<'_>,
) -> Vec<reference::Row> {
    let wide = [rows.queries, rows.keys, rows.values].map(reference::wide);
    reference::attention(shape, wide.each_ref().map(Vec::as_slice), sequences)
}

fn check(pool: &Pool, shape: AttentionShape, lengths: &[usize]) {
    let segments = packed(lengths);
    let sequences = Sequences {
        queries: &segments,
        keys: &segments,
    };
    let (count, longest) = (lengths.iter().sum(), *lengths.iter().max().unwrap());
    let rows = Rows::new(count, shape);
    let scratch = AttentionScratch::new(pool.threads(), longest, &shape);
    let at = format!("{} {shape:?} {lengths:?}", pool.isa());
    let expected = exact(shape, rows.f32(), sequences);
    let mut out = Matrix::from_rows(&vec![77.0_f32; (count + 1) * rows.width], rows.width);
    let output = Output::F32(out.rows_mut(count));
    attention(
        pool,
        AttentionInput::F32(rows.f32()),
        sequences,
        &scratch,
        output,
    );
    compare(&out, &expected, 5e-6, &at);
    if shape.head_size.is_multiple_of(2) {
        let expected = exact(shape, rows.bf16(), sequences);
        let output = Output::F32(out.rows_mut(count));
        attention(
            pool,
            AttentionInput::Bf16(rows.bf16()),
            sequences,
            &scratch,
            output,
        );
        // Probabilities carry eight bits: each is off by 2⁻⁹ of itself, values lie in -1..1.
        compare(&out, &expected, 4e-3, &at);
    }
    assert!(
        out.row(count).iter().all(|v| *v == 77.0),
        "{at}: wrote beyond its rows"
    );
}

fn compare(out: &Matrix<f32>, expected: &[reference::Row], bound: f64, at: &str) {
    for (i, row) in expected.iter().enumerate() {
        for (found, expected) in out.row(i).iter().zip(row) {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= bound, "{at}: row {i} has {found}, not {expected}");
        }
    }
}

#[test]
fn attention_of_all_sizes_agrees_with_the_reference() {
    for isa in Isa::available() {
        for pool in [Pool::new(isa, 1), Pool::new(isa, 3)] {
            for head_size in [1, 2, 6, 16, 31, 32, 33, 64, 70] {
                let shape = AttentionShape {
                    heads: 3,
                    head_size,
                };
                for lengths in [&[1][..], &[2, 1, 7], &[8, 9], &[31, 32, 33], &[65]] {
                    check(&pool, shape, lengths);
                }
            }
        }
    }
}

/// As when only [CLS] of a sequence is wanted.
#[test]
fn a_query_alone_gets_the_same_context_as_among_all() {
    let shape = AttentionShape {
        heads: 2,
        head_size: 32,
    };
    let lengths = [5, 40, 17];
    let keys = packed(&lengths);
    let rows = Rows::new(62, shape);
    for isa in Isa::available() {
        let pool = Pool::new(isa, 2);
        let scratch = AttentionScratch::new(2, 40, &shape);
        let mut all = Matrix::<f32>::zeros(62, rows.width);
        let sequences = Sequences {
            queries: &keys,
            keys: &keys,
        };
        let output = Output::F32(all.rows_mut(62));
        attention(
            &pool,
            AttentionInput::F32(rows.f32()),
            sequences,
            &scratch,
            output,
        );
        // The first rows of the three sequences, gathered.
        let mut first = Matrix::<f32>::zeros(3, rows.width);
        for (i, segment) in keys.iter().enumerate() {
            first
                .row_mut(i)
                .copy_from_slice(&rows.f32.row(segment.start)[..rows.width]);
        }
        let queries = packed(&[1, 1, 1]);
        let sequences = Sequences {
            queries: &queries,
            keys: &keys,
        };
        let projections = Projections {
            queries: first.rows(3),
            ..rows.f32()
        };
        let mut alone = Matrix::<f32>::zeros(3, rows.width);
        let output = Output::F32(alone.rows_mut(3));
        attention(
            &pool,
            AttentionInput::F32(projections),
            sequences,
            &scratch,
            output,
        );
        for (i, segment) in keys.iter().enumerate() {
            assert_eq!(alone.row(i), all.row(segment.start), "{isa} sequence {i}");
        }
    }
}

#[test]
#[should_panic(expected = "segments must ascend")]
fn overlapping_sequences_are_refused() {
    let shape = AttentionShape {
        heads: 1,
        head_size: 4,
    };
    let rows = Rows::new(4, shape);
    let segments = [
        Segment {
            start: 0,
            length: 3,
        },
        Segment {
            start: 2,
            length: 2,
        },
    ];
    let sequences = Sequences {
        queries: &segments,
        keys: &segments,
    };
    let pool = Pool::new(Isa::Scalar, 1);
    let scratch = AttentionScratch::new(1, 4, &shape);
    let mut out = Matrix::<f32>::zeros(4, 4);
    let output = Output::F32(out.rows_mut(4));
    attention(
        &pool,
        AttentionInput::F32(rows.f32()),
        sequences,
        &scratch,
        output,
    );
}
