//! A policy as people write it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::divergence_based::DivergenceBased;
use super::entropy::Entropy;
use super::fixed_depth::FixedDepth;
use super::flexible_patience::FlexiblePatience;
use super::full_depth::FullDepth;
use super::grammar::Fields;
use super::learning_to_exit::LearningToExit;
use super::max_probability::MaxProbability;
use super::patience::Patience;
use super::patient_confident::PatientConfident;
use super::rule::AnyRule;
use super::temperatures::Temperatures;
use super::vote::Vote;
use super::{ModelExits, Policy, Rule};
use crate::distribution::PredictionKind;
use crate::error::{Error, Result};
use crate::exit::ExitPlan;

/// A policy's name and parameters, the same text on the command line, in files and over HTTP.
///
/// | text | a sample leaves |
/// |---|---|
/// | `full` | at the deepest exit |
/// | `fixed:6` | at exit 6 |
/// | `entropy:0.2` | when entropy is below 0.2; `entropy:0.2,normalised` takes it as a share of ln K, and 0.2 is low enough |
/// | `maxprob:0.9` | when the answer's probability reaches 0.9; also `temperatures=calibrated` or `temperatures=1.3/1.1/0.9`, one per exit |
/// | `patience:3` | when the answer has stayed the same 3 times in a row; regression needs `tolerance=0.1` |
/// | `lte:0.1` | when the learnt probability to continue is below 0.1 |
/// | `dge:tau=0.3,t=2` | when 2 earlier exits diverge by less than 0.3; also `divergence=ce\|kl\|rkl\|symkl\|js\|mismatch` and `window=all\|adjacent\|N` |
/// | `pcee:tau=0.2,t=2` | when normalised entropy has been below 0.2 at 2 exits in a row |
/// | `flexible-patience:tau=0.1,t=2` | when 2 exits in a row lie within 0.1 of the one before; also `divergence=js\|...` |
/// | `vote:tau=1.5` | when the votes of the leading class, over the square root of all votes, reach 1.5; also `gamma=0.5` |
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
    /// The exit's entropy is low.
    Entropy(Entropy),
    /// The exit gives its answer a high probability.
    MaxProbability(MaxProbability),
    /// The answer has stayed the same.
    Patience(Patience),
    /// A learnt head says that going on would not pay.
    LearningToExit(LearningToExit),
    /// Divergence-based early exiting.
    Dge(DivergenceBased),
    /// Exits have been sure one after the other.
    PatientConfident(PatientConfident),
    /// Distributions have stayed close.
    FlexiblePatience(FlexiblePatience),
    /// Enough exits give the same answer.
    Vote(Vote),
    /// A rule of a program that uses this library. It runs wherever the others do, but its text
    /// is not read back.
    Other(OtherRule),
}

/// A rule that is not part of the grammar: [`PolicySpec::other`].
#[derive(Debug, Clone)]
pub struct OtherRule(Arc<dyn AnyRule>);

/// The policies with what each of them must be given.
const FORMS: &str = "full, fixed:DEPTH, entropy:THRESHOLD, maxprob:THRESHOLD, patience:COUNT, \
     lte:THRESHOLD, dge:tau=TAU,t=COUNT, pcee:tau=TAU,t=COUNT, flexible-patience:tau=TAU,t=COUNT, \
     vote:tau=TAU";

impl PolicySpec {
    /// A policy that decides by a rule of your own (`docs/adding-a-policy.md`).
    pub fn other(rule: impl Rule) -> Self {
        Self::Other(OtherRule(Arc::new(rule)))
    }

    /// Whether it asks for the temperatures of the model's calibration.
    pub fn needs_calibration(&self) -> bool {
        matches!(self, Self::MaxProbability(rule) if *rule.temperatures() == Temperatures::Calibrated)
    }

    /// The policy's name, without its parameters.
    pub fn name(&self) -> String {
        let text = self.to_string();
        let name = text.split(':').next();
        name.unwrap_or_default().to_owned()
    }

    /// Whether a model with these exits can run the policy.
    ///
    /// # Errors
    /// [`Error::Policy`] that names the key.
    pub fn check(&self, exits: &ModelExits) -> Result<()> {
        let checked = self.rule().check(exits);
        checked.map_err(|problem| self.error(problem))
    }

    /// The policy for a model that has nothing but these exits and this kind of answer.
    ///
    /// # Errors
    /// As [`Self::build_for`].
    pub fn build(&self, plan: &ExitPlan, kind: PredictionKind) -> Result<Policy> {
        self.build_for(&ModelExits::new(plan.clone(), kind))
    }

    /// The policy for a model.
    ///
    /// # Errors
    /// [`Error::Policy`] when the model cannot run it, as [`Self::check`], or has no calibrated
    /// temperatures that it asks for, and [`Error::NoLogits`] for a kind of answer without classes
    /// or labels.
    pub fn build_for(&self, exits: &ModelExits) -> Result<Policy> {
        let resolved = self.resolved(exits);
        let spec = resolved.map_err(|problem| self.error(problem))?;
        spec.check(exits)?;
        if exits.kind().logits() == 0 {
            return Err(Error::NoLogits);
        }
        Ok(Policy {
            spec,
            exits: exits.clone(),
        })
    }

    /// The same with all that the model supplies written out.
    fn resolved(&self, exits: &ModelExits) -> Result<Self, String> {
        match self {
            Self::MaxProbability(rule) => rule.resolved(exits).map(Self::MaxProbability),
            others => Ok(others.clone()),
        }
    }

    pub(super) fn rule(&self) -> &dyn AnyRule {
        match self {
            Self::Full => &FullDepth,
            Self::Fixed(rule) => rule,
            Self::Entropy(rule) => rule,
            Self::MaxProbability(rule) => rule,
            Self::Patience(rule) => rule,
            Self::LearningToExit(rule) => rule,
            Self::Dge(rule) => rule,
            Self::PatientConfident(rule) => rule,
            Self::FlexiblePatience(rule) => rule,
            Self::Vote(rule) => rule,
            Self::Other(OtherRule(rule)) => rule.as_ref(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (name, fields) = Fields::split(text)?;
        match name {
            "full" => fields.finish(&[]).map(|()| Self::Full),
            "fixed" => FixedDepth::parse(fields).map(Self::Fixed),
            "entropy" => Entropy::parse(fields).map(Self::Entropy),
            "maxprob" => MaxProbability::parse(fields).map(Self::MaxProbability),
            "patience" => Patience::parse(fields).map(Self::Patience),
            "lte" => LearningToExit::parse(fields).map(Self::LearningToExit),
            "dge" => DivergenceBased::parse(fields).map(Self::Dge),
            "pcee" => PatientConfident::parse(fields).map(Self::PatientConfident),
            "flexible-patience" => FlexiblePatience::parse(fields).map(Self::FlexiblePatience),
            "vote" => Vote::parse(fields).map(Self::Vote),
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

impl PartialEq for OtherRule {
    /// By their texts, which hold all parameters.
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl From<FixedDepth> for PolicySpec {
    fn from(rule: FixedDepth) -> Self {
        Self::Fixed(rule)
    }
}

impl From<Entropy> for PolicySpec {
    fn from(rule: Entropy) -> Self {
        Self::Entropy(rule)
    }
}

impl From<MaxProbability> for PolicySpec {
    fn from(rule: MaxProbability) -> Self {
        Self::MaxProbability(rule)
    }
}

impl From<Patience> for PolicySpec {
    fn from(rule: Patience) -> Self {
        Self::Patience(rule)
    }
}

impl From<LearningToExit> for PolicySpec {
    fn from(rule: LearningToExit) -> Self {
        Self::LearningToExit(rule)
    }
}

impl From<DivergenceBased> for PolicySpec {
    fn from(rule: DivergenceBased) -> Self {
        Self::Dge(rule)
    }
}

impl From<PatientConfident> for PolicySpec {
    fn from(rule: PatientConfident) -> Self {
        Self::PatientConfident(rule)
    }
}

impl From<FlexiblePatience> for PolicySpec {
    fn from(rule: FlexiblePatience) -> Self {
        Self::FlexiblePatience(rule)
    }
}

impl From<Vote> for PolicySpec {
    fn from(rule: Vote) -> Self {
        Self::Vote(rule)
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
        fmt::Display::fmt(self.rule(), f)
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
