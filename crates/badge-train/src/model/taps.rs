//! Taps: what a block offers its exit, the border between the blocks and the heads.
//!
//! Exits read nothing else. Whoever computes the blocks, the graph of the autodiff framework, a
//! hand-written pass or a store of features, hands over the taps that the heads ask for; whoever
//! computes gradients of the blocks gets the taps' gradients back.

use std::collections::BTreeMap;

use crate::framework::{Result, Tensor};

/// A place in block m that an exit may read. All but [`Rows`](Self::Rows) are \[CLS\] rows,
/// `[B, D]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tap {
    /// `H_{m-1}`, the block's input.
    Input,
    /// x, the input of the block's last layer.
    LayerInput,
    /// `x + MHSA(x)`, before the attention's LayerNorm.
    AttentionSum,
    /// `a = LN(x + MHSA(x))`.
    Attended,
    /// `H_{m,F} = a + FFN(a)`, before the block's last LayerNorm.
    FeedForward,
    /// `H_m`.
    Hidden,
    /// All rows of `H_m`, padded: `[B, T, D]`.
    Rows,
}

/// The taps of one block.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockTaps {
    tensors: BTreeMap<Tap, Tensor>,
}

impl BlockTaps {
    /// The taps that heads ask for, each from `take`.
    pub(crate) fn collect(
        taps: &[Tap],
        mut take: impl FnMut(Tap) -> Result<Tensor>,
    ) -> Result<Self> {
        let tensors = taps.iter().map(|tap| Ok((*tap, take(*tap)?)));
        Ok(Self {
            tensors: tensors.collect::<Result<_>>()?,
        })
    }

    /// The same taps, each changed.
    pub(crate) fn map(&self, mut change: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let tensors = self
            .tensors
            .iter()
            .map(|(tap, tensor)| Ok((*tap, change(tensor)?)));
        Ok(Self {
            tensors: tensors.collect::<Result<_>>()?,
        })
    }

    /// # Panics
    /// When the tap was not asked for: an exit reads what [`Heads::taps`](super::heads::Heads::taps)
    /// lists.
    pub(crate) fn get(&self, tap: Tap) -> &Tensor {
        let tensor = self.tensors.get(&tap);
        tensor.unwrap_or_else(|| panic!("{tap:?} is a tap that the heads asked for"))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tap, &Tensor)> {
        self.tensors.iter().map(|(tap, tensor)| (*tap, tensor))
    }
}

/// The first row of every sample: `[B, T, D] -> [B, D]`.
pub(crate) fn cls(x: &Tensor) -> Result<Tensor> {
    x.narrow(1, 0, 1)?.squeeze(1)
}
