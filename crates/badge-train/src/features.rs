//! The features of a frozen backbone, computed once: stages that train heads alone read them
//! instead of running the blocks again at every step.

use std::collections::BTreeMap;

use crate::data::EncodedSplit;
use crate::error::Result;
use crate::evaluate::EVALUATION_BATCH;
use crate::framework::Tensor;
use crate::model::{BlockTaps, HeadPass, Mode, ModelInput, MultiExitModel, Tap};
use crate::step::Backpropagation;

/// Features larger than this are computed anew for every batch.
const BYTES_MAX: usize = 4 << 30;

/// What the heads read of every row of a split.
#[derive(Debug)]
pub enum Features {
    /// \[CLS\] rows in memory.
    Stored(Store),
    /// Nothing: there is no room, or an exit reads all rows of its block.
    Recomputed,
}

/// `[N, D]` of every block that carries an exit and every tap.
#[derive(Debug)]
pub struct Store {
    tables: BTreeMap<(usize, Tap), Vec<f32>>,
    width: usize,
}

impl Features {
    /// Runs the backbone over a split, if what the heads read of it can be kept.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn of(backpropagation: &mut Backpropagation, split: &EncodedSplit) -> Result<Self> {
        let model = backpropagation.model();
        let (taps, exits) = (model.heads().taps(), model.config().exits().exits.count());
        let width = model.config().backbone.hidden;
        let bytes = taps.len() * exits * split.len() * width * size_of::<f32>();
        if taps.contains(&Tap::Rows) || bytes > BYTES_MAX {
            return Ok(Self::Recomputed);
        }
        let mut store = Store {
            tables: BTreeMap::new(),
            width,
        };
        for rows in split.evaluation_batches(EVALUATION_BATCH) {
            let input = ModelInput::of_batch(&split.batch(&rows), model.device())?;
            for (block, taps) in backpropagation.constant_taps(&input)? {
                for (tap, values) in taps.iter() {
                    let table = store.tables.entry((block, tap));
                    let table = table.or_insert_with(|| vec![0.0; split.len() * width]);
                    let values = values.flatten_all()?.to_vec1::<f32>()?;
                    for (row, values) in rows.iter().zip(values.chunks_exact(width)) {
                        table[row * width..][..width].copy_from_slice(values);
                    }
                }
            }
        }
        Ok(Self::Stored(store))
    }

    /// The taps of some rows, and a pass of the heads over them.
    pub(crate) fn batch(
        &self,
        backpropagation: &mut Backpropagation,
        (split, rows): (&EncodedSplit, &[usize]),
        mode: Mode,
    ) -> Result<(Vec<(usize, BlockTaps)>, HeadPass)> {
        let model = backpropagation.model();
        match self {
            Self::Stored(store) => {
                let lengths = rows.iter().map(|row| split.lengths()[*row]).collect();
                let pass = HeadPass::new(lengths, mode.stream());
                Ok((store.batch(model, rows)?, pass))
            }
            Self::Recomputed => {
                let input = ModelInput::of_batch(&split.batch(rows), model.device())?;
                let pass = HeadPass::new(input.lengths.clone(), mode.stream());
                Ok((backpropagation.constant_taps(&input)?, pass))
            }
        }
    }
}

impl Store {
    fn batch(&self, model: &MultiExitModel, rows: &[usize]) -> Result<Vec<(usize, BlockTaps)>> {
        let width = self.width;
        let blocks = model.config().exits().exits;
        let blocks = blocks.depths().iter().map(|depth| depth.index().0);
        blocks
            .map(|block| {
                let taps = BlockTaps::collect(model.heads().taps(), |tap| {
                    let table = &self.tables[&(block, tap)];
                    let values = rows
                        .iter()
                        .flat_map(|row| &table[row * width..][..width])
                        .copied();
                    let shape = (rows.len(), width);
                    Tensor::from_vec(values.collect(), shape, model.device())
                })?;
                Ok((block, taps))
            })
            .collect()
    }
}
