//! Word, position and segment embeddings, LayerNorm, and ALBERT's projection to the hidden size.

use std::ops::Range;

use badge_core::checkpoint::names;
use badge_core::config::Family;
use badge_kernels::activation::Activation;
use badge_kernels::embedding::{EmbeddingTables, Token, embedding_sum};
use badge_kernels::gemm::Output;
use badge_kernels::layer_norm::{LayerNorm, layer_norm};
use badge_kernels::matrix::Matrix;
use badge_kernels::threads::Pool;

use crate::activations::Activations;
use crate::error::Result;
use crate::packed::{Linear, Packer, norm_bytes};

/// Everything below the first block.
#[derive(Debug)]
pub(crate) struct Embeddings {
    words: Matrix<f32>,
    positions: Matrix<f32>,
    token_types: Matrix<f32>,
    norm: LayerNorm,
    /// ALBERT's `E -> D`.
    mapping: Option<Linear>,
}

/// Working memory.
#[derive(Debug)]
pub(crate) struct EmbeddingSpace {
    /// `[T, E]`
    pub(crate) sum: Matrix<f32>,
    /// ALBERT's normalised sums, `[T, E]`.
    pub(crate) normalised: Activations,
}

impl Embeddings {
    pub(crate) fn pack(packer: &mut Packer<'_>) -> Result<Self> {
        let config = &packer.config.backbone;
        let (family, e) = (config.family, config.embedding);
        Ok(Self {
            words: packer.table(&names::word_embeddings(family), config.vocabulary, e)?,
            positions: packer.table(&names::position_embeddings(family), config.positions, e)?,
            token_types: packer.table(
                &names::token_type_embeddings(family),
                config.token_types,
                e,
            )?,
            norm: packer.norm(&names::embeddings_norm(family), e)?,
            mapping: match family {
                Family::Albert => {
                    let shape = [config.hidden, e];
                    let precision = packer.precisions.edges;
                    Some(packer.linear(&names::embedding_mapping(), shape, precision)?)
                }
                Family::Bert | Family::ElasticBert => None,
            },
        })
    }

    /// Whether normalised sums are projected, and so need memory of their own.
    pub(crate) fn has_mapping(&self) -> bool {
        self.mapping.is_some()
    }

    /// Writes the first block's input of `tokens` to rows `range` of `hidden`.
    ///
    /// # Shapes
    /// `T` tokens to `[T, D]`.
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        tokens: &[Token],
        space: &mut EmbeddingSpace,
        (hidden, range): (&mut Activations, Range<usize>),
    ) {
        let EmbeddingSpace { sum, normalised } = space;
        let count = tokens.len();
        let tables = EmbeddingTables {
            words: self.words.rows(self.words.row_count()),
            positions: self.positions.rows(self.positions.row_count()),
            token_types: self.token_types.rows(self.token_types.row_count()),
        };
        embedding_sum(pool, &tables, tokens, sum.rows_mut(count)); // [T, E]
        let sum = sum.rows(count);
        match &self.mapping {
            None => layer_norm(pool, sum, None, &self.norm, hidden.norm_output(range)),
            Some(mapping) => {
                layer_norm(
                    pool,
                    sum,
                    None,
                    &self.norm,
                    normalised.norm_output(0..count),
                );
                let input = normalised.input(count);
                hidden.fill_wide(pool, range, |rows| {
                    mapping.forward(pool, input, Activation::Identity, Output::F32(rows));
                }); // [T, D]
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.words.bytes()
            + self.positions.bytes()
            + self.token_types.bytes()
            + norm_bytes(&self.norm)
            + self.mapping.as_ref().map_or(0, Linear::bytes)
    }
}
