//! Multiply-accumulates of matrix products, counted from a model's shape.
//!
//! Element-wise work (LayerNorm, activations, softmax, biases, embedding look-ups) is left out, as
//! is usual.

use serde::{Deserialize, Serialize};

use crate::exit::{Depth, Pooler};

/// The sizes of a backbone that decide what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackboneShape {
    /// Size of the factorised embeddings that a mapping widens to `hidden` (ALBERT); none where
    /// embeddings have the hidden size from the start (BERT).
    pub embedding: Option<usize>,
    /// Hidden size `D`.
    pub hidden: usize,
    /// Attention heads `H`; they split the hidden size and so do not change the sums.
    pub heads: usize,
    /// Feed-forward size `F`.
    pub intermediate: usize,
    /// Blocks `L`.
    pub blocks: usize,
    /// Transformer layers inside one block (ALBERT's `inner_group_num`), else 1.
    pub inner_layers: usize,
}

/// What one block costs, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMacs {
    /// Query, key, value and output projections: `4 T D²` per layer.
    pub projections: u64,
    /// Scores and context, all heads together: `2 T² D` per layer.
    pub attention: u64,
    /// Both feed-forward products: `2 T D F` per layer.
    pub feed_forward: u64,
}

impl BlockMacs {
    /// The whole block.
    pub fn total(&self) -> u64 {
        self.projections + self.attention + self.feed_forward
    }
}

impl BackboneShape {
    /// The embedding mapping over `tokens` tokens: `T E D`, or nothing.
    pub fn embedding_macs(&self, tokens: usize) -> u64 {
        self.embedding
            .map_or(0, |embedding| product(&[tokens, embedding, self.hidden]))
    }

    /// One block over `tokens` tokens.
    pub fn block_macs(&self, tokens: usize) -> BlockMacs {
        let (t, d, f) = (tokens, self.hidden, self.intermediate);
        BlockMacs {
            projections: product(&[4, self.inner_layers, t, d, d]),
            attention: product(&[2, self.inner_layers, t, t, d]),
            feed_forward: product(&[2, self.inner_layers, t, d, f]),
        }
    }
}

/// A backbone with what hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelShape {
    /// The backbone.
    pub backbone: BackboneShape,
    /// What an exit reads the \[CLS\] state through.
    pub pooler: Pooler,
    /// Logits of an exit, `C`.
    pub logits: usize,
    /// Rank `r` of the bypasses; none where exits have no bypass.
    pub bypass_rank: Option<usize>,
}

impl ModelShape {
    /// One exit, which reads the \[CLS\] row alone: `D²` for a pooler and `D C`.
    pub fn exit_macs(&self) -> u64 {
        let d = self.backbone.hidden;
        let pooler = match self.pooler {
            Pooler::Shared | Pooler::Own => product(&[d, d]),
            Pooler::None => 0,
        };
        pooler + product(&[d, self.logits])
    }

    /// One bypass on the \[CLS\] row, the only one that a linear exit reads: `2 D r`, or nothing.
    pub fn bypass_macs(&self) -> u64 {
        self.bypass_rank
            .map_or(0, |rank| product(&[2, self.backbone.hidden, rank]))
    }

    /// A sample of `tokens` tokens that leaves at `exit`, where the exits at `evaluated` depths
    /// are computed; those deeper than `exit` cost nothing.
    pub fn macs_to(&self, exit: Depth, tokens: usize, evaluated: &[Depth]) -> u64 {
        let exits = evaluated.iter().filter(|depth| **depth <= exit).count() as u64;
        self.backbone.embedding_macs(tokens)
            + exit.0 as u64 * self.backbone.block_macs(tokens).total()
            + exits * (self.exit_macs() + self.bypass_macs())
    }

    /// The plain backbone with its one exit and no bypass, the reference of every speed-up.
    pub fn plain_macs(&self, tokens: usize) -> u64 {
        let plain = Self {
            bypass_rank: None,
            ..*self
        };
        let deepest = Depth(self.backbone.blocks);
        plain.macs_to(deepest, tokens, &[deepest])
    }
}

/// The product of sizes, which would overflow `usize` on 32-bit machines.
fn product(factors: &[usize]) -> u64 {
    factors.iter().map(|factor| *factor as u64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALBERT_BASE: BackboneShape = BackboneShape {
        embedding: Some(128),
        hidden: 768,
        heads: 12,
        intermediate: 3072,
        blocks: 12,
        inner_layers: 1,
    };

    fn model(pooler: Pooler, bypass_rank: Option<usize>) -> ModelShape {
        ModelShape {
            backbone: ALBERT_BASE,
            pooler,
            logits: 2,
            bypass_rank,
        }
    }

    #[test]
    fn an_albert_base_block_costs_its_weights_once_per_token_and_attention() {
        let block = ALBERT_BASE.block_macs(128);
        let weights = 4 * 768 * 768 + 2 * 768 * 3072;
        assert_eq!(block.projections + block.feed_forward, 128 * weights);
        // 128 times the block's 7,087,872 parameters, biases and norms among them, are 907 M.
        let by_parameters = 128.0 * 7_087_872.0;
        let share = (block.projections + block.feed_forward) as f64 / by_parameters;
        assert!((share - 1.0).abs() < 0.002, "{share}");
        assert_eq!(block.attention, 25_165_824);
        assert_eq!(block.total(), 931_135_488);
    }

    #[test]
    fn a_bypass_is_small_beside_a_pooler() {
        assert_eq!(model(Pooler::Shared, Some(16)).bypass_macs(), 24_576);
        assert_eq!(model(Pooler::Shared, None).bypass_macs(), 0);
        assert_eq!(model(Pooler::None, None).exit_macs(), 1_536);
        for pooler in [Pooler::Shared, Pooler::Own] {
            assert_eq!(model(pooler, None).exit_macs(), 589_824 + 1_536);
        }
    }

    #[test]
    fn a_run_pays_for_its_blocks_and_the_exits_evaluated_on_the_way() {
        let model = model(Pooler::Shared, Some(16));
        let exits = [2, 4, 6, 12].map(Depth);
        let block = ALBERT_BASE.block_macs(7).total();
        let per_exit = model.exit_macs() + model.bypass_macs();
        let mapping = 7 * 128 * 768;
        assert_eq!(
            model.macs_to(Depth(4), 7, &exits),
            mapping + 4 * block + 2 * per_exit
        );
        assert_eq!(
            model.macs_to(Depth(12), 7, &exits),
            mapping + 12 * block + 4 * per_exit
        );
        assert_eq!(
            model.plain_macs(7),
            mapping + 12 * block + model.exit_macs()
        );
    }

    #[test]
    fn inner_layers_multiply_a_block_and_unfactorised_embeddings_cost_nothing() {
        let two = BackboneShape {
            inner_layers: 2,
            embedding: None,
            ..ALBERT_BASE
        };
        assert_eq!(
            two.block_macs(9).total(),
            2 * ALBERT_BASE.block_macs(9).total()
        );
        assert_eq!(two.embedding_macs(9), 0);
    }
}
