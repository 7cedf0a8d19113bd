//! Joint training: all exits and the backbone together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Loss, Method, Moment};
use crate::error::Result;
use crate::loss::Targets;
use crate::model::ExitOutput;

/// JT: `Σ_m w_m L_m` at every step — paper, Eq. 8. With bypasses it is BADGE.
///
/// It goes with any head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Joint {
    /// `w_m`.
    pub weights: ExitWeights,
}

impl Method for Joint {
    fn name(&self) -> &'static str {
        "joint"
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, _moment: &Moment) -> Result<Loss> {
        Loss::weighted(outputs, targets, &self.weights.values(outputs.len()))
    }
}

/// The weight of each exit in joint training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitWeights {
    /// `Σ_m L_m`, the plain sum (paper, Eq. 8).
    #[default]
    Uniform,
    /// `Σ_m m L_m / Σ_m m`: deeper exits count more, as in PABEE's code. m counts exits from 1.
    Linear,
}

impl ExitWeights {
    /// The weights of `exits` exits.
    pub fn values(self, exits: usize) -> Vec<f64> {
        let sum = (exits * (exits + 1)) as f64 / 2.0;
        (1..=exits)
            .map(|m| match self {
                Self::Uniform => 1.0,
                Self::Linear => m as f64 / sum,
            })
            .collect()
    }
}

impl FromStr for ExitWeights {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "uniform" => Ok(Self::Uniform),
            "linear" => Ok(Self::Linear),
            other => Err(format!(
                "unknown exit weights `{other}`; known are uniform, linear"
            )),
        }
    }
}

impl fmt::Display for ExitWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Linear => "linear",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_weights_sum_to_one_and_grow_by_one_step() {
        let weights = ExitWeights::Linear.values(4);
        assert_eq!(weights, [0.1, 0.2, 0.3, 0.4]);
        assert_eq!(ExitWeights::Uniform.values(3), [1.0; 3]);
    }
}
