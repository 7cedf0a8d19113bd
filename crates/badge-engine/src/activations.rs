//! Rows of activations in the form in which the next product reads them.

use std::ops::Range;

use badge_kernels::attention::{AttentionInput, Projections};
use badge_kernels::bf16;
use badge_kernels::gemm::{Input, Output, Precision};
use badge_kernels::layer_norm::{Narrow, NormOutput};
use badge_kernels::matrix::{Matrix, Rows, RowsMut};
use badge_kernels::quantise::{QuantisedMatrix, quantise_rows};
use badge_kernels::threads::Pool;

/// f32 rows, and the same rows as products in lower precision read them.
#[derive(Debug)]
pub(crate) struct Activations {
    wide: Matrix<f32>,
    narrow: NarrowRows,
}

#[derive(Debug)]
enum NarrowRows {
    /// Products read the f32 rows.
    None,
    Bf16(Matrix<bf16>),
    Int8(QuantisedMatrix),
}

impl Activations {
    /// Room for `rows` rows of which both forms are needed: the residual stream.
    pub(crate) fn zeros(rows: usize, columns: usize, precision: Precision) -> Self {
        Self {
            wide: Matrix::zeros(rows, columns),
            narrow: NarrowRows::zeros(rows, columns, precision),
        }
    }

    /// Room for rows that only the next product reads.
    pub(crate) fn for_product(rows: usize, columns: usize, precision: Precision) -> Self {
        // Products write bf16 themselves; bytes are made from f32 rows.
        let wide = if precision == Precision::Bf16 {
            0
        } else {
            rows
        };
        Self {
            wide: Matrix::zeros(wide, columns),
            narrow: NarrowRows::zeros(rows, columns, precision),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let narrow = match &self.narrow {
            NarrowRows::None => 0,
            NarrowRows::Bf16(rows) => rows.bytes(),
            NarrowRows::Int8(rows) => rows.bytes(),
        };
        self.wide.bytes() + narrow
    }

    /// The first `count` f32 rows.
    pub(crate) fn wide(&self, count: usize) -> Rows<'_, f32> {
        self.wide.rows(count)
    }

    /// The first `count` rows as a product reads them.
    pub(crate) fn input(&self, count: usize) -> Input<'_> {
        match &self.narrow {
            NarrowRows::None => Input::F32(self.wide.rows(count)),
            NarrowRows::Bf16(rows) => Input::Bf16(rows.rows(count)),
            NarrowRows::Int8(rows) => Input::Int8(rows.rows(count)),
        }
    }

    /// One f32 row.
    pub(crate) fn wide_row(&self, index: usize) -> &[f32] {
        self.wide.row(index)
    }

    /// Rows `range` as a layer norm writes them.
    pub(crate) fn norm_output(&mut self, range: Range<usize>) -> NormOutput<'_> {
        NormOutput {
            f32: self.wide.rows_in_mut(range.clone()),
            narrow: match &mut self.narrow {
                NarrowRows::None => Narrow::None,
                NarrowRows::Bf16(rows) => Narrow::Bf16(rows.rows_in_mut(range)),
                NarrowRows::Int8(rows) => Narrow::Int8(rows.rows_in_mut(range)),
            },
        }
    }

    /// Lets `write` fill the first `count` rows, then brings them into the product's form.
    pub(crate) fn fill(&mut self, pool: &Pool, count: usize, write: impl FnOnce(Output<'_>)) {
        match &mut self.narrow {
            NarrowRows::None => write(Output::F32(self.wide.rows_mut(count))),
            NarrowRows::Bf16(rows) => write(Output::Bf16(rows.rows_mut(count))),
            NarrowRows::Int8(rows) => {
                write(Output::F32(self.wide.rows_mut(count)));
                quantise_rows(pool, self.wide.rows(count), rows.rows_mut(count));
            }
        }
    }

    /// Lets `write` fill the f32 rows of a range, then brings them into the product's form.
    pub(crate) fn fill_wide(
        &mut self,
        pool: &Pool,
        range: Range<usize>,
        write: impl FnOnce(RowsMut<'_, f32>),
    ) {
        write(self.wide.rows_in_mut(range.clone()));
        match &mut self.narrow {
            NarrowRows::None => {}
            NarrowRows::Bf16(rows) => {
                for row in range {
                    let narrow = rows.row_mut(row).iter_mut();
                    for (narrow, wide) in narrow.zip(self.wide.row(row)) {
                        *narrow = bf16::from_f32(*wide);
                    }
                }
            }
            NarrowRows::Int8(rows) => {
                quantise_rows(
                    pool,
                    self.wide.rows_in(range.clone()),
                    rows.rows_in_mut(range),
                );
            }
        }
    }

    /// Copies the named rows of `source`, in both forms, to the first rows here.
    pub(crate) fn gather(&mut self, source: &Self, rows: impl Iterator<Item = usize>) {
        for (to, from) in rows.enumerate() {
            self.wide.row_mut(to).copy_from_slice(source.wide.row(from));
            match (&mut self.narrow, &source.narrow) {
                (NarrowRows::None, NarrowRows::None) => {}
                (NarrowRows::Bf16(here), NarrowRows::Bf16(there)) => {
                    here.row_mut(to).copy_from_slice(there.row(from));
                }
                (NarrowRows::Int8(here), NarrowRows::Int8(there)) => here.copy_row(to, there, from),
                _ => unreachable!("all activations of an engine have its precision"),
            }
        }
    }
}

impl NarrowRows {
    fn zeros(rows: usize, columns: usize, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::None,
            Precision::Bf16 => Self::Bf16(Matrix::zeros(rows, columns)),
            Precision::Int8 => Self::Int8(QuantisedMatrix::zeros(rows, columns)),
        }
    }
}

/// Queries, or keys and values, in the precision in which attention multiplies them.
#[derive(Debug)]
pub(crate) enum Factors {
    F32(Matrix<f32>),
    Bf16(Matrix<bf16>),
}

impl Factors {
    pub(crate) fn zeros(rows: usize, columns: usize, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(Matrix::zeros(rows, columns)),
            Precision::Bf16 | Precision::Int8 => Self::Bf16(Matrix::zeros(rows, columns)),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(rows) => rows.bytes(),
            Self::Bf16(rows) => rows.bytes(),
        }
    }

    /// The first `count` rows as a product writes them.
    pub(crate) fn output(&mut self, count: usize) -> Output<'_> {
        match self {
            Self::F32(rows) => Output::F32(rows.rows_mut(count)),
            Self::Bf16(rows) => Output::Bf16(rows.rows_mut(count)),
        }
    }

    /// `M` rows of queries, and `T` rows that hold keys and then values, `[T, 2 D]`.
    pub(crate) fn attention<'a>(
        queries: &'a Self,
        m: usize,
        keys_values: &'a Self,
        t: usize,
    ) -> AttentionInput<'a> {
        match (queries, keys_values) {
            (Self::F32(q), Self::F32(kv)) => {
                AttentionInput::F32(projections(q.rows(m), &kv.rows(t)))
            }
            (Self::Bf16(q), Self::Bf16(kv)) => {
                AttentionInput::Bf16(projections(q.rows(m), &kv.rows(t)))
            }
            _ => unreachable!("queries and keys of an engine have one precision"),
        }
    }
}

fn projections<'a, T>(queries: Rows<'a, T>, keys_values: &Rows<'a, T>) -> Projections<'a, T> {
    let d = queries.columns();
    Projections {
        queries,
        keys: keys_values.slice(0..d),
        values: keys_values.slice(d..2 * d),
    }
}
