//! Training methods: how the losses of the exits become one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::framework::Tensor;
use crate::loss::Targets;

/// How the losses of the E exits are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// All exits and the backbone together (JT; paper, Eq. 8).
    Joint(ExitWeights),
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

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// What is minimised: a scalar.
    pub total: Tensor,
    /// The unweighted loss of each exit: scalars.
    pub exits: Vec<Tensor>,
}

impl Method {
    /// The loss of a batch from the logits of every exit.
    ///
    /// # Errors
    /// When there is no exit, or the framework refuses an operation.
    pub fn loss(self, logits: &[Tensor], targets: &Targets) -> Result<Loss> {
        let Self::Joint(weights) = self;
        let exits = logits
            .iter()
            .map(|l| targets.loss(l))
            .collect::<Result<Vec<_>>>()?;
        let mut total: Option<Tensor> = None;
        for (loss, weight) in exits.iter().zip(weights.values(exits.len())) {
            let weighted = (loss * weight)?;
            total = Some(match total {
                None => weighted,
                Some(sum) => (sum + weighted)?,
            });
        }
        let total = total.ok_or(Error::Setting {
            setting: "exits",
            problem: "a model without exits cannot be trained".to_owned(),
        })?;
        Ok(Loss { total, exits })
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
