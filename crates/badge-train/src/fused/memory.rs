//! All memory of a pass, kept from one to the next.

use badge_core::config::BackboneConfig;
use badge_kernels::threads::Pool;

use super::embeddings::SavedEmbeddings;
use super::layer::Saved;
use super::rows::Stream;
use super::scratch::Scratch;
use crate::step::PassSettings;

/// How large a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Tokens.
    pub(super) rows: usize,
    /// Rows of the last layer behind its keys and values.
    pub(super) last_queries: usize,
    /// Tokens of the longest sample.
    pub(super) longest: usize,
}

impl Extent {
    fn covers(self, other: Self) -> bool {
        self.rows >= other.rows
            && self.last_queries >= other.last_queries
            && self.longest >= other.longest
    }

    fn union(self, other: Self) -> Self {
        Self {
            rows: self.rows.max(other.rows),
            last_queries: self.last_queries.max(other.last_queries),
            longest: self.longest.max(other.longest),
        }
    }
}

/// What the layers of a pass read and write.
#[derive(Debug)]
pub(super) struct Memory {
    extent: Extent,
    pub(super) embeddings: SavedEmbeddings,
    /// The input of every layer and the output of the last.
    pub(super) streams: Vec<Stream>,
    /// One for every layer; with recomputation one for all.
    saved: Vec<Saved>,
    pub(super) scratch: Scratch,
}

/// The parts of [`Memory`] that one layer uses.
pub(super) struct LayerMemory<'a> {
    pub(super) input: &'a Stream,
    pub(super) saved: &'a mut Saved,
    pub(super) scratch: &'a mut Scratch,
    pub(super) output: &'a mut Stream,
}

impl Memory {
    /// Memory for a batch: what there is if it is enough, else more.
    pub(super) fn for_batch<'a>(
        memory: &'a mut Option<Self>,
        pool: &Pool,
        extent: Extent,
        (config, settings): (&BackboneConfig, PassSettings),
    ) -> &'a mut Self {
        let enough = |memory: &Self| memory.extent.covers(extent);
        if !memory.as_ref().is_some_and(enough) {
            let extent = memory.take().map_or(extent, |old| old.extent.union(extent));
            *memory = Some(Self::new(pool, extent, (config, settings)));
        }
        memory.as_mut().expect("made just now")
    }

    fn new(
        pool: &Pool,
        extent: Extent,
        (config, settings): (&BackboneConfig, PassSettings),
    ) -> Self {
        let PassSettings {
            precision,
            recompute,
        } = settings;
        let Extent {
            rows,
            last_queries,
            longest,
        } = extent;
        let layers = config.blocks * config.inner_layers;
        let rows_of = |layer| {
            if layer + 1 < layers {
                rows
            } else {
                last_queries
            }
        };
        let saved = |queries| Saved::new((rows, queries), config, precision);
        Self {
            extent,
            embeddings: SavedEmbeddings::new(rows, config, precision),
            streams: (0..=layers)
                .map(|layer| {
                    let rows = if layer < layers { rows } else { last_queries };
                    Stream::zeros(rows, config.hidden, precision)
                })
                .collect(),
            saved: if recompute {
                vec![saved(rows)]
            } else {
                (0..layers).map(|layer| saved(rows_of(layer))).collect()
            },
            scratch: Scratch::new(pool, (rows, longest), config, precision),
        }
    }

    /// What a layer uses.
    pub(super) fn layer(&mut self, layer: usize) -> LayerMemory<'_> {
        let (inputs, outputs) = self.streams.split_at_mut(layer + 1);
        let saved = layer.min(self.saved.len() - 1);
        LayerMemory {
            input: &inputs[layer],
            saved: &mut self.saved[saved],
            scratch: &mut self.scratch,
            output: &mut outputs[0],
        }
    }
}
