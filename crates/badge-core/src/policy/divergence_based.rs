//! `dge:tau=0.3,t=2`: divergence-based early exiting (paper, section 3.2).

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use super::grammar::{Fields, check_positive, patience, refused, threshold, whole_number};
use super::{Agreement, Evidence, ExitPoint, Memory, ModelExits, Observation, Outlook, Rule};
use crate::distribution::{Prediction, PredictionKind};
use crate::divergence::Divergence;
use crate::error::Result;
use crate::exit::Depth;

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
    /// [`crate::Error::Policy`] when `tau` is not a positive finite number or `t` is 0.
    pub fn new(tau: f64, t: usize) -> Result<Self> {
        Self::checked(tau, t).map_err(refused(format!("dge:tau={tau},t={t}")))
    }

    fn checked(tau: f64, t: usize) -> Result<Self, String> {
        check_positive("tau", tau)?;
        Ok(Self {
            tau,
            t: patience(t)?,
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
}

impl Rule for DivergenceBased {
    type Memory = EarlierExits;

    fn start(&self, exits: &ModelExits) -> EarlierExits {
        EarlierExits::new(exits)
    }

    /// Compares the answer with the earlier exits', then remembers it: is the count reached?
    fn observe(
        &self,
        memory: &mut EarlierExits,
        at: ExitPoint,
        observation: Observation<'_>,
    ) -> bool {
        let current = observation.prediction;
        let EarlierExits {
            predictions,
            depths,
            scores,
        } = memory;
        let compared = self.window.size(depths.len());
        let earlier = &predictions[depths.len() - compared..depths.len()];
        scores.clear();
        scores.extend(
            earlier
                .iter()
                .map(|previous| self.divergence.between_predictions(current, previous)),
        );
        let count = scores.iter().filter(|score| **score < self.tau).count();
        memory.remember(at.depth, current);
        count >= self.t.get()
    }

    fn evidence(&self, memory: &EarlierExits) -> Option<Evidence> {
        let EarlierExits { depths, scores, .. } = memory;
        let compared = depths.len().saturating_sub(1);
        let exits = depths[compared - scores.len()..].iter().zip(scores);
        let exits = exits.filter(|(_, score)| **score < self.tau);
        Some(Evidence::Agreement(Agreement {
            exits: exits.map(|(depth, score)| (*depth, *score)).collect(),
            tau: self.tau,
            needed: self.t.get(),
        }))
    }

    fn outlook(&self, at: ExitPoint) -> Outlook {
        if self.window.size(at.position) >= self.t.get() {
            Outlook::Possible
        } else {
            Outlook::Never
        }
    }

    fn caveats(&self, exits: &ModelExits) -> Vec<String> {
        let mut caveats = Vec::new();
        let comparable = self.window.size(exits.plan().count() - 1);
        if self.t.get() > comparable {
            caveats.push(format!(
                "t={} is never reached, for an exit is compared with {comparable} earlier ones at \
                 most: every sample runs to the deepest exit",
                self.t
            ));
        }
        let (tau, divergence) = (self.tau, self.divergence);
        match trivial_tau(divergence, exits.kind()) {
            Some(bound) if tau > bound => caveats.push(match divergence {
                Divergence::CrossEntropy => format!(
                    "tau={tau} is above {bound:.3}, the divergence from an exit that knows \
                     nothing: such an exit counts as agreeing"
                ),
                _ => format!(
                    "tau={tau} is above {bound:.3}, the greatest value that {divergence} has: all \
                     exits agree"
                ),
            }),
            _ => {}
        }
        if exits.kind() == PredictionKind::Regression && divergence != Divergence::default() {
            caveats.push(format!(
                "divergence={divergence} does nothing for regression, which compares |y_m - y_i| \
                 with tau"
            ));
        }
        caveats
    }
}

/// The `τ` above which a comparison with it loses its meaning, where there is one.
pub(super) fn trivial_tau(divergence: Divergence, kind: PredictionKind) -> Option<f64> {
    // (Number of summed divergences, number of classes of each.)
    let (sums, classes) = match kind {
        PredictionKind::SingleLabel { classes } => (1.0, classes as f64),
        PredictionKind::MultiLabel { labels } => (labels as f64, 2.0),
        PredictionKind::Regression => return None,
    };
    match divergence {
        Divergence::CrossEntropy => Some(sums * classes.ln()),
        Divergence::JensenShannon => Some(sums * std::f64::consts::LN_2),
        Divergence::LabelMismatch => Some(sums),
        Divergence::Kl | Divergence::ReverseKl | Divergence::SymmetricKl => None,
    }
}

impl fmt::Display for DivergenceBased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dge:tau={},t={}", self.tau, self.t)?;
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
pub struct EarlierExits {
    /// One slot per exit of the plan, of which the first `depths.len()` are filled.
    predictions: Vec<Prediction>,
    depths: Vec<Depth>,
    /// `S` between the exit seen last and those before it that lie in the window.
    scores: Vec<f64>,
}

impl EarlierExits {
    /// Memory for the answers of all exits.
    fn new(exits: &ModelExits) -> Self {
        let count = exits.plan().count();
        let blank = Prediction::blank(exits.kind());
        let blank = blank.expect("a policy is built for at least one logit");
        Self {
            predictions: vec![blank; count],
            depths: Vec::with_capacity(count),
            scores: Vec::with_capacity(count),
        }
    }

    fn remember(&mut self, depth: Depth, prediction: &Prediction) {
        self.predictions[self.depths.len()].clone_from(prediction);
        self.depths.push(depth);
    }
}

impl Memory for EarlierExits {
    fn clear(&mut self) {
        self.depths.clear();
        self.scores.clear();
    }
}
