//! The operations of a block that multiply no weights.

use badge_engine::kernels::attention::{
    AttentionInput, AttentionScratch, AttentionShape, Projections, Segment, Sequences, attention,
};
use badge_engine::kernels::bf16;
use badge_engine::kernels::embedding::{EmbeddingTables, Token, embedding_sum};
use badge_engine::kernels::gemm::{Output, Precision};
use badge_engine::kernels::layer_norm::{LayerNorm, Narrow, NormOutput, layer_norm};
use badge_engine::kernels::matrix::Matrix;
use badge_engine::kernels::quantise::{QuantisedMatrix, quantise_rows};

use super::super::timing::{Times, alone};
use super::{BlockSizes, KernelBench, KernelRow};

/// Times attention, layer norms, quantisation and the sum of embeddings over `m` tokens, each in the
/// precisions it has.
pub(super) fn time(bench: &KernelBench<'_>, sizes: &BlockSizes, m: usize) -> Vec<KernelRow> {
    let rows = Rows {
        bench,
        sizes,
        m,
        wide: Matrix::from_rows(&wave(m * 3 * sizes.hidden), 3 * sizes.hidden),
        hidden: Matrix::from_rows(&wave(m * sizes.hidden), sizes.hidden),
    };
    let mut all = Vec::new();
    for precision in bench.precisions {
        match precision {
            Precision::F32 => all.extend([rows.attention_f32(), rows.embedding_sum()]),
            Precision::Bf16 => all.extend(rows.attention_bf16()),
            Precision::Int8 => all.push(rows.quantise()),
        }
        all.push(rows.layer_norm(*precision));
    }
    all
}

/// Numbers of unit size that are all different.
fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.7).sin()).collect()
}

/// What the operations read.
struct Rows<'a> {
    bench: &'a KernelBench<'a>,
    sizes: &'a BlockSizes,
    m: usize,
    /// Queries, keys and values side by side.
    wide: Matrix<f32>,
    hidden: Matrix<f32>,
}

impl Rows<'_> {
    fn timed(&self, mut call: impl FnMut()) -> Times {
        alone(self.bench.repeats, || {
            call();
            Ok(())
        })
        .expect("kernels do not fail")
    }

    fn row(
        &self,
        (kernel, precision): (&'static str, Precision),
        columns: usize,
        times: &Times,
    ) -> KernelRow {
        let what = (self.sizes, kernel, precision);
        self.bench.plain_row(what, (self.m, columns), times)
    }

    fn shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.sizes.heads,
            head_size: self.sizes.hidden / self.sizes.heads,
        }
    }

    /// One sequence that attends to itself.
    fn segments(&self) -> [Segment; 1] {
        [Segment {
            start: 0,
            length: self.m,
        }]
    }

    fn attention_f32(&self) -> KernelRow {
        let (m, d) = (self.m, self.sizes.hidden);
        let scratch = AttentionScratch::new(self.bench.pool.threads(), m, &self.shape());
        let segments = self.segments();
        let mut output = Matrix::<f32>::zeros(m, d);
        let times = self.timed(|| {
            let wide = self.wide.rows(m);
            let input = AttentionInput::F32(Projections {
                queries: wide.slice(0..d),
                keys: wide.slice(d..2 * d),
                values: wide.slice(2 * d..3 * d),
            });
            let sequences = Sequences {
                queries: &segments,
                keys: &segments,
            };
            let output = Output::F32(output.rows_mut(m));
            attention(self.bench.pool, input, sequences, &scratch, output);
        });
        self.attention_row(Precision::F32, &times)
    }

    /// None where the heads have an odd size, which pairs of bf16 do not fit.
    fn attention_bf16(&self) -> Option<KernelRow> {
        let (m, d) = (self.m, self.sizes.hidden);
        if !self.shape().head_size.is_multiple_of(2) {
            return None;
        }
        let narrow: Vec<_> = wave(m * 3 * d).into_iter().map(bf16::from_f32).collect();
        let wide = Matrix::from_rows(&narrow, 3 * d);
        let scratch = AttentionScratch::new(self.bench.pool.threads(), m, &self.shape());
        let segments = self.segments();
        let mut output = Matrix::<bf16>::zeros(m, d);
        let times = self.timed(|| {
            let wide = wide.rows(m);
            let input = AttentionInput::Bf16(Projections {
                queries: wide.slice(0..d),
                keys: wide.slice(d..2 * d),
                values: wide.slice(2 * d..3 * d),
            });
            let sequences = Sequences {
                queries: &segments,
                keys: &segments,
            };
            let output = Output::Bf16(output.rows_mut(m));
            attention(self.bench.pool, input, sequences, &scratch, output);
        });
        Some(self.attention_row(Precision::Bf16, &times))
    }

    /// Scores and context are `2 T² D` multiply-accumulates.
    fn attention_row(&self, precision: Precision, times: &Times) -> KernelRow {
        let gflops = 4.0 * (self.m * self.m * self.sizes.hidden) as f64 / times.median() / 1e9;
        let peak = self.bench.peak().of(precision);
        KernelRow {
            gflops: Some(gflops),
            share_of_peak: peak.map(|peak| gflops / peak),
            ..self.row(("attention", precision), self.sizes.hidden, times)
        }
    }

    /// The norm and a copy in the precision of the next product.
    fn layer_norm(&self, precision: Precision) -> KernelRow {
        let (m, d, pool) = (self.m, self.sizes.hidden, self.bench.pool);
        let norm = LayerNorm::new(vec![1.0; d], vec![0.0; d], 1e-12);
        let mut output = Matrix::zeros(m, d);
        let mut pairs = Matrix::<bf16>::zeros(m, d);
        let mut quantised = QuantisedMatrix::zeros(m, d);
        let times = self.timed(|| {
            let output = NormOutput {
                f32: output.rows_mut(m),
                narrow: match precision {
                    Precision::F32 => Narrow::None,
                    Precision::Bf16 => Narrow::Bf16(pairs.rows_mut(m)),
                    Precision::Int8 => Narrow::Int8(quantised.rows_mut(m)),
                },
            };
            layer_norm(pool, self.hidden.rows(m), None, &norm, output);
        });
        self.row(("layer norm", precision), d, &times)
    }

    fn quantise(&self) -> KernelRow {
        let (m, d, pool) = (self.m, self.sizes.hidden, self.bench.pool);
        let mut output = QuantisedMatrix::zeros(m, d);
        let times = self.timed(|| quantise_rows(pool, self.hidden.rows(m), output.rows_mut(m)));
        self.row(("quantise", Precision::Int8), d, &times)
    }

    /// Words at random places of a table that no cache holds.
    fn embedding_sum(&self) -> KernelRow {
        const WORDS: usize = 30_000;
        let columns = self.sizes.embedding.unwrap_or(self.sizes.hidden);
        let words = Matrix::<f32>::zeros(WORDS, columns);
        let others = Matrix::<f32>::zeros(self.m, columns);
        let token = |position: usize| Token {
            word: (position * 7919 % WORDS) as u32,
            position: position as u32,
            token_type: 0,
        };
        let tokens: Vec<Token> = (0..self.m).map(token).collect();
        let mut output = Matrix::zeros(self.m, columns);
        let tables = EmbeddingTables {
            words: words.rows(WORDS),
            positions: others.rows(self.m),
            token_types: others.rows(1),
        };
        let pool = self.bench.pool;
        let times = self.timed(|| embedding_sum(pool, &tables, &tokens, output.rows_mut(self.m)));
        self.row(("embedding sum", Precision::F32), columns, &times)
    }
}
