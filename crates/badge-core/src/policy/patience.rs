//! `patience:3`: leave when the answer has stayed the same (PABEE; Zhou et al., 2020).

use std::fmt;
use std::num::NonZeroUsize;

use super::grammar::{Fields, check_positive, patience, refused, threshold, whole_number};
use super::streak::Adjacent;
use super::{Comparison, Evidence, ExitPoint, ModelExits, Observation, Outlook, Rule, Side};
use crate::distribution::PredictionKind;
use crate::divergence::Divergence;
use crate::error::Result;

/// Exit as soon as the answer has not changed from exit to exit `t` times in a row.
///
/// ```text
/// c_m = c_{m-1} + 1   if ŷ_m = ŷ_{m-1}, else 0;   c_1 = 0
/// ```
///
/// The sample leaves at the first exit with `c_m = t`, the `t + 1`-th at the earliest. Answers are
/// the same when their class is, or all their labels are; numbers are when `|y_m - y_{m-1}|` lies
/// below the tolerance, which regression needs.
///
/// PABEE's published code counts for a whole batch at once and leaves when all of its samples
/// agree. This is the rule of the text: each sample counts for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    t: NonZeroUsize,
    tolerance: Option<f64>,
}

impl Patience {
    /// The rule for classes and labels.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when `t` is 0.
    pub fn new(t: usize) -> Result<Self> {
        let t = patience(t).map_err(refused(format!("patience:{t}")))?;
        Ok(Self { t, tolerance: None })
    }

    /// The same for numbers, which agree when they differ by less than `tolerance`.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when the tolerance is not a positive finite number.
    pub fn with_tolerance(self, tolerance: f64) -> Result<Self> {
        let rule = Self {
            tolerance: Some(tolerance),
            ..self
        };
        let checked = check_positive("tolerance", tolerance);
        checked.map_err(refused(rule.to_string())).map(|()| rule)
    }

    /// The patience `t`.
    pub fn t(&self) -> usize {
        self.t.get()
    }

    /// How little numbers must differ by to agree.
    pub fn tolerance(&self) -> Option<f64> {
        self.tolerance
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let t = patience(whole_number("t", fields.value("t", "patience:3")?)?)?;
        let tolerance = fields.take("tolerance");
        let tolerance = tolerance.map(|text| threshold("tolerance", text));
        let tolerance = tolerance.transpose()?;
        if let Some(tolerance) = tolerance {
            check_positive("tolerance", tolerance)?;
        }
        fields.finish(&["tolerance"])?;
        Ok(Self { t, tolerance })
    }

    /// Label mismatches are whole numbers: none lies below ½ but 0.
    fn condition(&self, observation: &Observation<'_>) -> impl FnOnce(f64) -> Comparison {
        let is_number = observation.prediction.kind() == PredictionKind::Regression;
        let (quantity, threshold) = match self.tolerance {
            Some(tolerance) if is_number => ("change", tolerance),
            _ => ("changed labels", 0.5),
        };
        move |value| Comparison {
            quantity,
            value,
            side: Side::Below,
            threshold,
        }
    }
}

impl Rule for Patience {
    type Memory = Adjacent;

    fn start(&self, exits: &ModelExits) -> Adjacent {
        Adjacent::new(exits)
    }

    fn observe(&self, memory: &mut Adjacent, _: ExitPoint, observation: Observation<'_>) -> bool {
        let condition = self.condition(&observation);
        let count = memory.count(observation.prediction, Divergence::LabelMismatch, condition);
        count >= self.t.get()
    }

    fn evidence(&self, memory: &Adjacent) -> Option<Evidence> {
        let mut streak = memory.streak(self.t.get());
        // Whether a label has changed is what the count says already.
        streak.last = streak.last.filter(|last| last.quantity == "change");
        Some(Evidence::Streak(streak))
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        if exits.kind() == PredictionKind::Regression && self.tolerance.is_none() {
            return Err(format!(
                "key `tolerance` is missing: this model answers with a number; write for instance \
                 {self},tolerance=0.1"
            ));
        }
        Ok(())
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
        if exits.kind() != PredictionKind::Regression
            && let Some(tolerance) = self.tolerance
        {
            caveats.push(format!(
                "tolerance={tolerance} does nothing where answers are labels, which are the same \
                 or not"
            ));
        }
        caveats
    }
}

/// Says so when no exit has `t` exits before it.
pub(super) fn never_reached(t: NonZeroUsize, exits: &ModelExits) -> Option<String> {
    let earlier = exits.plan().count() - 1;
    (t.get() > earlier).then(|| {
        format!(
            "t={t} is never reached, for the deepest exit has {earlier} before it: every sample \
             runs to it"
        )
    })
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "patience:{}", self.t)?;
        self.tolerance
            .map_or(Ok(()), |tolerance| write!(f, ",tolerance={tolerance}"))
    }
}
