//! Which exits the engine computes.

use badge_core::bypass::BypassPlacement;
use badge_core::config::ModelConfig;

use crate::error::{Error, Result};

/// Refuses models whose exits the engine has no code for: it computes classifiers on \[CLS\], with
/// or without poolers and bypasses around blocks.
///
/// # Errors
/// Names what it would have to compute.
pub fn check_support(config: &ModelConfig) -> Result<()> {
    let exits = config.exits();
    let placement = exits.bypass.map(|bypass| bypass.placement);
    let form = if exits.exit_head.is_some() {
        "exits with attention"
    } else if exits.global_past_future {
        "exits that read earlier and imitate deeper states (global past-future)"
    } else if placement == Some(BypassPlacement::Mhsa) {
        "bypasses around the attention"
    } else if placement == Some(BypassPlacement::Ffn) {
        "bypasses around the feed-forward"
    } else {
        return Ok(());
    };
    Err(Error::ExitForm { form })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(heads: &str) -> Result<()> {
        let config = format!(
            r#"{{"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 3,
            "num_attention_heads": 2, "intermediate_size": 7, "max_position_embeddings": 6,
            "early_exit": {{"version": 1, "exits": [1, 2, 3], {heads}}}}}"#
        );
        check_support(&ModelConfig::from_json(config.as_bytes()).unwrap())
    }

    #[test]
    fn linear_exits_and_bypasses_around_blocks_are_computed_and_all_else_is_refused_by_name() {
        for pooler in ["shared", "own", "none"] {
            for bypass in ["null", r#"{"rank": 2}"#] {
                answer(&format!(r#""pooler": "{pooler}", "bypass": {bypass}"#)).unwrap();
            }
        }
        let attention = r#""exit_head": {"kind": "mha_bottleneck", "rank": 4, "heads": 2}"#;
        for (heads, form) in [
            (r#""bypass": {"placement": "mhsa"}"#, "around the attention"),
            (
                r#""bypass": {"placement": "ffn"}"#,
                "around the feed-forward",
            ),
            (r#""global_past_future": true"#, "global past-future"),
            (attention, "exits with attention"),
        ] {
            let error = answer(heads).unwrap_err().to_string();
            assert!(
                error.contains(form) && error.contains("--engine trainer"),
                "{error}"
            );
        }
    }
}
