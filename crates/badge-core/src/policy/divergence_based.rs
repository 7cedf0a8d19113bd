//! `dge:tau=0.3,t=2`: divergence-based early exiting (paper, section 3.2).

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use super::grammar::{Fields, threshold, whole_number};
use super::reason::Agreement;
use crate::distribution::{Prediction, PredictionKind};
use crate::divergence::Divergence;
use crate::error::{Error, Result};
use crate::exit::{Depth, ExitPlan};

/// Exit as soon as the current exit agrees with enough earlier ones.
///
/// ```text
/// s_{m,i} = S(p_m, p_i)                       i < m
/// cnt_m   = Σ_{i<m} 1(s_{m,i} < τ)            — paper, Eq. (3)
/// ```
///
/// The sample leaves at the first exit with `cnt_m ≥ t`, else at the deepest one. The count is
/// taken anew at each exit over all earlier exits, consecutive or not; only exits that were
/// evaluated count. Hence nothing leaves before the `t + 1`-th evaluated exit. For regression
/// `s_{m,i} = |y_m - y_i|`.
///
/// An abstract of the paper speaks of "two adjacent layers' exits" while its text compares with
/// all earlier ones; we follow the text, and [`Window`] has the other reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DivergenceBased {
    tau: f64,
    t: NonZeroUsize,
    divergence: Divergence,
    window: Window,
}

/// Which earlier exits the current one is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Window {
    /// Every earlier exit (the paper's Eq. 3).
    #[default]
    All,
    /// The given number of exits just before the current one.
    Last(NonZeroUsize),
}

impl Window {
    /// Only the exit just before the current one, spelled `adjacent`.
    pub const ADJACENT: Self = Self::Last(NonZeroUsize::MIN);

    /// How many of `earlier` exits lie in the window.
    fn size(self, earlier: usize) -> usize {
        match self {
            Self::All => earlier,
            Self::Last(n) => n.get().min(earlier),
        }
    }
}

impl DivergenceBased {
    /// The paper's policy: cross-entropy, compared with all earlier exits.
    ///
    /// # Errors
    /// [`Error::Policy`] when `tau` is not a positive finite number or `t` is 0.
    pub fn new(tau: f64, t: usize) -> Result<Self> {
        Self::checked(tau, t).map_err(|problem| Error::Policy {
            spec: format!("dge:tau={tau},t={t}"),
            problem,
        })
    }

    fn checked(tau: f64, t: usize) -> Result<Self, String> {
        if !(tau.is_finite() && tau > 0.0) {
            return Err(format!("key `tau`: {tau} is not a positive finite number"));
        }
        let t = NonZeroUsize::new(t)
            .ok_or("key `t`: 0 would always exit at the first exit; use fixed:1 for that")?;
        Ok(Self {
            tau,
            t,
            divergence: Divergence::default(),
            window: Window::default(),
        })
    }

    /// The same policy with another divergence.
    pub fn with_divergence(self, divergence: Divergence) -> Self {
        Self { divergence, ..self }
    }

    /// The same policy with another window.
    pub fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// The threshold `τ`, below which two exits agree.
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// The patience `t`: how many earlier exits must agree.
    pub fn t(&self) -> usize {
        self.t.get()
    }

    /// The divergence `S`.
    pub fn divergence(&self) -> Divergence {
        self.divergence
    }

    /// Which earlier exits are compared.
    pub fn window(&self) -> Window {
        self.window
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let tau = threshold("tau", fields.require("tau")?)?;
        let t = whole_number("t", fields.require("t")?)?;
        let mut policy = Self::checked(tau, t)?;
        if let Some(name) = fields.take("divergence") {
            policy.divergence = name.parse().map_err(|e| format!("key `divergence`: {e}"))?;
        }
        if let Some(window) = fields.take("window") {
            policy.window = window.parse().map_err(|e| format!("key `window`: {e}"))?;
        }
        fields.finish(&["tau", "t", "divergence", "window"])?;
        Ok(policy)
    }

    /// Whether the count can be reached at an exit before which `earlier` ones were evaluated.
    pub(super) fn may_agree_with(&self, earlier: usize) -> bool {
        self.window.size(earlier) >= self.t.get()
    }

    /// Compares `prediction` with the earlier exits, then remembers it: is the count reached?
    pub(super) fn agrees(
        &self,
        earlier: &mut EarlierExits,
        depth: Depth,
        prediction: &Prediction,
    ) -> bool {
        let first = earlier.depths.len() - self.window.size(earlier.depths.len());
        earlier.scores.clear();
        earlier.scores.extend(
            earlier.predictions[..earlier.depths.len()]
                .iter()
                .skip(first)
                .map(|previous| self.divergence.between_predictions(prediction, previous)),
        );
        earlier.remember(depth, prediction);
        earlier
            .scores
            .iter()
            .filter(|score| **score < self.tau)
            .count()
            >= self.t.get()
    }

    /// Which earlier exits agreed with the one observed last.
    pub(super) fn agreement(&self, earlier: &EarlierExits) -> Agreement {
        let compared = earlier.depths.len().saturating_sub(1);
        let depths = earlier.depths[..compared]
            .iter()
            .skip(compared - earlier.scores.len());
        let exits = depths
            .zip(&earlier.scores)
            .filter(|(_, score)| **score < self.tau)
            .map(|(depth, score)| (*depth, *score))
            .collect();
        Agreement {
            exits,
            tau: self.tau,
            needed: self.t.get(),
        }
    }

    pub(super) fn caveats(&self, plan: &ExitPlan, kind: PredictionKind) -> Vec<String> {
        let mut caveats = Vec::new();
        let comparable = self.window.size(plan.count() - 1);
        if self.t.get() > comparable {
            caveats.push(format!(
                "t={} is never reached, for an exit is compared with {comparable} earlier ones at \
                 most: every sample runs to the deepest exit",
                self.t
            ));
        }
        let tau = self.tau;
        match self.trivial_tau(kind) {
            Some(bound) if tau > bound => caveats.push(match self.divergence {
                Divergence::CrossEntropy => format!(
                    "tau={tau} is above {bound:.3}, the divergence from an exit that knows \
                     nothing: such an exit counts as agreeing"
                ),
                _ => format!(
                    "tau={tau} is above {bound:.3}, the greatest value that {} has: all exits \
                     agree",
                    self.divergence
                ),
            }),
            _ => {}
        }
        if kind == PredictionKind::Regression && self.divergence != Divergence::default() {
            caveats.push(format!(
                "divergence={} does nothing for regression, which compares |y_m - y_i| with tau",
                self.divergence
            ));
        }
        caveats
    }

    /// The `τ` above which the test loses its meaning, where there is one.
    fn trivial_tau(&self, kind: PredictionKind) -> Option<f64> {
        // (Number of summed divergences, number of classes of each.)
        let (sums, classes) = match kind {
            PredictionKind::SingleLabel { classes } => (1.0, classes as f64),
            PredictionKind::MultiLabel { labels } => (labels as f64, 2.0),
            PredictionKind::Regression => return None,
        };
        match self.divergence {
            Divergence::CrossEntropy => Some(sums * classes.ln()),
            Divergence::JensenShannon => Some(sums * std::f64::consts::LN_2),
            Divergence::LabelMismatch => Some(sums),
            Divergence::Kl | Divergence::ReverseKl | Divergence::SymmetricKl => None,
        }
    }
}

impl fmt::Display for DivergenceBased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tau={},t={}", self.tau, self.t)?;
        if self.divergence != Divergence::default() {
            write!(f, ",divergence={}", self.divergence)?;
        }
        if self.window != Window::default() {
            write!(f, ",window={}", self.window)?;
        }
        Ok(())
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "adjacent" => Ok(Self::ADJACENT),
            number => number
                .parse()
                .map(Self::Last)
                .map_err(|_| format!("`{text}` is neither all, adjacent nor a number above 0")),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::All => f.write_str("all"),
            Self::ADJACENT => f.write_str("adjacent"),
            Self::Last(n) => n.fmt(f),
        }
    }
}

/// What the exits evaluated so far said about one sample.
#[derive(Debug, Clone)]
pub(super) struct EarlierExits {
    /// One slot per exit of the plan, of which the first `depths.len()` are filled.
    predictions: Vec<Prediction>,
    depths: Vec<Depth>,
    /// `S` between the exit seen last and those before it that lie in the window.
    scores: Vec<f64>,
}

impl EarlierExits {
    /// Memory for `exits` answers of `kind`, which [`super::PolicySpec::build`] has checked.
    pub(super) fn new(exits: usize, kind: PredictionKind) -> Self {
        let blank = Prediction::blank(kind).expect("a policy is built for at least one logit");
        Self {
            predictions: vec![blank; exits],
            depths: Vec::with_capacity(exits),
            scores: Vec::with_capacity(exits),
        }
    }

    pub(super) fn clear(&mut self) {
        self.depths.clear();
        self.scores.clear();
    }

    fn remember(&mut self, depth: Depth, prediction: &Prediction) {
        self.predictions[self.depths.len()].clone_from(prediction);
        self.depths.push(depth);
    }
}
