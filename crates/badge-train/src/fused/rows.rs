//! Rows in the forms that products read.

use badge_kernels::bf16;
use badge_kernels::gemm::{Input, Output};
use badge_kernels::matrix::{Matrix, Rows, RowsMut};
use badge_kernels::training::Factor;
use badge_kernels::training::layer_norm::{NormForward, NormStatistics};

use super::Precision;

/// Rows in the precision of the products: f32, or bf16 in mixed precision.
#[derive(Debug)]
pub(super) enum Factors {
    F32(Matrix<f32>),
    Bf16(Matrix<bf16>),
}

impl Factors {
    /// Room for `rows` rows.
    pub(super) fn zeros(rows: usize, columns: usize, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(Matrix::zeros(rows, columns)),
            Precision::Bf16 => Self::Bf16(Matrix::zeros(rows, columns)),
        }
    }

    /// The first `count` rows, to be multiplied with weights.
    pub(super) fn input(&self, count: usize) -> Input<'_> {
        match self {
            Self::F32(rows) => Input::F32(rows.rows(count)),
            Self::Bf16(rows) => Input::Bf16(rows.rows(count)),
        }
    }

    /// The first `count` rows, for all other operations.
    pub(super) fn factor(&self, count: usize) -> Factor<'_> {
        match self {
            Self::F32(rows) => Factor::F32(rows.rows(count)),
            Self::Bf16(rows) => Factor::Bf16(rows.rows(count)),
        }
    }

    /// The first `count` rows, to write.
    pub(super) fn output(&mut self, count: usize) -> Output<'_> {
        match self {
            Self::F32(rows) => Output::F32(rows.rows_mut(count)),
            Self::Bf16(rows) => Output::Bf16(rows.rows_mut(count)),
        }
    }

    /// Writes one row, rounded where it has to be.
    pub(super) fn set_row(&mut self, index: usize, values: impl Iterator<Item = f32>) {
        match self {
            Self::F32(rows) => {
                let row = rows.row_mut(index).iter_mut();
                row.zip(values).for_each(|(x, value)| *x = value);
            }
            Self::Bf16(rows) => {
                let row = rows.row_mut(index).iter_mut();
                row.zip(values)
                    .for_each(|(x, value)| *x = bf16::from_f32(value));
            }
        }
    }
}

/// Rows of the residual stream: in f32, with a copy in bf16 where products want that.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) wide: Matrix<f32>,
    /// In mixed precision.
    narrow: Option<Matrix<bf16>>,
}

impl Stream {
    /// Room for `rows` rows.
    pub(super) fn zeros(rows: usize, columns: usize, precision: Precision) -> Self {
        Self {
            wide: Matrix::zeros(rows, columns),
            narrow: (precision == Precision::Bf16).then(|| Matrix::zeros(rows, columns)),
        }
    }

    /// The first `count` rows, to be multiplied with weights.
    pub(super) fn input(&self, count: usize) -> Input<'_> {
        match &self.narrow {
            None => Input::F32(self.wide.rows(count)),
            Some(rows) => Input::Bf16(rows.rows(count)),
        }
    }

    /// The first `count` rows, as a factor of a weight's gradient.
    pub(super) fn factor(&self, count: usize) -> Factor<'_> {
        match &self.narrow {
            None => Factor::F32(self.wide.rows(count)),
            Some(rows) => Factor::Bf16(rows.rows(count)),
        }
    }

    /// The first `count` rows in f32.
    pub(super) fn rows(&self, count: usize) -> Rows<'_, f32> {
        self.wide.rows(count)
    }

    /// The first `count` rows as a LayerNorm writes them.
    pub(super) fn norm_output<'a>(
        &'a mut self,
        count: usize,
        sum: Option<RowsMut<'a, f32>>,
        statistics: &'a mut NormStatistics,
    ) -> NormForward<'a> {
        NormForward {
            sum,
            normalised: self.wide.rows_mut(count),
            narrow: self.narrow.as_mut().map(|rows| rows.rows_mut(count)),
            statistics,
        }
    }

    /// Rounds the first `count` rows, after the f32 ones have changed.
    pub(super) fn narrow(&mut self, count: usize) {
        let Some(narrow) = &mut self.narrow else {
            return;
        };
        for row in 0..count {
            let wide = self.wide.row(row);
            let pairs = narrow.row_mut(row).iter_mut().zip(wide);
            pairs.for_each(|(x, wide)| *x = bf16::from_f32(*wide));
        }
    }

    /// Makes this the given rows of another stream.
    pub(super) fn gather(&mut self, from: &Self, rows: impl Iterator<Item = usize>) {
        let mut count = 0;
        for (index, row) in rows.enumerate() {
            self.wide.row_mut(index).copy_from_slice(from.wide.row(row));
            count = index + 1;
        }
        self.narrow(count);
    }
}
