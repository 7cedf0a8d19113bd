//! What the logits of each exit are divided by before they become probabilities.

use std::fmt;
use std::str::FromStr;

use super::ModelExits;
use super::model_exits::check_temperatures;
use crate::exit::ExitPlan;

/// The temperature of every exit, as a policy's key `temperatures` gives them.
///
/// They are fitted per exit on dev. A policy that says `calibrated` takes those of the model's
/// `exit_calibration.json` when it is built, and has them in its text from then on, so that a
/// record needs no other file to be understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Temperatures {
    /// 1 at every exit: probabilities as the model gives them. The key is left out.
    #[default]
    One,
    /// Those that calibration found: `calibrated`.
    Calibrated,
    /// One per exit of the plan: `1.3/1.1/0.9`.
    PerExit(Vec<f64>),
}

impl Temperatures {
    /// The temperature of the exit in this place of the plan.
    pub(super) fn at(&self, position: usize) -> f64 {
        match self {
            Self::One => 1.0,
            Self::PerExit(temperatures) => temperatures[position],
            Self::Calibrated => unreachable!("resolved when the policy was built"),
        }
    }

    /// The same in numbers.
    pub(super) fn resolved(&self, exits: &ModelExits) -> Result<Self, String> {
        match (self, exits.temperatures()) {
            (Self::Calibrated, None) => Err(
                "key `temperatures`: the model has no calibrated temperatures; write them as \
                 temperatures=1.3/1.1/0.9, one per exit, or leave the key out"
                    .to_owned(),
            ),
            (Self::Calibrated, Some(temperatures)) => Ok(Self::PerExit(temperatures.to_vec())),
            (others, _) => Ok(others.clone()),
        }
    }

    pub(super) fn check(&self, plan: &ExitPlan) -> Result<(), String> {
        match self {
            Self::PerExit(temperatures) => check_temperatures(temperatures, plan.count())
                .map_err(|problem| format!("key `temperatures`: {problem}")),
            Self::One | Self::Calibrated => Ok(()),
        }
    }
}

impl FromStr for Temperatures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "calibrated" {
            return Ok(Self::Calibrated);
        }
        let number = |part: &str| {
            let number: f64 = part
                .parse()
                .map_err(|_| format!("`{part}` is neither a number nor calibrated"))?;
            check_temperatures(&[number], 1).map(|()| number)
        };
        let numbers: Vec<f64> = text.split('/').map(number).collect::<Result<_, _>>()?;
        Ok(Self::PerExit(numbers))
    }
}

impl fmt::Display for Temperatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One => f.write_str("1"),
            Self::Calibrated => f.write_str("calibrated"),
            Self::PerExit(temperatures) => {
                let numbers: Vec<_> = temperatures.iter().map(ToString::to_string).collect();
                f.write_str(&numbers.join("/"))
            }
        }
    }
}
