//! `flexible-patience:tau=0.1,t=2`: leave when distributions have stayed close (F-PABEE).

use std::fmt;
use std::num::NonZeroUsize;

use super::divergence_based::trivial_tau;
use super::grammar::{Fields, check_positive, patience, refused, threshold, whole_number};
use super::patience::never_reached;
use super::streak::Adjacent;
use super::{Comparison, Evidence, ExitPoint, ModelExits, Observation, Outlook, Rule, Side};
use crate::distribution::PredictionKind;
use crate::divergence::Divergence;
use crate::error::Result;

/// Exit as soon as each of `t` exits in a row lies close to the one before it.
///
/// ```text
/// c_m = c_{m-1} + 1   if D(p_{m-1}, p_m) < τ, else 0;   c_1 = 0
/// ```
///
/// The sample leaves at the first exit with `c_m = t`, the `t + 1`-th at the earliest. `D` is the
/// Jensen–Shannon divergence unless the key `divergence` names another; its first argument is the
/// earlier exit, so that `kl` is `KL(p_{m-1} ‖ p_m)`. With labels decided each by itself the
/// divergences add up; for regression `D = |y_m - y_{m-1}|`. With `divergence=mismatch` and any
/// `τ ≤ 1` this is [`Patience`](super::Patience) on classes.
///
/// This is the paper's rule. Its released code differs: it applies one exit's classifier to two
/// states of which one is a look-ahead that is computed and not counted, and its "JSD" keeps the
/// entropies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlexiblePatience {
    tau: f64,
    t: NonZeroUsize,
    divergence: Divergence,
}

impl FlexiblePatience {
    /// Used unless another is named.
    const DIVERGENCE: Divergence = Divergence::JensenShannon;

    /// The rule by Jensen–Shannon divergence.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when `tau` is not a positive finite number or `t` is 0.
    pub fn new(tau: f64, t: usize) -> Result<Self> {
        Self::checked(tau, t).map_err(refused(format!("flexible-patience:tau={tau},t={t}")))
    }

    fn checked(tau: f64, t: usize) -> Result<Self, String> {
        check_positive("tau", tau)?;
        Ok(Self {
            tau,
            t: patience(t)?,
            divergence: Self::DIVERGENCE,
        })
    }

    /// The same rule by another divergence.
    pub fn with_divergence(self, divergence: Divergence) -> Self {
        Self { divergence, ..self }
    }

    /// The threshold `τ`.
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// The patience `t`.
    pub fn t(&self) -> usize {
        self.t.get()
    }

    /// The divergence `D`.
    pub fn divergence(&self) -> Divergence {
        self.divergence
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let tau = threshold("tau", fields.require("tau")?)?;
        let t = whole_number("t", fields.require("t")?)?;
        let mut rule = Self::checked(tau, t)?;
        if let Some(name) = fields.take("divergence") {
            rule.divergence = name.parse().map_err(|e| format!("key `divergence`: {e}"))?;
        }
        fields.finish(&["tau", "t", "divergence"])?;
        Ok(rule)
    }
}

impl Rule for FlexiblePatience {
    type Memory = Adjacent;

    fn start(&self, exits: &ModelExits) -> Adjacent {
        Adjacent::new(exits)
    }

    fn observe(&self, memory: &mut Adjacent, _: ExitPoint, observation: Observation<'_>) -> bool {
        let condition = |value| Comparison {
            quantity: "divergence",
            value,
            side: Side::Below,
            threshold: self.tau,
        };
        memory.count(observation.prediction, self.divergence, condition) >= self.t.get()
    }

    fn evidence(&self, memory: &Adjacent) -> Option<Evidence> {
        Some(Evidence::Streak(memory.streak(self.t.get())))
    }

    fn outlook(&self, at: ExitPoint) -> Outlook {
        if at.position >= self.t.get() {
            Outlook::Possible
        } else {
            Outlook::Never
        }
    }

    fn caveats(&self, exits: &ModelExits) -> Vec<String> {
        let mut caveats = Vec::from_iter(never_reached(self.t, exits));
        let (tau, divergence) = (self.tau, self.divergence);
        if let Some(bound) = trivial_tau(divergence, exits.kind())
            && tau > bound
            && divergence != Divergence::CrossEntropy
        {
            caveats.push(format!(
                "tau={tau} is above {bound:.3}, the greatest value that {divergence} has: all \
                 exits agree"
            ));
        }
        if exits.kind() == PredictionKind::Regression && divergence != Self::DIVERGENCE {
            caveats.push(format!(
                "divergence={divergence} does nothing for regression, which compares \
                 |y_m - y_(m-1)| with tau"
            ));
        }
        caveats
    }
}

impl fmt::Display for FlexiblePatience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flexible-patience:tau={},t={}", self.tau, self.t)?;
        if self.divergence != Self::DIVERGENCE {
            write!(f, ",divergence={}", self.divergence)?;
        }
        Ok(())
    }
}
