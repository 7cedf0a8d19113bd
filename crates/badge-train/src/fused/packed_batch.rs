//! A batch without its padding: the real tokens of all samples, one after the other.

use badge_kernels::attention::{Segment, Sequences};
use badge_kernels::embedding::Token;
use badge_kernels::matrix::Matrix;

use crate::framework::{Device, Result, Tensor};
use crate::model::ModelInput;

/// Which row holds which token.
#[derive(Debug, Default)]
pub(super) struct PackedBatch {
    /// What each row looks up in the embedding tables.
    pub(super) tokens: Vec<Token>,
    /// The rows of each sample; the first is its \[CLS\].
    samples: Vec<Segment>,
    /// The same where each sample has one row.
    firsts: Vec<Segment>,
    /// The sample of each row.
    sample_of: Vec<usize>,
    /// `T`: tokens of a padded row.
    padded: usize,
}

/// Rows of a layer behind its keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryRows {
    /// One for each token.
    All,
    /// One for each sample, its \[CLS\]: nobody reads more of the last layer.
    Cls,
}

impl PackedBatch {
    /// Takes over a batch, reusing the memory of the one before.
    pub(super) fn fill(&mut self, input: &ModelInput) -> Result<()> {
        let ids = input.ids.flatten_all()?.to_vec1::<u32>()?;
        let type_ids = input.type_ids.flatten_all()?.to_vec1::<u32>()?;
        self.padded = input.tokens();
        self.tokens.clear();
        self.samples.clear();
        self.firsts.clear();
        self.sample_of.clear();
        for (sample, length) in input.lengths.iter().copied().enumerate() {
            let place = sample * self.padded;
            let start = self.tokens.len();
            self.samples.push(Segment { start, length });
            self.firsts.push(Segment {
                start: sample,
                length: 1,
            });
            self.sample_of.extend(std::iter::repeat_n(sample, length));
            self.tokens.extend((0..length).map(|position| Token {
                word: ids[place + position],
                position: position as u32,
                token_type: type_ids[place + position],
            }));
        }
        Ok(())
    }

    /// Rows of a matrix.
    pub(super) fn count(&self, rows: QueryRows) -> usize {
        match rows {
            QueryRows::All => self.tokens.len(),
            QueryRows::Cls => self.samples.len(),
        }
    }

    /// Samples, `B`.
    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Tokens of the longest sample.
    pub(super) fn longest(&self) -> usize {
        self.samples.iter().map(|s| s.length).max().unwrap_or(0)
    }

    /// `T`: tokens of a padded row.
    pub(super) fn padded_tokens(&self) -> usize {
        self.padded
    }

    /// Which queries attend to which keys.
    pub(super) fn sequences(&self, queries: QueryRows) -> Sequences<'_> {
        Sequences {
            queries: match queries {
                QueryRows::All => &self.samples,
                QueryRows::Cls => &self.firsts,
            },
            keys: &self.samples,
        }
    }

    /// Where a row lies in the padded batch: its sample, and its place within it.
    pub(super) fn place(&self, row: usize, rows: QueryRows) -> (usize, usize) {
        match rows {
            QueryRows::All => (self.sample_of[row], self.tokens[row].position as usize),
            QueryRows::Cls => (row, 0),
        }
    }

    /// The keys of a sample.
    pub(super) fn length(&self, sample: usize) -> usize {
        self.samples[sample].length
    }

    /// The rows that hold the samples' \[CLS\].
    pub(super) fn cls_rows(&self, rows: QueryRows) -> impl Iterator<Item = usize> + '_ {
        self.sequences(rows).queries.iter().map(|s| s.start)
    }

    /// The \[CLS\] rows of a matrix: `[B, D]`.
    pub(super) fn cls(&self, matrix: &Matrix<f32>, rows: QueryRows) -> Result<Tensor> {
        let firsts = self.cls_rows(rows).map(|row| matrix.row(row));
        let values: Vec<f32> = firsts.flatten().copied().collect();
        Tensor::from_vec(values, (self.samples(), matrix.columns()), &Device::Cpu)
    }

    /// All rows of a matrix as padded ones, `[B, T, D]`; the padding is 0.
    pub(super) fn padded(&self, matrix: &Matrix<f32>) -> Result<Tensor> {
        let (b, t, d) = (self.samples(), self.padded, matrix.columns());
        let mut values = vec![0.0; b * t * d];
        for row in 0..self.tokens.len() {
            let (sample, position) = self.place(row, QueryRows::All);
            values[(sample * t + position) * d..][..d].copy_from_slice(matrix.row(row));
        }
        Tensor::from_vec(values, (b, t, d), &Device::Cpu)
    }

    /// Adds `[B, D]` to the \[CLS\] rows of a matrix.
    pub(super) fn add_to_cls(&self, values: &[f32], matrix: &mut Matrix<f32>, rows: QueryRows) {
        let values = values.chunks_exact(matrix.columns());
        for (row, values) in self.cls_rows(rows).zip(values) {
            add(matrix.row_mut(row), values);
        }
    }

    /// Adds `[B, T, D]` to all rows of a matrix; what lies in the padding is left out.
    pub(super) fn add_to_all(&self, values: &[f32], matrix: &mut Matrix<f32>) {
        let d = matrix.columns();
        for row in 0..self.tokens.len() {
            let (sample, position) = self.place(row, QueryRows::All);
            let values = &values[(sample * self.padded + position) * d..][..d];
            add(matrix.row_mut(row), values);
        }
    }
}

/// `row ← row + values`
pub(super) fn add(row: &mut [f32], values: &[f32]) {
    row.iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
}

/// Makes the first `count` rows 0.
pub(super) fn clear(matrix: &mut Matrix<f32>, count: usize) {
    (0..count).for_each(|row| matrix.row_mut(row).fill(0.0));
}
