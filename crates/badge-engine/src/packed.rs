//! All weights of a model, packed once: blocks that share weights share them here too.

use badge_core::activation::Activation as Named;
use badge_core::checkpoint::names::{self, ModuleName};
use badge_core::config::{Family, ModelConfig};
use badge_core::exit::Pooler;
use badge_kernels::activation::Activation;
use badge_kernels::gemm::{Epilogue, Input, Output, PackedMatrix, Precision, Upcoming, gemm};
use badge_kernels::layer_norm::LayerNorm;
use badge_kernels::matrix::{Matrix, Rows, RowsMut};
use badge_kernels::narrow::narrow_product;
use badge_kernels::threads::Pool;

use crate::error::Result;
use crate::model::block::Block;
use crate::model::embeddings::Embeddings;
use crate::model::exit::Exit;
use crate::source::Source;

/// Backbone, exits and what they share.
#[derive(Debug)]
pub(crate) struct PackedModel {
    pub(crate) embeddings: Embeddings,
    /// The distinct blocks.
    pub(crate) blocks: Vec<Block>,
    /// For each depth, from 0, which of the distinct blocks runs.
    pub(crate) block_of: Vec<usize>,
    /// The pooler that all exits share.
    pub(crate) pooler: Option<Linear>,
    /// One entry a depth, from 0; `None` where the plan has no exit.
    pub(crate) exits: Vec<Option<Exit>>,
    /// The learning-to-exit head that all exits share.
    pub(crate) learning_to_exit: Option<NarrowLinear>,
}

/// `y = g(x Wᵀ + b) + r`, with `W: [outputs, inputs]`.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: PackedMatrix,
    bias: Option<Vec<f32>>,
}

/// `y = g(x Wᵀ + b)` in f32 with few outputs, which lie unpacked.
#[derive(Debug)]
pub(crate) struct NarrowLinear {
    weights: Matrix<f32>,
    bias: Option<Vec<f32>>,
}

/// Weights that the operations after a product read: those of an exit, at most.
pub(crate) type Next = [Upcoming; 4];

/// Takes tensors from a source and packs them.
pub(crate) struct Packer<'a> {
    pub(crate) source: &'a mut dyn Source,
    pub(crate) config: &'a ModelConfig,
    pub(crate) precisions: Precisions,
}

/// What each part of a model is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Precisions {
    /// The products of the blocks.
    pub(crate) blocks: Precision,
    /// Queries, keys and values.
    pub(crate) attention: Precision,
    /// ALBERT's mapping of embeddings and the poolers: a few rows of small products, whose rounding
    /// reaches every answer.
    pub(crate) edges: Precision,
    /// Bypasses and classifiers.
    pub(crate) exits: Precision,
}

impl Precisions {
    pub(crate) fn of(blocks: Precision, config: &ModelConfig) -> Self {
        let edges = match blocks {
            Precision::F32 => Precision::F32,
            Precision::Bf16 | Precision::Int8 => Precision::Bf16,
        };
        // Pairs of bf16 do not fit an odd head size, which no model of practical size has.
        let pairs = config.backbone.head_size().is_multiple_of(2);
        Self {
            blocks,
            attention: if pairs { edges } else { Precision::F32 },
            edges,
            exits: Precision::F32,
        }
    }
}

impl PackedModel {
    pub(crate) fn pack(packer: &mut Packer<'_>) -> Result<Self> {
        let config = packer.config;
        let backbone = &config.backbone;
        let exits = config.exits();
        let embeddings = Embeddings::pack(packer)?;
        let block_of: Vec<_> = (0..backbone.blocks)
            .map(|block| match backbone.family {
                Family::Albert => backbone.group_of(block),
                Family::Bert | Family::ElasticBert => block,
            })
            .collect();
        let mut blocks = Vec::new();
        for (block, distinct) in block_of.iter().enumerate() {
            // Groups ascend with depth: a new one brings new weights.
            if *distinct == blocks.len() {
                blocks.push(Block::pack(packer, block)?);
            }
        }
        let pooler = match exits.pooler {
            Pooler::Shared => Some(packer.pooler(&names::backbone_pooler(backbone.family))?),
            Pooler::Own | Pooler::None => None,
        };
        let mut packed = Vec::with_capacity(backbone.blocks);
        for block in 0..backbone.blocks {
            let has = exits.exits.has(block);
            packed.push(if has {
                Some(Exit::pack(packer, &exits, block)?)
            } else {
                None
            });
        }
        let learning_to_exit = exits.lte.then(|| {
            let shape = [1, backbone.hidden];
            packer.narrow_linear(&names::learning_to_exit(), shape, true)
        });
        Ok(Self {
            embeddings,
            blocks,
            block_of,
            pooler,
            exits: packed,
            learning_to_exit: learning_to_exit.transpose()?,
        })
    }

    /// Memory of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.embeddings.bytes()
            + self.blocks.iter().map(Block::bytes).sum::<usize>()
            + self.pooler.as_ref().map_or(0, Linear::bytes)
            + self.exits.iter().flatten().map(Exit::bytes).sum::<usize>()
            + self
                .learning_to_exit
                .as_ref()
                .map_or(0, NarrowLinear::bytes)
    }

    /// Whether all depths run the same weights, so that one pass serves sequences of any depth.
    pub(crate) fn shares_one_block(&self) -> bool {
        self.blocks.len() == 1
    }
}

impl Packer<'_> {
    /// A linear layer with bias.
    pub(crate) fn linear(
        &mut self,
        name: &ModuleName,
        [outputs, inputs]: [usize; 2],
        precision: Precision,
    ) -> Result<Linear> {
        let mut linear = self.linear_without_bias(name, [outputs, inputs], precision)?;
        linear.bias = Some(self.vector(&name.bias(), outputs)?);
        Ok(linear)
    }

    /// A linear layer without bias.
    pub(crate) fn linear_without_bias(
        &mut self,
        name: &ModuleName,
        [outputs, inputs]: [usize; 2],
        precision: Precision,
    ) -> Result<Linear> {
        let values = self.source.take(&name.weight(), &[outputs, inputs])?;
        Ok(Linear {
            weights: PackedMatrix::pack(&values, outputs, inputs, precision),
            bias: None,
        })
    }

    /// A linear layer of few outputs.
    pub(crate) fn narrow_linear(
        &mut self,
        name: &ModuleName,
        shape: [usize; 2],
        has_bias: bool,
    ) -> Result<NarrowLinear> {
        let values = self.source.take(&name.weight(), &shape)?;
        let weights = Matrix::from_rows(&values, shape[1]);
        let bias = has_bias.then(|| self.vector(&name.bias(), shape[0]));
        Ok(NarrowLinear {
            weights,
            bias: bias.transpose()?,
        })
    }

    /// Linear layers of the same input as one whose outputs lie side by side.
    pub(crate) fn side_by_side(
        &mut self,
        layers: &[&ModuleName],
        [outputs, inputs]: [usize; 2],
        precision: Precision,
    ) -> Result<Linear> {
        let mut weights = Vec::with_capacity(layers.len() * outputs * inputs);
        let mut bias = Vec::with_capacity(layers.len() * outputs);
        for name in layers {
            weights.extend_from_slice(&self.source.take(&name.weight(), &[outputs, inputs])?);
            bias.extend_from_slice(&self.source.take(&name.bias(), &[outputs])?);
        }
        let outputs = layers.len() * outputs;
        Ok(Linear {
            weights: PackedMatrix::pack(&weights, outputs, inputs, precision),
            bias: Some(bias),
        })
    }

    pub(crate) fn pooler(&mut self, name: &ModuleName) -> Result<Linear> {
        let d = self.config.backbone.hidden;
        self.linear(name, [d, d], self.precisions.edges)
    }

    pub(crate) fn norm(&mut self, name: &ModuleName, columns: usize) -> Result<LayerNorm> {
        let weight = self.vector(&name.weight(), columns)?;
        let bias = self.vector(&name.bias(), columns)?;
        let eps = self.config.backbone.layer_norm_eps as f32;
        Ok(LayerNorm::new(weight, bias, eps))
    }

    pub(crate) fn table(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix<f32>> {
        let values = self.source.take(name, &[rows, columns])?;
        Ok(Matrix::from_rows(&values, columns))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        Ok(self.source.take(name, &[length])?.into_owned())
    }
}

impl Linear {
    /// # Shapes
    /// `[M, inputs] -> [M, outputs]`
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        input: Input<'_>,
        activation: Activation,
        output: Output<'_>,
    ) {
        let epilogue = Epilogue {
            bias: self.bias.as_deref(),
            activation,
            ..Epilogue::NONE
        };
        gemm(pool, input, &self.weights, &epilogue, output);
    }

    /// The same without activation and with a residual sum; `next` is multiplied afterwards.
    ///
    /// # Shapes
    /// `[M, inputs]` and residual `[M, outputs]` to `[M, outputs]`.
    pub(crate) fn forward_and_add(
        &self,
        pool: &Pool,
        input: Input<'_>,
        (residual, next): (Rows<'_, f32>, &[Upcoming]),
        output: Output<'_>,
    ) {
        let epilogue = Epilogue {
            bias: self.bias.as_deref(),
            activation: Activation::Identity,
            residual: Some(residual),
            next,
        };
        gemm(pool, input, &self.weights, &epilogue, output);
    }

    /// Where the weights lie.
    pub(crate) fn upcoming(&self) -> Upcoming {
        Upcoming::from(&self.weights)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.as_deref().map_or(0, size_of_val)
    }
}

impl NarrowLinear {
    /// # Shapes
    /// `[M, inputs] -> [M, outputs]`
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        input: Rows<'_, f32>,
        activation: Activation,
        output: RowsMut<'_, f32>,
    ) {
        narrow_product(
            pool,
            input,
            &self.weights,
            (self.bias.as_deref(), activation),
            output,
        );
    }

    /// Where the weights lie.
    pub(crate) fn upcoming(&self) -> Upcoming {
        Upcoming::from(&self.weights)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.as_deref().map_or(0, size_of_val)
    }
}

/// Memory of a layer norm's weights.
pub(crate) fn norm_bytes(norm: &LayerNorm) -> usize {
    2 * norm.columns() * size_of::<f32>()
}

/// The kernels' function of this name.
pub fn activation(named: Named) -> Activation {
    match named {
        Named::Gelu => Activation::Gelu,
        Named::GeluTanh => Activation::GeluTanh,
        Named::QuickGelu => Activation::QuickGelu,
        Named::Relu => Activation::Relu,
        Named::LeakyRelu => Activation::LeakyRelu,
        Named::Swish => Activation::Swish,
        Named::Mish => Activation::Mish,
        Named::Tanh => Activation::Tanh,
        Named::Sigmoid => Activation::Sigmoid,
        Named::Identity => Activation::Identity,
    }
}
