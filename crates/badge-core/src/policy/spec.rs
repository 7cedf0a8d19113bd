//! A policy as people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Policy;
use super::divergence_based::DivergenceBased;
use super::fixed_depth::FixedDepth;
use super::grammar::Fields;
use crate::distribution::PredictionKind;
use crate::error::{Error, Result};
use crate::exit::ExitPlan;

/// A policy's name and parameters, the same text on the command line, in files and over HTTP.
///
/// | text | meaning |
/// |---|---|
/// | `full` | every block runs |
/// | `fixed:6` | every sample answers at exit 6 |
/// | `dge:tau=0.3,t=2` | divergence-based early exiting; also `divergence=ce\|kl\|rkl\|symkl\|js\|mismatch` and `window=all\|adjacent\|N` |
///
/// The text round-trips: what [`fmt::Display`] writes reads as the same value, keys that have
/// their default being left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum PolicySpec {
    /// Every block runs; the deepest exit answers.
    Full,
    /// Every sample answers at one given exit.
    Fixed(FixedDepth),
    /// Divergence-based early exiting.
    Dge(DivergenceBased),
}

/// Names of the grammar that later versions fill.
const NOT_YET: [&str; 7] = [
    "entropy",
    "maxprob",
    "patience",
    "lte",
    "pcee",
    "flexible-patience",
    "vote",
];

/// Those that this version has, with their parameters.
const FORMS: &str = "full, fixed:DEPTH, dge:tau=TAU,t=COUNT";

impl PolicySpec {
    /// The policy's name, without its parameters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Fixed(_) => "fixed",
            Self::Dge(_) => "dge",
        }
    }

    /// Whether a model with these exits can run the policy.
    ///
    /// # Errors
    /// [`Error::Policy`] that names the key.
    pub fn check(&self, plan: &ExitPlan) -> Result<()> {
        match self {
            Self::Full | Self::Dge(_) => Ok(()),
            Self::Fixed(rule) => rule.check(plan).map_err(|problem| self.error(problem)),
        }
    }

    /// The policy for a model with these exits and this kind of answer.
    ///
    /// # Errors
    /// As [`Self::check`], and [`Error::NoLogits`] for a kind without classes or labels.
    pub fn build(&self, plan: &ExitPlan, kind: PredictionKind) -> Result<Policy> {
        self.check(plan)?;
        if kind.logits() == 0 {
            return Err(Error::NoLogits);
        }
        Ok(Policy {
            spec: self.clone(),
            plan: plan.clone(),
            kind,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (name, fields) = Fields::split(text)?;
        match name {
            "full" => fields.finish(&[]).map(|()| Self::Full),
            "fixed" => FixedDepth::parse(fields).map(Self::Fixed),
            "dge" => DivergenceBased::parse(fields).map(Self::Dge),
            name if NOT_YET.contains(&name) => Err(format!(
                "this version does not have the policy `{name}`; it has {FORMS}"
            )),
            name => Err(format!("there is no policy `{name}`; there are {FORMS}")),
        }
    }

    fn error(&self, problem: String) -> Error {
        Error::Policy {
            spec: self.to_string(),
            problem,
        }
    }
}

impl From<FixedDepth> for PolicySpec {
    fn from(rule: FixedDepth) -> Self {
        Self::Fixed(rule)
    }
}

impl From<DivergenceBased> for PolicySpec {
    fn from(rule: DivergenceBased) -> Self {
        Self::Dge(rule)
    }
}

impl FromStr for PolicySpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|problem| Error::Policy {
            spec: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Fixed(rule) => write!(f, "fixed:{rule}"),
            Self::Dge(rule) => write!(f, "dge:{rule}"),
        }
    }
}

impl TryFrom<String> for PolicySpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<PolicySpec> for String {
    fn from(spec: PolicySpec) -> Self {
        spec.to_string()
    }
}
