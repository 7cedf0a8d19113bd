//! The policies that curves are drawn of.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use badge_core::policy::{ModelExits, PolicySpec};
use serde::{Deserialize, Serialize};

/// The curve that a point belongs to: the name of its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Every row runs all blocks: one point, where every curve begins.
    Full,
    /// All rows leave at one exit, which varies.
    Fixed,
    /// Divergence-based early exiting.
    Dge,
    /// Low entropy; its normalised form draws the same curve.
    Entropy,
    /// A high probability of the answer.
    Maxprob,
    /// An answer that stays the same.
    Patience,
    /// A learning-to-exit head.
    Lte,
    /// Sure exits one after the other.
    Pcee,
    /// Distributions that stay close.
    FlexiblePatience,
    /// Votes of all exits so far.
    Vote,
}

impl Family {
    /// Those with a parameter to vary, the paper's first.
    pub const CURVES: [Self; 9] = [
        Self::Dge,
        Self::Entropy,
        Self::Maxprob,
        Self::Patience,
        Self::Lte,
        Self::Pcee,
        Self::FlexiblePatience,
        Self::Vote,
        Self::Fixed,
    ];

    /// The name, which is that of the policy.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Fixed => "fixed",
            Self::Dge => "dge",
            Self::Entropy => "entropy",
            Self::Maxprob => "maxprob",
            Self::Patience => "patience",
            Self::Lte => "lte",
            Self::Pcee => "pcee",
            Self::FlexiblePatience => "flexible-patience",
            Self::Vote => "vote",
        }
    }

    /// What the curve is called in a drawing.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Full => "all blocks",
            Self::Fixed => "one exit for all rows",
            Self::Dge => "DGE",
            Self::Entropy => "entropy",
            Self::Maxprob => "maximum probability",
            Self::Patience => "patience",
            Self::Lte => "learning to exit",
            Self::Pcee => "PCEE",
            Self::FlexiblePatience => "flexible patience",
            Self::Vote => "vote",
        }
    }

    /// Whether a model can run the policy.
    ///
    /// # Errors
    /// Says why it cannot.
    pub fn check(self, exits: &ModelExits) -> Result<()> {
        let example = match self {
            Self::Full => "full".to_owned(),
            Self::Fixed => format!("fixed:{}", exits.plan().deepest()),
            Self::Dge => "dge:tau=0.3,t=2".to_owned(),
            Self::Entropy => "entropy:0.2".to_owned(),
            Self::Maxprob => "maxprob:0.9".to_owned(),
            Self::Patience => "patience:3,tolerance=0.1".to_owned(),
            Self::Lte => "lte:0.1".to_owned(),
            Self::Pcee => "pcee:tau=0.2,t=2".to_owned(),
            Self::FlexiblePatience => "flexible-patience:tau=0.1,t=2".to_owned(),
            Self::Vote => "vote:tau=1.5".to_owned(),
        };
        let example: PolicySpec = example.parse()?;
        Ok(example.check(exits)?)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::CURVES.map(Self::name).join(", ");
        let found = Self::CURVES
            .into_iter()
            .find(|family| family.name() == name);
        found.ok_or_else(|| format!("`{name}` has no curve; these policies have one: {known}"))
    }
}
