//! Embeddings and blocks with a hand-written backward pass on the CPU's kernels.
//!
//! The autodiff framework computes the same blocks from its own operations
//! ([`model`](crate::model)); that is the reference and what other devices run. Here a batch is
//! packed, so that no padding is computed; a layer keeps what its backward pass cannot cheaply
//! compute again; weights that blocks share are packed once; and all memory is kept from pass to
//! pass. Heads stay with the framework: they read *taps*, leaves of their graph, and give back the
//! taps' gradients.
//!
//! Order of reading: `layer` (forward, then its `backward`), this file, which runs the layers,
//! `memory` and `rows` for where things lie.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use badge_core::checkpoint::names;
use badge_core::config::BackboneConfig;
use badge_kernels::threads::Pool;

use crate::error::{Error, Result};
use crate::framework::Tensor;
use crate::model::{BlockTaps, Junction, ModelInput, Tap};
use crate::ops::{DropoutStream, LayerIndex};
use crate::parameters::Parameters;
use crate::precision::Precision;
use crate::step::PassSettings;
use crate::threads;

mod embeddings;
mod layer;
mod masks;
mod memory;
mod packed_batch;
mod pass;
mod rows;
mod scratch;
mod taps;
mod weights;

pub(crate) use taps::TapGradients;

use embeddings::Embeddings;
use layer::{InnerGradients, Layer};
use memory::{Extent, LayerMemory, Memory};
use packed_batch::{PackedBatch, QueryRows};
use pass::Pass;
use taps::ExitGradients;
use weights::GradientsByName;

/// Embeddings and blocks of a model, with all that a pass over them needs.
#[derive(Debug)]
pub(crate) struct FusedBackbone {
    config: BackboneConfig,
    settings: PassSettings,
    pool: Arc<Pool>,
    embeddings: Embeddings,
    /// One for each set of weights.
    layers: Vec<Layer>,
    /// The set of weights of every layer.
    weights_of: Vec<usize>,
    memory: Option<Memory>,
    batch: PackedBatch,
    /// The masks of the pass under way.
    stream: Option<Rc<DropoutStream>>,
    /// What the last layer computes.
    last_rows: QueryRows,
}

impl FusedBackbone {
    /// The backbone of a model with these parameters.
    ///
    /// # Errors
    /// When bf16 cannot be computed for this model, or `BADGE_ISA` is wrong.
    pub(crate) fn new(
        parameters: &Parameters,
        config: &BackboneConfig,
        settings: PassSettings,
    ) -> Result<Self> {
        let precision = settings.precision;
        if precision == Precision::Bf16 && !config.head_size().is_multiple_of(2) {
            return Err(Error::Setting {
                setting: "--precision",
                problem: format!(
                    "bf16 wants an even head size, not {}; use f32",
                    config.head_size()
                ),
            });
        }
        let (mut layers, mut weights_of, mut sets) = (Vec::new(), Vec::new(), BTreeMap::new());
        for layer in 0..config.blocks * config.inner_layers {
            let index = layer_index(config, layer);
            // Layers that share one weight share all.
            let name = names::layer(config, index.block, index.inner)
                .query
                .weight();
            let set = *sets.entry(name).or_insert(layers.len());
            if set == layers.len() {
                layers.push(Layer::new(parameters, config, index, precision)?);
            }
            weights_of.push(set);
        }
        Ok(Self {
            config: config.clone(),
            settings,
            pool: threads::pool()?,
            embeddings: Embeddings::new(parameters, config, precision)?,
            layers,
            weights_of,
            memory: None,
            batch: PackedBatch::default(),
            stream: None,
            last_rows: QueryRows::All,
        })
    }

    /// Runs all blocks and gives the taps of those that `has_exit`, as leaves of a graph.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub(crate) fn forward(
        &mut self,
        parameters: &Parameters,
        (input, stream): (&ModelInput, Option<Rc<DropoutStream>>),
        (taps, has_exit): (&[Tap], impl Fn(usize) -> bool),
    ) -> Result<Vec<(usize, BlockTaps)>> {
        self.batch.fill(input)?;
        self.stream = stream;
        self.last_rows = if taps.contains(&Tap::Rows) {
            QueryRows::All
        } else {
            QueryRows::Cls
        };
        self.load(parameters)?;
        let extent = Extent {
            rows: self.batch.count(QueryRows::All),
            last_queries: self.batch.count(self.last_rows),
            longest: self.batch.longest(),
        };
        let how = (&self.config, self.settings);
        let memory = Memory::for_batch(&mut self.memory, &self.pool, extent, how);
        let passes = Passes {
            pool: &self.pool,
            batch: &self.batch,
            stream: self.stream.as_deref(),
            config: &self.config,
            last_rows: self.last_rows,
        };
        let first = &mut memory.streams[0];
        self.embeddings
            .forward(&passes.below(), parameters, &mut memory.embeddings, first)?;
        let inner_layers = self.config.inner_layers;
        let mut of_blocks = Vec::new();
        for (layer, set) in self.weights_of.iter().enumerate() {
            let pass = passes.at(layer);
            let LayerMemory {
                input,
                saved,
                scratch,
                output,
            } = memory.layer(layer);
            self.layers[*set].forward(&pass, input, (saved, scratch), output);
            let LayerIndex { block, inner } = pass.layer;
            if inner + 1 == inner_layers && has_exit(block) {
                let tap = |tap| memory.tap(tap, (layer, inner_layers), &pass);
                of_blocks.push((block, BlockTaps::collect(taps, tap)?));
            }
        }
        Ok(of_blocks)
    }

    /// Packs the parameters' present values.
    fn load(&mut self, parameters: &Parameters) -> Result<()> {
        self.embeddings.load(&self.pool, parameters)?;
        for layer in &mut self.layers {
            layer.load(&self.pool, parameters)?;
        }
        Ok(())
    }

    /// From the gradients of the last pass's taps, one entry per block, to those of all parameters
    /// that they depend on. Nothing is kept: the next call starts from zero.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    ///
    /// # Panics
    /// When there was no forward pass, or there are not as many entries as blocks.
    pub(crate) fn backward(
        &mut self,
        taps: &[TapGradients],
        junctions: &[Junction],
    ) -> Result<BTreeMap<String, Tensor>> {
        let blocks = self.config.blocks;
        assert!(taps.len() == blocks && junctions.len() == blocks);
        let mut reached = false;
        for block in (0..blocks).rev() {
            let junction = junctions[block];
            let exit = ExitGradients::new(&taps[block], junction.exit_and_onward)?;
            reached = self.scale_hidden(reached, junction);
            reached = self.block_backward(block, &exit, reached);
        }
        let (passes, memory, embeddings, layers) = self.split();
        if reached {
            let gradients = &mut memory.scratch.gradients;
            embeddings.backward(&passes.below(), &mut memory.embeddings, gradients);
        }
        let mut gradients = GradientsByName::new();
        embeddings.take(&mut gradients)?;
        for layer in layers {
            layer.take(&mut gradients)?;
        }
        Ok(gradients)
    }

    /// What a pass reads, and what it changes.
    fn split(&mut self) -> (Passes<'_>, &mut Memory, &mut Embeddings, &mut [Layer]) {
        let passes = Passes {
            pool: &self.pool,
            batch: &self.batch,
            stream: self.stream.as_deref(),
            config: &self.config,
            last_rows: self.last_rows,
        };
        let memory = self.memory.as_mut().expect("a forward pass came before");
        (passes, memory, &mut self.embeddings, &mut self.layers)
    }

    /// The gradient that comes back from the block behind a junction, times the junction's factor;
    /// whether one is left.
    fn scale_hidden(&mut self, reached: bool, junction: Junction) -> bool {
        let factor = junction.exit_and_onward * junction.onward;
        let (passes, memory, ..) = self.split();
        if reached && factor != 0.0 && factor != 1.0 {
            let hidden = &mut memory.scratch.gradients.hidden;
            for row in 0..passes.batch.count(QueryRows::All) {
                let row = hidden.row_mut(row).iter_mut();
                row.for_each(|gradient| *gradient *= factor as f32);
            }
        }
        reached && factor != 0.0
    }

    /// From the gradient of a block's output, if it is `reached` by any, and of its taps to that of
    /// its input; whether this one is reached.
    fn block_backward(&mut self, block: usize, exit: &ExitGradients, reached: bool) -> bool {
        let mut reached = reached;
        let inner_layers = self.config.inner_layers;
        let (first, last) = (block * inner_layers, (block + 1) * inner_layers - 1);
        let sets = self.weights_of[first..=last].to_vec();
        let recompute = self.settings.recompute;
        let (passes, memory, _, layers) = self.split();
        let none = InnerGradients::default();
        reached |= memory.add_to_hidden(&passes.at(last), reached, (&exit.hidden, &exit.rows));
        for layer in (first..=last).rev() {
            let set = sets[layer - first];
            let inner = if layer == last { &exit.inner } else { &none };
            if reached || !inner.is_empty() {
                let pass = passes.at(layer);
                let LayerMemory {
                    input,
                    saved,
                    scratch,
                    output,
                } = memory.layer(layer);
                if recompute {
                    layers[set].forward(&pass, input, (saved, scratch), output);
                }
                let gradients = (reached, inner);
                layers[set].backward(&pass, input, (saved, scratch), gradients);
                reached = true;
            }
            if layer == last {
                let tap = (&exit.layer_input, &None);
                reached |= memory.add_to_hidden(&passes.below(), reached, tap);
            }
        }
        reached | memory.add_to_hidden(&passes.below(), reached, (&exit.input, &None))
    }
}

/// What all layers of a pass share.
#[derive(Clone, Copy)]
struct Passes<'a> {
    pool: &'a Pool,
    batch: &'a PackedBatch,
    stream: Option<&'a DropoutStream>,
    config: &'a BackboneConfig,
    last_rows: QueryRows,
}

impl<'a> Passes<'a> {
    /// The pass of a layer, counted over all blocks.
    fn at(&self, layer: usize) -> Pass<'a> {
        let last = self.config.blocks * self.config.inner_layers - 1;
        Pass {
            pool: self.pool,
            batch: self.batch,
            stream: self.stream,
            layer: layer_index(self.config, layer),
            query_rows: if layer == last {
                self.last_rows
            } else {
                QueryRows::All
            },
        }
    }

    /// The pass below the first layer, and between layers.
    fn below(&self) -> Pass<'a> {
        Pass {
            query_rows: QueryRows::All,
            ..self.at(0)
        }
    }
}

/// The place of a layer that is counted over all blocks.
fn layer_index(config: &BackboneConfig, layer: usize) -> LayerIndex {
    LayerIndex {
        block: layer / config.inner_layers,
        inner: layer % config.inner_layers,
    }
}
