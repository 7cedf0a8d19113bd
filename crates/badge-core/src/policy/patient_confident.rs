//! `pcee:tau=0.2,t=2`: leave when exits have been sure one after the other (PCEE-BERT).

use std::fmt;
use std::num::NonZeroUsize;

use super::grammar::{Fields, check_positive, patience, refused, threshold, whole_number};
use super::streak::Counter;
use super::{Comparison, Evidence, ExitPoint, ModelExits, Observation, Outlook, Rule, Side};
use crate::error::Result;

/// Exit as soon as `t` exits in a row are sure by their normalised entropy.
///
/// ```text
/// c_m = c_{m-1} + 1   if H(p_m) / ln K < τ, else 0;   c_0 = 0
/// ```
///
/// The sample leaves at the first exit with `c_m = t`, the `t`-th at the earliest: the first exit
/// counts, since it is compared with no other. The exits may be sure of different classes. The
/// answer is the current exit's; the authors' code can also average over the sure ones.
/// Regression has no entropy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatientConfident {
    tau: f64,
    t: NonZeroUsize,
}

impl PatientConfident {
    /// The rule.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when `tau` is not a positive finite number or `t` is 0.
    pub fn new(tau: f64, t: usize) -> Result<Self> {
        Self::checked(tau, t).map_err(refused(format!("pcee:tau={tau},t={t}")))
    }

    fn checked(tau: f64, t: usize) -> Result<Self, String> {
        check_positive("tau", tau)?;
        Ok(Self {
            tau,
            t: patience(t)?,
        })
    }

    /// The threshold `τ` on the normalised entropy.
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// The patience `t`.
    pub fn t(&self) -> usize {
        self.t.get()
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let tau = threshold("tau", fields.require("tau")?)?;
        let t = whole_number("t", fields.require("t")?)?;
        fields.finish(&["tau", "t"])?;
        Self::checked(tau, t)
    }
}

impl Rule for PatientConfident {
    type Memory = Counter;

    fn start(&self, _: &ModelExits) -> Counter {
        Counter::default()
    }

    fn observe(&self, memory: &mut Counter, _: ExitPoint, observation: Observation<'_>) -> bool {
        let entropy = observation.prediction.normalised_entropy();
        let count = memory.count(Comparison {
            quantity: "normalised entropy",
            value: entropy.expect("no policy of entropy is built for regression"),
            side: Side::Below,
            threshold: self.tau,
        });
        count >= self.t.get()
    }

    fn evidence(&self, memory: &Counter) -> Option<Evidence> {
        let streak = memory.streak("sure exits", self.t.get());
        Some(Evidence::Streak(streak))
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        exits.check_has_distributions()
    }

    fn outlook(&self, at: ExitPoint) -> Outlook {
        if at.position + 1 >= self.t.get() {
            Outlook::Possible
        } else {
            Outlook::Never
        }
    }

    fn caveats(&self, exits: &ModelExits) -> Vec<String> {
        let (tau, t, count) = (self.tau, self.t, exits.plan().count());
        let mut caveats = Vec::new();
        if t.get() > count {
            caveats.push(format!(
                "t={t} is never reached, for there are {count} exits: every sample runs to the \
                 deepest"
            ));
        }
        if tau > 1.0 {
            caveats.push(format!(
                "tau={tau} is above 1, the greatest normalised entropy: every exit is sure"
            ));
        }
        caveats
    }
}

impl fmt::Display for PatientConfident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pcee:tau={},t={}", self.tau, self.t)
    }
}
