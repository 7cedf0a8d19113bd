//! What a run computes, counted from the model's shape.
//!
//! Counted are the multiply-accumulates of matrix products, as [`badge_core::cost`] does, less
//! those that the engine leaves out: in the block whose exit ends a sample only the \[CLS\] row's
//! answer is wanted, so its last layer projects keys and values for all rows and computes the rest
//! for one.

use badge_core::config::ModelConfig;
use badge_core::cost::{BackboneShape, flops};
use badge_core::exit::Depth;
use badge_core::policy::{Outlook, Policy};

use crate::evaluation::model_shape;

/// What the figures of work count, for records.
pub const COUNTED: &str = "matrix products of embedding mapping, blocks, evaluated exits and \
    bypasses, 2 FLOPs a multiply-accumulate; of the block that certainly ends a sample only what \
    its [CLS] row needs";

/// FLOPs of a sample of `tokens` tokens that the policy lets leave at `depth`.
pub fn computed_flops(config: &ModelConfig, policy: &Policy, tokens: usize, depth: Depth) -> u64 {
    let shape = model_shape(config);
    let needed = policy.plan().depths().iter().copied();
    let evaluated: Vec<Depth> = needed.filter(|depth| policy.needs(*depth)).collect();
    let whole = shape.macs_to(depth, tokens, &evaluated);
    let left_out = if policy.outlook(depth) == Outlook::Certain {
        left_out(&shape.backbone, tokens)
    } else {
        0
    };
    flops(whole - left_out)
}

/// Multiply-accumulates that a block saves when only its \[CLS\] row is wanted: queries, output
/// projection, scores, context and feed-forward of the `T - 1` other rows in its last layer.
fn left_out(shape: &BackboneShape, tokens: usize) -> u64 {
    let last_layer = BackboneShape {
        inner_layers: 1,
        ..*shape
    };
    let block = last_layer.block_macs(tokens);
    let of_all_rows = block.projections / 2 + block.attention + block.feed_forward;
    of_all_rows / tokens as u64 * (tokens as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::policy;

    fn config(inner_layers: usize) -> ModelConfig {
        let config = serde_json::json!({
            "model_type": "albert", "vocab_size": 7, "hidden_size": 8, "num_hidden_layers": 3,
            "num_attention_heads": 2, "intermediate_size": 5, "embedding_size": 3,
            "inner_group_num": inner_layers, "num_labels": 2,
            "early_exit": {"version": 1, "exits": [1, 2, 3], "pooler": "none", "bypass": null},
        });
        ModelConfig::from_json(config.to_string().as_bytes()).unwrap()
    }

    fn flops_of(config: &ModelConfig, spec: &str, tokens: usize, depth: usize) -> u64 {
        let policy = policy(config, &spec.parse().unwrap()).unwrap();
        computed_flops(config, &policy, tokens, Depth(depth))
    }

    #[test]
    fn a_single_token_is_the_cls_row_and_leaves_nothing_out() {
        let config = config(1);
        let block = 4 * 64 + 2 * 8 + 2 * 8 * 5;
        assert_eq!(flops_of(&config, "full", 1, 3), 2 * (24 + 3 * block + 16));
    }

    #[test]
    fn the_block_that_ends_a_sample_computes_its_first_row_alone() {
        // Blocks of two layers: the first of them is needed by all rows.
        let (config, t) = (config(2), 11);
        let layer = t * 4 * 64 + 2 * t * t * 8 + t * 2 * 8 * 5;
        let last = t * 2 * 64 + 2 * 64 + 2 * t * 8 + 2 * 8 * 5;
        let expected = 2 * (t * 24 + 3 * layer + last + 16);
        assert_eq!(flops_of(&config, "fixed:2", 11, 2), expected);
    }

    #[test]
    fn a_policy_that_may_go_on_pays_for_whole_blocks_until_the_deepest() {
        let config = config(1);
        let dge = |depth| flops_of(&config, "dge:tau=1,t=1", 11, depth);
        let fixed = |depth| flops_of(&config, &format!("fixed:{depth}"), 11, depth);
        assert!(dge(2) > fixed(2));
        // At the deepest exit both know that the sample ends; the other exits are extra.
        assert_eq!(dge(3), fixed(3) + 2 * 2 * 16);
    }
}
