//! Why a policy decided as it did, in words.

use std::fmt;

use crate::exit::Depth;

/// Which earlier exits agree with the current one.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// The exits that agree with their divergence, in ascending depth.
    pub exits: Vec<(Depth, f64)>,
    /// The threshold that the divergences stay below.
    pub tau: f64,
    /// How many exits have to agree.
    pub needed: usize,
}

impl Agreement {
    /// Whether enough exits agree.
    pub fn is_reached(&self) -> bool {
        self.exits.len() >= self.needed
    }
}

/// Why a policy decided as it did at the exit observed last; [`fmt::Display`] makes a phrase of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ExitReason {
    /// Enough earlier exits agree with this one.
    Agreement(Agreement),
    /// The policy answers at this depth, whatever the exits say.
    FixedDepth(Depth),
    /// No block is left; where the policy counts agreeing exits, how many there were.
    DeepestExit(Option<Agreement>),
    /// The policy goes on; where it counts agreeing exits, how many there were.
    Undecided(Option<Agreement>),
    /// No exit has been observed.
    NothingSeen,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let found = self.exits.len();
        if self.is_reached() {
            write!(
                f,
                "{found} earlier exit{} within {}",
                plural(found),
                self.tau
            )?;
        } else {
            let (needed, tau) = (self.needed, self.tau);
            write!(
                f,
                "{found} of {needed} earlier exit{} within {tau}",
                plural(needed)
            )?;
        }
        if self.exits.is_empty() {
            return Ok(());
        }
        let depths: Vec<_> = self
            .exits
            .iter()
            .map(|(depth, _)| depth.to_string())
            .collect();
        let scores: Vec<_> = self
            .exits
            .iter()
            .map(|(_, score)| format!("{score:.2}"))
            .collect();
        write!(
            f,
            ": exit{} {} ({})",
            plural(found),
            depths.join(", "),
            scores.join(", ")
        )
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FixedDepth(depth) => write!(f, "the policy answers at exit {depth}"),
            Self::DeepestExit(None) => f.write_str("the deepest exit"),
            Self::DeepestExit(Some(agreement)) => write!(f, "the deepest exit; {agreement}"),
            Self::Undecided(None) => f.write_str("the policy waits for a deeper exit"),
            Self::Agreement(agreement) | Self::Undecided(Some(agreement)) => agreement.fmt(f),
            Self::NothingSeen => f.write_str("no exit has been observed"),
        }
    }
}
