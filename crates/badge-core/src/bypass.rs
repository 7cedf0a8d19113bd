//! The block-wise bypass's hyper-parameters (paper, section 3.1).

use serde::{Deserialize, Serialize};

use crate::activation::Activation;

/// Which LayerNorm closes the bypass branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BypassLayerNorm {
    /// A LayerNorm of its own, which starts as a copy of the one that it replaces: the block's
    /// last, or the attention's for a bypass around the attention. With it and no bias
    /// a bypass of rank 16 has 26,112 parameters at D = 768: the paper's "26k".
    #[default]
    Own,
    /// The block's own LayerNorm, used a second time.
    Shared,
}

/// Which part of a block the bypass goes around (paper, section 4.4 and Table 2).
///
/// With x the input of the block's last layer, `a = LN_att(x + MHSA(x))`, `F = a + FFN(a)`,
/// `H_m = LN(F)` and `B(v) = g(v W_down) W_up`. `LN_B` is the bypass's LayerNorm, which takes the
/// place of the one that closes the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BypassPlacement {
    /// Around the whole block: `H'_m = LN_B(F + B(H_{m-1}))`, the paper's own.
    #[default]
    Block,
    /// Around the attention: `a' = LN_B(x + MHSA(x) + B(x))`, `H'_m = LN(a' + FFN(a'))`. The
    /// feed-forward runs a second time for the exit.
    Mhsa,
    /// Around the feed-forward: `H'_m = LN_B(F + B(a))`.
    Ffn,
}

impl BypassPlacement {
    /// The name on the command line and in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Mhsa => "mhsa",
            Self::Ffn => "ffn",
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference to the field"
    )]
    fn is_block(&self) -> bool {
        *self == Self::Block
    }
}

/// One bypass per exit:
/// `H'_m = LayerNorm(H_{m,F} + g(H_{m-1} W_down) W_up)` — paper, Eq. (1) and (2).
///
/// `H_{m-1}` is the block's input, `H_{m,F}` its feed-forward sum before the last LayerNorm. The
/// next block reads `H_m = LayerNorm(H_{m,F})` and never sees the bypass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BypassConfig {
    /// Bottleneck dimension `r`; `W_down` is `[D, r]`, `W_up` is `[r, D]`.
    #[serde(default = "BypassConfig::default_rank")]
    pub rank: usize,
    /// The non-linearity `g_1`.
    #[serde(default = "BypassConfig::default_activation")]
    pub activation: Activation,
    /// Whether both projections have a bias.
    #[serde(default)]
    pub bias: bool,
    /// Which LayerNorm closes the branch.
    #[serde(default)]
    pub layer_norm: BypassLayerNorm,
    /// Which part of the block it goes around.
    #[serde(default, skip_serializing_if = "BypassPlacement::is_block")]
    pub placement: BypassPlacement,
}

impl BypassConfig {
    fn default_rank() -> usize {
        16
    }

    fn default_activation() -> Activation {
        Activation::Gelu
    }

    /// Parameters of one bypass on a backbone of hidden size `d`.
    pub fn parameters(&self, d: usize) -> usize {
        let projections = 2 * d * self.rank;
        let biases = if self.bias { d + self.rank } else { 0 };
        let norm = if self.layer_norm == BypassLayerNorm::Own {
            2 * d
        } else {
            0
        };
        projections + biases + norm
    }
}

impl Default for BypassConfig {
    fn default() -> Self {
        Self {
            rank: Self::default_rank(),
            activation: Self::default_activation(),
            bias: false,
            layer_norm: BypassLayerNorm::Own,
            placement: BypassPlacement::Block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_the_papers_26k_parameters() {
        assert_eq!(BypassConfig::default().parameters(768), 26_112);
        let with_bias = BypassConfig {
            bias: true,
            ..BypassConfig::default()
        };
        assert_eq!(with_bias.parameters(768), 26_896);
        let shared = BypassConfig {
            layer_norm: BypassLayerNorm::Shared,
            ..BypassConfig::default()
        };
        assert_eq!(shared.parameters(768), 24_576);
    }
}
