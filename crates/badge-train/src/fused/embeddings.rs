//! Everything below the first block, both ways.

use badge_core::checkpoint::names;
use badge_core::config::{BackboneConfig, Family};
use badge_kernels::embedding::{EmbeddingTables, embedding_sum};
use badge_kernels::gemm::Output;
use badge_kernels::matrix::{Matrix, Rows};
use badge_kernels::threads::Pool;
use badge_kernels::training::dropout::dropout_in_place;
use badge_kernels::training::embedding::{EmbeddingGradients, embedding_backward};
use badge_kernels::training::layer_norm::{NormInput, NormStatistics};

use super::Precision;
use super::masks::Mask;
use super::pass::Pass;
use super::rows::Stream;
use super::scratch::Gradients;
use super::weights::{Gradient, GradientsByName, Linear, Norm};
use crate::framework::Result;
use crate::ops::{DropoutSite, with_values};
use crate::parameters::Parameters;

/// The tables, their LayerNorm and ALBERT's projection, with their gradients.
#[derive(Debug)]
pub(super) struct Embeddings {
    words: Gradient,
    positions: Gradient,
    token_types: Gradient,
    norm: Norm,
    /// ALBERT's `E -> D`.
    mapping: Option<Linear>,
    dropout: f64,
}

/// What backward needs, and room for it.
#[derive(Debug)]
pub(super) struct SavedEmbeddings {
    /// The sum of the three tables' rows.
    sum: Matrix<f32>,
    statistics: NormStatistics,
    mask: Mask,
    /// What ALBERT projects.
    normalised: Option<Stream>,
    /// The gradient of what the LayerNorm gives, where the projection makes it.
    gradient: Option<Matrix<f32>>,
    /// The gradient of the sum.
    of_sum: Matrix<f32>,
}

impl SavedEmbeddings {
    /// Room for `rows` tokens.
    pub(super) fn new(rows: usize, config: &BackboneConfig, precision: Precision) -> Self {
        let e = config.embedding;
        let is_albert = config.family == Family::Albert;
        Self {
            sum: Matrix::zeros(rows, e),
            statistics: NormStatistics::new(rows),
            mask: Mask::default(),
            normalised: is_albert.then(|| Stream::zeros(rows, e, precision)),
            gradient: is_albert.then(|| Matrix::zeros(rows, e)),
            of_sum: Matrix::zeros(rows, e),
        }
    }
}

impl Embeddings {
    pub(super) fn new(
        parameters: &Parameters,
        config: &BackboneConfig,
        precision: Precision,
    ) -> Result<Self> {
        let family = config.family;
        let table = |name| Gradient::new(parameters, name);
        let mapping = (family == Family::Albert)
            .then(|| Linear::new(parameters, &names::embedding_mapping(), precision));
        Ok(Self {
            words: table(names::word_embeddings(family)),
            positions: table(names::position_embeddings(family)),
            token_types: table(names::token_type_embeddings(family)),
            norm: Norm::new(
                parameters,
                &names::embeddings_norm(family),
                config.layer_norm_eps,
            ),
            mapping: mapping.transpose()?,
            dropout: config.hidden_dropout,
        })
    }

    /// Takes over the parameters' present values; the tables are read where they lie.
    pub(super) fn load(&mut self, pool: &Pool, parameters: &Parameters) -> Result<()> {
        self.norm.load(parameters)?;
        match &mut self.mapping {
            Some(mapping) => mapping.load(pool, parameters),
            None => Ok(()),
        }
    }

    /// Gives all gradients away.
    pub(super) fn take(&mut self, gradients: &mut GradientsByName) -> Result<()> {
        self.words.take(gradients)?;
        self.positions.take(gradients)?;
        self.token_types.take(gradients)?;
        self.norm.take(gradients)?;
        match &mut self.mapping {
            Some(mapping) => mapping.take(gradients),
            None => Ok(()),
        }
    }

    /// From tokens to the first block's input.
    pub(super) fn forward(
        &self,
        pass: &Pass<'_>,
        parameters: &Parameters,
        saved: &mut SavedEmbeddings,
        out: &mut Stream,
    ) -> Result<()> {
        let (pool, rows) = (pass.pool, pass.rows());
        self.look_up(pass, parameters, &mut saved.sum)?;
        let columns = saved.sum.columns();
        let site = (DropoutSite::Embeddings, self.dropout);
        saved.mask.draw_rows(pass, site, columns);
        let normalised = saved.normalised.as_mut().unwrap_or(out);
        let input = NormInput {
            x: saved.sum.rows(rows),
            dropout: None,
            residual: None,
        };
        let norm = normalised.norm_output(rows, None, &mut saved.statistics);
        self.norm.forward(pool, input, norm);
        if let Some(mask) = saved.mask.get() {
            dropout_in_place(pool, normalised.wide.rows_mut(rows), mask);
            normalised.narrow(rows);
        }
        if let (Some(mapping), Some(normalised)) = (&self.mapping, &saved.normalised) {
            let product = Output::F32(out.wide.rows_mut(rows));
            mapping.forward(pool, normalised.input(rows), product);
            out.narrow(rows);
        }
        Ok(())
    }

    fn look_up(
        &self,
        pass: &Pass<'_>,
        parameters: &Parameters,
        sum: &mut Matrix<f32>,
    ) -> Result<()> {
        let table = |gradient: &Gradient| parameters.tensor(gradient.name());
        let columns = sum.columns();
        with_values(&table(&self.words), |words| {
            with_values(&table(&self.positions), |positions| {
                with_values(&table(&self.token_types), |token_types| {
                    let tables = EmbeddingTables {
                        words: Rows::side_by_side(words, columns),
                        positions: Rows::side_by_side(positions, columns),
                        token_types: Rows::side_by_side(token_types, columns),
                    };
                    let tokens = &pass.batch.tokens;
                    embedding_sum(pass.pool, &tables, tokens, sum.rows_mut(tokens.len()));
                })
            })
        })??
    }

    /// From the gradient of the first block's input, in `gradients`, to those of the tables.
    pub(super) fn backward(
        &mut self,
        pass: &Pass<'_>,
        saved: &mut SavedEmbeddings,
        gradients: &mut Gradients,
    ) {
        let (pool, rows) = (pass.pool, pass.rows());
        let projected = (&mut self.mapping, &saved.normalised, &mut saved.gradient);
        let gradient = if let (Some(mapping), Some(normalised), Some(gradient)) = projected {
            let Gradients {
                hidden,
                branch,
                products,
                ..
            } = gradients;
            (0..rows).for_each(|row| branch.set_row(row, hidden.row(row).iter().copied()));
            let factors = (branch.factor(rows), normalised.factor(rows));
            mapping.accumulate(pool, factors, products);
            let out = Output::F32(gradient.rows_mut(rows));
            mapping.backward(pool, branch.input(rows), None, out);
            gradient
        } else {
            &mut gradients.hidden
        };
        if let Some(mask) = saved.mask.get() {
            dropout_in_place(pool, gradient.rows_mut(rows), mask);
        }
        let input = (gradient.rows(rows), saved.sum.rows(rows), &saved.statistics);
        let out = (saved.of_sum.rows_mut(rows), None);
        self.norm.backward(pool, input, &mut gradients.norm, out);
        let tables = EmbeddingGradients {
            words: self.words.values(),
            positions: self.positions.values(),
            token_types: self.token_types.values(),
        };
        embedding_backward(pool, &pass.batch.tokens, saved.of_sum.rows(rows), tables);
    }
}
