//! All scratch memory, sized once.

use std::ops::Range;

use badge_core::config::ModelConfig;
use badge_core::exit::Depth;
use badge_kernels::attention::{AttentionScratch, AttentionShape};
use badge_kernels::bf16;
use badge_kernels::embedding::Token;
use badge_kernels::gemm::{Input, Precision};
use badge_kernels::layer_norm::{Narrow, NormOutput};
use badge_kernels::matrix::Matrix;

use crate::activations::{Activations, Factors};
use crate::model::embeddings::EmbeddingSpace;
use crate::options::EngineOptions;
use crate::packed::{Next, PackedModel, Precisions};
use crate::schedule::{EXITS_TOGETHER, Selection};
use crate::sequence::Sequence;

/// All memory that steps write to, and nothing that one sequence owns.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// What admitted sequences look up, until the next step.
    pub(crate) pending: Vec<Token>,
    pub(crate) embeddings: EmbeddingSpace,
    /// `H_m` of all live sequences, one after the other: `[T, D]`.
    pub(crate) hidden: Activations,
    /// The rows of a pass that does not start at row 0 of `hidden`, which products cannot read
    /// where they lie; without rows where one pass serves all.
    pub(crate) staged: Activations,
    pub(crate) layer: LayerSpace,
    pub(crate) exits: ExitSpace,
    /// The rows that the layer computes.
    pub(crate) selection: Selection,
    /// Those of its rows that go on to the next block.
    pub(crate) survivors: Vec<u32>,
}

/// Memory of one transformer layer.
#[derive(Debug)]
pub(crate) struct LayerSpace {
    /// Copies of the selected rows of `x`, where not all are selected: `[M, D]`.
    pub(crate) gathered: Activations,
    pub(crate) products: ProductSpace,
}

/// What a layer's operations write.
#[derive(Debug)]
pub(crate) struct ProductSpace {
    /// `[M, D]`
    pub(crate) queries: Factors,
    /// `[T, 2 D]`
    pub(crate) keys_values: Factors,
    pub(crate) scratch: AttentionScratch,
    /// `[M, D]`
    pub(crate) context: Activations,
    /// `[M, D]`
    pub(crate) attended: Activations,
    /// `[M, F]`
    pub(crate) inner: Activations,
    /// Before each of the two layer norms: `[M, D]`.
    pub(crate) sum: Matrix<f32>,
    /// What is multiplied after the block: the weights of its exit, if that is wanted.
    pub(crate) next: Next,
}

/// Memory of the exits: one row an exit that is asked for.
#[derive(Debug)]
pub(crate) struct ExitSpace {
    /// Who asks: those of earlier blocks that have waited, then those of this one by descending depth.
    pub(crate) entries: Vec<Entry>,
    /// How many have waited: their rows of `inputs` and `sums` are there already.
    pub(crate) waited: usize,
    /// \[CLS\] of the block's input, `[B, D]`.
    pub(crate) inputs: Matrix<f32>,
    /// \[CLS\] of the feed-forward sum, `[B, D]`.
    pub(crate) sums: Matrix<f32>,
    /// Inside the bypass, `[B, r]`.
    pub(crate) narrow: Matrix<f32>,
    /// `sums` with the bypass added, `[B, D]`.
    pub(crate) adjusted: Matrix<f32>,
    /// `[B, D]`
    pub(crate) features: Features,
    /// `[B, D]`
    pub(crate) pooled: Matrix<f32>,
    /// `[B, C]`
    pub(crate) logits: Matrix<f32>,
    /// The learning-to-exit head's logits, `[B, 1]`; without columns where there is none.
    pub(crate) continue_logits: Matrix<f32>,
}

/// An exit of a sequence that is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its index within the pass.
    pub(crate) sequence: usize,
    pub(crate) depth: Depth,
    /// Its \[CLS\] row among the rows that the layer computed.
    pub(crate) row: usize,
}

/// What poolers and classifiers read.
#[derive(Debug)]
pub(crate) struct Features {
    pub(crate) wide: Matrix<f32>,
    /// The same for poolers in bf16.
    rounded: Option<Matrix<bf16>>,
}

impl Workspace {
    pub(crate) fn new(
        config: &ModelConfig,
        model: &PackedModel,
        options: &EngineOptions,
        precisions: Precisions,
    ) -> Self {
        let backbone = &config.backbone;
        let (t, d) = (options.tokens_max, backbone.hidden);
        let rows = |count, columns| Activations::zeros(count, columns, precisions.blocks);
        let mapped = if model.embeddings.has_mapping() { t } else { 0 };
        let staged = if model.shares_one_block() { 0 } else { t };
        Self {
            pending: Vec::with_capacity(t),
            embeddings: EmbeddingSpace {
                sum: Matrix::zeros(t, backbone.embedding),
                normalised: Activations::zeros(mapped, backbone.embedding, precisions.edges),
            },
            hidden: rows(t, d),
            staged: rows(staged, d),
            layer: LayerSpace {
                gathered: rows(t, d),
                products: ProductSpace::new(config, options, precisions),
            },
            exits: ExitSpace::new(
                config,
                options.sequences_max + EXITS_TOGETHER,
                precisions.edges,
            ),
            selection: Selection::with_room(options.sequences_max),
            survivors: Vec::with_capacity(t),
        }
    }

    /// Memory held by matrices, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let products = &self.layer.products;
        let activations = [
            &self.embeddings.normalised,
            &self.hidden,
            &self.staged,
            &self.layer.gathered,
            &products.context,
            &products.attended,
            &products.inner,
        ];
        activations
            .into_iter()
            .map(Activations::bytes)
            .sum::<usize>()
            + products.queries.bytes()
            + products.keys_values.bytes()
            + products.sum.bytes()
            + products.scratch.bytes()
            + self.embeddings.sum.bytes()
            + self.exits.bytes()
    }
}

impl ProductSpace {
    fn new(config: &ModelConfig, options: &EngineOptions, precisions: Precisions) -> Self {
        let backbone = &config.backbone;
        let (t, d) = (options.tokens_max, backbone.hidden);
        let shape = AttentionShape {
            heads: backbone.heads,
            head_size: backbone.head_size(),
        };
        Self {
            queries: Factors::zeros(t, d, precisions.attention),
            keys_values: Factors::zeros(t, 2 * d, precisions.attention),
            scratch: AttentionScratch::new(options.threads, t.min(backbone.positions), &shape),
            context: Activations::for_product(t, d, precisions.blocks),
            attended: Activations::zeros(t, d, precisions.blocks),
            inner: Activations::for_product(t, backbone.intermediate, precisions.blocks),
            sum: Matrix::zeros(t, d),
            next: Next::default(),
        }
    }
}

impl ExitSpace {
    fn new(config: &ModelConfig, entries_max: usize, pooler: Precision) -> Self {
        let d = config.backbone.hidden;
        let rank = config.exits().bypass.map_or(0, |bypass| bypass.rank);
        let rows = |columns| Matrix::zeros(entries_max, columns);
        Self {
            entries: Vec::with_capacity(entries_max),
            waited: 0,
            inputs: rows(d),
            sums: rows(d),
            narrow: rows(rank),
            adjusted: rows(d),
            features: Features {
                wide: rows(d),
                rounded: (pooler == Precision::Bf16).then(|| Matrix::zeros(entries_max, d)),
            },
            pooled: rows(d),
            logits: rows(config.head.outputs()),
            continue_logits: rows(usize::from(config.exits().lte)),
        }
    }

    /// Lists the sequences of a pass whose next exit is wanted, and keeps the \[CLS\] rows of the
    /// block's input for them, behind the exits that wait.
    pub(crate) fn enter(&mut self, pass: &[Sequence], hidden: &Activations) {
        self.waited = self.entries.len();
        for (sequence, alive) in pass.iter().enumerate().filter(|(_, s)| s.needs_next_exit()) {
            let input = self.inputs.row_mut(self.entries.len());
            input.copy_from_slice(hidden.wide_row(alive.rows.start));
            self.entries.push(Entry {
                sequence,
                depth: alive.next_depth(),
                row: 0,
            });
        }
    }

    /// The exits of this block.
    pub(crate) fn entered(&mut self) -> &mut [Entry] {
        &mut self.entries[self.waited..]
    }

    /// Keeps the \[CLS\] rows of the feed-forward sum for the exits of this block.
    pub(crate) fn take_sums(&mut self, sum: &Matrix<f32>) {
        for (index, entry) in self.entries.iter().enumerate().skip(self.waited) {
            self.sums.row_mut(index).copy_from_slice(sum.row(entry.row));
        }
    }

    fn bytes(&self) -> usize {
        let rounded = self.features.rounded.as_ref().map_or(0, Matrix::bytes);
        let wide = [
            &self.inputs,
            &self.sums,
            &self.narrow,
            &self.adjusted,
            &self.features.wide,
            &self.pooled,
            &self.logits,
            &self.continue_logits,
        ];
        rounded + wide.into_iter().map(Matrix::bytes).sum::<usize>()
    }
}

impl Features {
    /// Rows `range` as a layer norm writes them.
    pub(crate) fn norm_output(&mut self, range: Range<usize>) -> NormOutput<'_> {
        NormOutput {
            f32: self.wide.rows_in_mut(range.clone()),
            narrow: match &mut self.rounded {
                None => Narrow::None,
                Some(rounded) => Narrow::Bf16(rounded.rows_in_mut(range)),
            },
        }
    }

    /// Rows `range` as a pooler reads them.
    pub(crate) fn input(&self, range: Range<usize>) -> Input<'_> {
        match &self.rounded {
            None => Input::F32(self.wide.rows_in(range)),
            Some(rounded) => Input::Bf16(rounded.rows_in(range)),
        }
    }
}
