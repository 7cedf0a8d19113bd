//! `entropy:0.2`: leave when the exit's entropy is low (BranchyNet, DeeBERT; FastBERT's form).

use std::fmt;

use super::grammar::{Fields, refused, threshold};
use super::score::{LastScore, Threshold};
use super::{Evidence, ExitPoint, ModelExits, Observation, Outlook, Rule, Side};
use crate::distribution::PredictionKind;
use crate::error::Result;

/// Exit as soon as an exit is sure by its entropy.
///
/// ```text
/// plain        H(p_m) < S              BranchyNet; DeeBERT
/// normalised   H(p_m) / ln K ≤ S       FastBERT, whose S is called speed
/// ```
///
/// `H` is in nats; the comparisons are strict or not as in the authors' codes. With labels decided
/// each by itself, `H` is the sum over labels and `ln K` is `labels · ln 2`. Regression has no
/// entropy. For two classes this draws the same speed-score curve as
/// [`MaxProbability`](super::MaxProbability) without temperatures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entropy {
    threshold: f64,
    normalised: bool,
}

impl Entropy {
    /// The plain form; 0 is a threshold that no exit stays below.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when the threshold is negative or not finite.
    pub fn new(threshold: f64) -> Result<Self> {
        Self::checked(threshold).map_err(refused(format!("entropy:{threshold}")))
    }

    fn checked(threshold: f64) -> Result<Self, String> {
        if !(threshold.is_finite() && threshold >= 0.0) {
            return Err(format!(
                "key `threshold`: {threshold} is not a finite number from 0 on"
            ));
        }
        Ok(Self {
            threshold: threshold.abs(), // -0 is 0
            normalised: false,
        })
    }

    /// FastBERT's form with the same threshold.
    pub fn normalised(self) -> Self {
        Self {
            normalised: true,
            ..self
        }
    }

    /// The threshold `S`.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Whether entropy is taken as a share of its greatest value.
    pub fn is_normalised(&self) -> bool {
        self.normalised
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let rule = Self::checked(threshold(
            "threshold",
            fields.value("threshold", "entropy:0.2")?,
        )?)?;
        let normalised = fields.flag("normalised");
        fields.finish(&["normalised"])?;
        Ok(Self { normalised, ..rule })
    }

    fn test(&self) -> Threshold {
        let (quantity, side) = if self.normalised {
            ("normalised entropy", Side::AtMost)
        } else {
            ("entropy", Side::Below)
        };
        Threshold {
            quantity,
            side,
            value: self.threshold,
        }
    }

    /// The greatest entropy of an answer, as the rule measures it.
    fn greatest(&self, kind: PredictionKind) -> Option<f64> {
        match kind {
            PredictionKind::Regression => None,
            _ if self.normalised => Some(1.0),
            PredictionKind::SingleLabel { classes } => Some((classes as f64).ln()),
            PredictionKind::MultiLabel { labels } => Some(labels as f64 * std::f64::consts::LN_2),
        }
    }
}

impl Rule for Entropy {
    type Memory = LastScore;

    fn start(&self, _: &ModelExits) -> LastScore {
        LastScore::default()
    }

    fn observe(&self, memory: &mut LastScore, _: ExitPoint, observation: Observation<'_>) -> bool {
        let entropy = if self.normalised {
            observation.prediction.normalised_entropy()
        } else {
            observation.prediction.entropy()
        };
        let entropy = entropy.expect("no policy of entropy is built for regression");
        self.test().observe(memory, entropy)
    }

    fn evidence(&self, memory: &LastScore) -> Option<Evidence> {
        self.test().evidence(memory)
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        exits.check_has_distributions()
    }

    fn outlook(&self, _: ExitPoint) -> Outlook {
        match (self.normalised, self.threshold) {
            (false, 0.0) => Outlook::Never,
            (true, 1.0..) => Outlook::Certain,
            _ => Outlook::Possible,
        }
    }

    fn caveats(&self, exits: &ModelExits) -> Vec<String> {
        let threshold = self.threshold;
        if threshold == 0.0 && !self.normalised {
            return vec!["no entropy is below 0: every sample runs to the deepest exit".to_owned()];
        }
        let greatest = self.greatest(exits.kind());
        let all_leave = |greatest: &f64| self.test().compared(*greatest).holds();
        let caveat = greatest.filter(all_leave).map(|greatest| {
            format!(
                "no answer has a greater {} than {greatest:.3}: every sample leaves at the first \
                 exit",
                self.test().quantity
            )
        });
        Vec::from_iter(caveat)
    }
}

impl fmt::Display for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entropy:{}", self.threshold)?;
        if self.normalised {
            f.write_str(",normalised")?;
        }
        Ok(())
    }
}
