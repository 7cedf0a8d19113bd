//! Multiply-accumulates of matrix products, counted from a model's shape.
//!
//! Element-wise work (LayerNorm, activations, softmax, biases, embedding look-ups) is left out, as
//! is usual.

use serde::{Deserialize, Serialize};

use crate::bypass::BypassPlacement;
use crate::config::EarlyExitConfig;
use crate::exit::{Depth, ExitPlan, Pooler};
use crate::exit_head::ExitHead;

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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelShape {
    /// The backbone.
    pub backbone: BackboneShape,
    /// Logits of an exit, `C`.
    pub logits: usize,
    /// What the exits are.
    pub exits: EarlyExitConfig,
}

impl ModelShape {
    /// One exit without its bypass, and without what Global Past-Future adds: on \[CLS\] alone `D²` for a pooler and `D C`; an attention
    /// exit reads all `tokens` rows first.
    pub fn exit_macs(&self, tokens: usize) -> u64 {
        let d = self.backbone.hidden;
        let pooler = match self.exits.pooler {
            Pooler::Shared | Pooler::Own => product(&[d, d]),
            Pooler::None => 0,
        };
        let attention = self.exits.exit_head.map_or(0, |head| match head {
            // Keys and values of all rows, query and output of one, scores and context.
            ExitHead::MhaBottleneck { rank, .. } => {
                product(&[2, tokens + 1, d, rank]) + product(&[2, tokens, rank])
            }
            ExitHead::MhaFastbert { dim, .. } => {
                product(&[tokens, d, dim])
                    + product(&[2, tokens, dim, dim])
                    + product(&[3, dim, dim])
                    + product(&[2, tokens, dim])
            }
        });
        let width = self.exits.classifier_width(d);
        let lte = if self.exits.lte { width as u64 } else { 0 };
        attention + pooler + product(&[width, self.logits]) + lte
    }

    /// One bypass on the \[CLS\] row, the only one that a linear exit reads: `2 D r`, or nothing.
    /// Around the attention it costs a second feed-forward of that row, `2 D F`.
    pub fn bypass_macs(&self) -> u64 {
        let d = self.backbone.hidden;
        self.exits.bypass.map_or(0, |bypass| {
            let again = match bypass.placement {
                BypassPlacement::Mhsa => product(&[2, d, self.backbone.intermediate]),
                BypassPlacement::Block | BypassPlacement::Ffn => 0,
            };
            product(&[2, d, bypass.rank]) + again
        })
    }

    /// What Global Past-Future adds to an exit with `deeper` exits behind it: gate features and
    /// gate, and for each of these an imitated state with its logits and gate features.
    fn past_future_macs(&self, deeper: usize) -> u64 {
        if !self.exits.global_past_future {
            return 0;
        }
        let (d, c) = (self.backbone.hidden, self.logits);
        let imitation = product(&[d, d]) + product(&[2, d, c]);
        product(&[d, c]) + product(&[c, c]) + deeper as u64 * imitation
    }

    /// A sample of `tokens` tokens that leaves at `exit`, where the exits at `evaluated` depths
    /// are computed; those deeper than `exit` cost nothing. With Global Past-Future every exit on
    /// the way is computed, as those behind it read it.
    pub fn macs_to(&self, exit: Depth, tokens: usize, evaluated: &[Depth]) -> u64 {
        let plan = self.exits.exits.depths();
        let evaluated = if self.exits.global_past_future {
            plan
        } else {
            evaluated
        };
        let exits = evaluated
            .iter()
            .filter(|depth| **depth <= exit)
            .map(|depth| {
                let deeper = plan.iter().filter(|other| *other > depth).count();
                self.exit_macs(tokens) + self.bypass_macs() + self.past_future_macs(deeper)
            });
        self.blocks_macs(exit, tokens) + exits.sum::<u64>()
    }

    /// Embeddings and the blocks up to a depth, without any exit.
    pub fn blocks_macs(&self, depth: Depth, tokens: usize) -> u64 {
        self.backbone.embedding_macs(tokens)
            + depth.0 as u64 * self.backbone.block_macs(tokens).total()
    }

    /// The plain backbone with its one linear exit and no bypass, the reference of every speed-up.
    pub fn plain_macs(&self, tokens: usize) -> u64 {
        let deepest = self.exits.exits.deepest();
        let plan = ExitPlan::new(vec![deepest.0], deepest.0).expect("the deepest block is a plan");
        let plain = Self {
            exits: EarlyExitConfig::new(plan, self.exits.pooler, None, 0.0),
            ..self.clone()
        };
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
    use crate::bypass::BypassConfig;

    const ALBERT_BASE: BackboneShape = BackboneShape {
        embedding: Some(128),
        hidden: 768,
        heads: 12,
        intermediate: 3072,
        blocks: 12,
        inner_layers: 1,
    };

    fn model(pooler: Pooler, bypass_rank: Option<usize>) -> ModelShape {
        let bypass = bypass_rank.map(|rank| BypassConfig {
            rank,
            ..BypassConfig::default()
        });
        ModelShape {
            backbone: ALBERT_BASE,
            logits: 2,
            exits: EarlyExitConfig::new(ExitPlan::every_block(12), pooler, bypass, 0.1),
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
        assert_eq!(model(Pooler::None, None).exit_macs(7), 1_536);
        for pooler in [Pooler::Shared, Pooler::Own] {
            assert_eq!(model(pooler, None).exit_macs(7), 589_824 + 1_536);
        }
    }

    #[test]
    fn an_attention_exit_reads_every_token() {
        let mut model = model(Pooler::Shared, None);
        let linear = model.exit_macs(128);
        model.exits.exit_head = Some(ExitHead::BOTTLENECK);
        let (tokens, d, r) = (128, 768, 32);
        // Keys and values of all tokens; query and output of one; scores and context.
        let attention = 2 * tokens * d * r + 2 * d * r + 2 * tokens * r;
        assert_eq!(model.exit_macs(tokens) - linear, attention as u64);
        model.exits.exit_head = None;
        model.exits.lte = true;
        assert_eq!(model.exit_macs(128) - linear, 768);
    }

    #[test]
    fn a_bypass_around_the_attention_runs_the_feed_forward_again() {
        let mut model = model(Pooler::None, Some(16));
        let block = model.bypass_macs();
        model.exits.bypass.as_mut().unwrap().placement = BypassPlacement::Ffn;
        assert_eq!(model.bypass_macs(), block);
        model.exits.bypass.as_mut().unwrap().placement = BypassPlacement::Mhsa;
        assert_eq!(model.bypass_macs() - block, 2 * 768 * 3072);
    }

    #[test]
    fn global_past_future_imitates_all_deeper_exits() {
        let mut model = model(Pooler::Shared, None);
        let (first, plain) = ([Depth(1)], model.macs_to(Depth(1), 7, &[Depth(1)]));
        model.exits.global_past_future = true;
        let imitations = 11 * (768 * 768 + 2 * 768 * 2);
        let gate = 768 * 2 + 2 * 2;
        assert_eq!(
            model.macs_to(Depth(1), 7, &first) - plain,
            imitations + gate
        );
        // The exits on the way are computed even where only the last is asked for.
        let all: Vec<_> = (1..=12).map(Depth).collect();
        assert_eq!(
            model.macs_to(Depth(12), 7, &[Depth(12)]),
            model.macs_to(Depth(12), 7, &all)
        );
    }

    #[test]
    fn a_run_pays_for_its_blocks_and_the_exits_evaluated_on_the_way() {
        let model = model(Pooler::Shared, Some(16));
        let exits = [2, 4, 6, 12].map(Depth);
        let block = ALBERT_BASE.block_macs(7).total();
        let per_exit = model.exit_macs(7) + model.bypass_macs();
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
            mapping + 12 * block + model.exit_macs(7)
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
