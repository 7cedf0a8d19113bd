//! `vote:tau=1.5`: leave when enough exits give the same answer (Sun et al., 2021).

use std::fmt;

use super::grammar::{Fields, check_positive, refused, threshold};
use super::{
    Comparison, Evidence, ExitPoint, Memory, ModelExits, Observation, Outlook, Rule, Side, Votes,
};
use crate::distribution::{Prediction, PredictionKind};
use crate::error::Result;

/// Exit as soon as one class has enough votes for the number of exits that have voted.
///
/// ```text
/// max_c #{ i ≤ m : argmax p_i = c } / m^γ ≥ τ
/// ```
///
/// `m` counts the exits evaluated. With `γ = 0` the score is the number of votes and with 1 their
/// share, which the first exit has in full; in between, `τ` asks for more votes the less
/// unanimous they are. All exits agreeing, the sample leaves at the `⌈τ^(1/(1-γ))⌉`-th. The answer
/// is the current exit's. Only single-label tasks have votes.
///
/// The rule is that of the paper as we remember it; its text could not be opened, and no code is
/// public.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    tau: f64,
    gamma: f64,
}

/// The votes of one sample's exits.
#[derive(Debug, Clone)]
pub struct Ballot {
    by_class: Vec<usize>,
    cast: usize,
}

impl Vote {
    /// Ours: the paper's value is not known.
    const GAMMA: f64 = 0.5;

    /// The rule with `γ = ½`.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when `tau` is not a positive finite number.
    pub fn new(tau: f64) -> Result<Self> {
        Self::checked(tau, Self::GAMMA).map_err(refused(format!("vote:tau={tau}")))
    }

    fn checked(tau: f64, gamma: f64) -> Result<Self, String> {
        check_positive("tau", tau)?;
        if !(0.0..=1.0).contains(&gamma) {
            return Err(format!("key `gamma`: {gamma} does not lie in 0..=1"));
        }
        Ok(Self {
            tau,
            gamma: gamma.abs(), // -0 is 0
        })
    }

    /// The same with another `γ`.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when it does not lie in `0 ..= 1`.
    pub fn with_gamma(self, gamma: f64) -> Result<Self> {
        let spec = format!("vote:tau={},gamma={gamma}", self.tau);
        Self::checked(self.tau, gamma).map_err(refused(spec))
    }

    /// The threshold `τ`.
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// The power `γ` of the number of voters.
    pub fn gamma(&self) -> f64 {
        self.gamma
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let tau = threshold("tau", fields.require("tau")?)?;
        let gamma = fields.take("gamma");
        let gamma = gamma.map_or(Ok(Self::GAMMA), |text| threshold("gamma", text))?;
        fields.finish(&["tau", "gamma"])?;
        Self::checked(tau, gamma)
    }

    fn score(&self, most: usize, cast: usize) -> Comparison {
        Comparison {
            quantity: "vote",
            value: most as f64 / (cast as f64).powf(self.gamma),
            side: Side::AtLeast,
            threshold: self.tau,
        }
    }
}

impl Rule for Vote {
    type Memory = Ballot;

    fn start(&self, exits: &ModelExits) -> Ballot {
        Ballot {
            by_class: vec![0; exits.kind().logits()],
            cast: 0,
        }
    }

    fn observe(&self, memory: &mut Ballot, _: ExitPoint, observation: Observation<'_>) -> bool {
        let Prediction::SingleLabel(p) = observation.prediction else {
            unreachable!("a policy of votes is built for single-label tasks only");
        };
        memory.by_class[p.argmax()] += 1;
        memory.cast += 1;
        self.score(memory.most(), memory.cast).holds()
    }

    fn evidence(&self, memory: &Ballot) -> Option<Evidence> {
        let (most, cast) = (memory.most(), memory.cast);
        let score = self.score(most, cast);
        Some(Evidence::Votes(Votes { most, cast, score }))
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        match exits.kind() {
            PredictionKind::SingleLabel { .. } => Ok(()),
            kind => Err(format!(
                "exits vote for one class each, but this model's answers are {kind}; use patience \
                 or flexible-patience"
            )),
        }
    }

    fn outlook(&self, at: ExitPoint) -> Outlook {
        let voters = at.position + 1;
        if self.score(1, 1).holds() {
            Outlook::Certain // The first vote is enough.
        } else if self.score(voters, voters).holds() {
            Outlook::Possible
        } else {
            Outlook::Never
        }
    }

    fn caveats(&self, exits: &ModelExits) -> Vec<String> {
        let tau = self.tau;
        let exits = exits.plan().count();
        if self.score(1, 1).holds() {
            return vec![format!(
                "tau={tau} is reached by one vote: every sample leaves at the first exit"
            )];
        }
        if self.score(exits, exits).holds() {
            return Vec::new();
        }
        vec![format!(
            "tau={tau} is not reached by {exits} exits that all agree: every sample runs to the \
             deepest"
        )]
    }
}

impl Ballot {
    fn most(&self) -> usize {
        self.by_class.iter().copied().max().unwrap_or(0)
    }
}

impl Memory for Ballot {
    fn clear(&mut self) {
        self.by_class.fill(0);
        self.cast = 0;
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vote:tau={}", self.tau)?;
        if self.gamma != Self::GAMMA {
            write!(f, ",gamma={}", self.gamma)?;
        }
        Ok(())
    }
}
