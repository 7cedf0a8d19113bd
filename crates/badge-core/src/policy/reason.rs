//! Why a policy decided as it did, in words.

use std::fmt;

use crate::exit::Depth;

/// Why a policy decided as it did at the exit observed last; [`fmt::Display`] makes a phrase of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ExitReason {
    /// The policy's condition holds.
    Settled(Option<Evidence>),
    /// No block is left, and the condition does not hold.
    DeepestExit(Option<Evidence>),
    /// The policy goes on.
    Undecided(Option<Evidence>),
    /// No exit has been observed.
    NothingSeen,
}

/// What a decision rests on, whichever way it went.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Evidence {
    /// The policy answers at this depth, whatever the exits say.
    FixedDepth(Depth),
    /// A number against a threshold.
    Comparison(Comparison),
    /// Exits that fulfil a condition one after the other.
    Streak(Streak),
    /// Earlier exits that agree with this one.
    Agreement(Agreement),
    /// Exits that vote for the same answer.
    Votes(Votes),
}

/// A number against a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// What is compared, such as `entropy`.
    pub quantity: &'static str,
    /// The number.
    pub value: f64,
    /// On which side of the threshold it must lie.
    pub side: Side,
    /// The threshold.
    pub threshold: f64,
}

/// The side of a threshold on which a number must lie for a sample to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// `value < threshold`.
    Below,
    /// `value ≤ threshold`.
    AtMost,
    /// `value ≥ threshold`.
    AtLeast,
}

/// Exits that fulfil a condition one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Streak {
    /// What they are, in the plural: `agreements`.
    pub what: &'static str,
    /// How many in a row there are, up to the current exit.
    pub count: usize,
    /// How many there must be.
    pub needed: usize,
    /// What made the current exit one of them, or not.
    pub last: Option<Comparison>,
}

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

/// Exits that vote for the same answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Votes {
    /// Votes of the answer that has most.
    pub most: usize,
    /// Votes cast, one per exit.
    pub cast: usize,
    /// The score made of both.
    pub score: Comparison,
}

impl Side {
    /// Whether a number lies on this side of a threshold. NaN lies on none.
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
            Self::AtLeast => value >= threshold,
        }
    }
}

impl Comparison {
    /// Whether the number lies where it must.
    pub fn holds(&self) -> bool {
        self.side.holds(self.value, self.threshold)
    }
}

impl Agreement {
    /// Whether enough exits agree.
    pub fn is_reached(&self) -> bool {
        self.exits.len() >= self.needed
    }
}

/// `, s` where there is not exactly one.
fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// Two decimals, or two digits where these would all be zeros.
fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || size >= 0.095 {
        format!("{value:.2}")
    } else if size >= 1e-4 {
        let decimals = 1 - size.log10().floor() as i32;
        format!("{value:.*}", decimals as usize)
    } else {
        format!("{value:.0e}")
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = match (self.side, self.holds()) {
            (Side::Below, true) | (Side::AtLeast, false) => "is below",
            (Side::Below, false) => "is not below",
            (Side::AtMost, true) => "is at most",
            (Side::AtMost, false) => "is above",
            (Side::AtLeast, true) => "reaches",
        };
        let (value, threshold) = (short(self.value), self.threshold);
        write!(f, "{} {value} {relation} {threshold}", self.quantity)
    }
}

impl fmt::Display for Streak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            count,
            needed,
            last,
        } = self;
        if count < needed {
            write!(f, "{count} of {needed} {what} in a row")?;
        } else {
            write!(f, "{count} {what} in a row")?;
        }
        last.map_or(Ok(()), |last| write!(f, "; {last}"))
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { most, cast, score } = self;
        write!(f, "{most} of {cast} exit{} agree; {score}", plural(*cast))
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FixedDepth(depth) => write!(f, "the policy answers at exit {depth}"),
            Self::Comparison(comparison) => comparison.fmt(f),
            Self::Streak(streak) => streak.fmt(f),
            Self::Agreement(agreement) => agreement.fmt(f),
            Self::Votes(votes) => votes.fmt(f),
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled(Some(evidence)) | Self::Undecided(Some(evidence)) => evidence.fmt(f),
            Self::Settled(None) => f.write_str("the policy is settled"),
            Self::DeepestExit(None) => f.write_str("the deepest exit"),
            Self::DeepestExit(Some(evidence)) => write!(f, "the deepest exit; {evidence}"),
            Self::Undecided(None) => f.write_str("the policy waits for a deeper exit"),
            Self::NothingSeen => f.write_str("no exit has been observed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_keep_two_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (1.734, "1.73"),
            (0.0951, "0.10"),
            (0.0234, "0.023"),
            (-0.00234, "-0.0023"),
            (0.000_123, "0.00012"),
            (0.000_034, "3e-5"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn a_comparison_says_on_which_side_it_lies() {
        let says = |side, value| {
            let comparison = Comparison {
                quantity: "entropy",
                value,
                side,
                threshold: 0.5,
            };
            (comparison.holds(), comparison.to_string())
        };
        for (side, value, holds, text) in [
            (Side::Below, 0.4, true, "entropy 0.40 is below 0.5"),
            (Side::Below, 0.5, false, "entropy 0.50 is not below 0.5"),
            (Side::AtMost, 0.5, true, "entropy 0.50 is at most 0.5"),
            (Side::AtMost, 0.6, false, "entropy 0.60 is above 0.5"),
            (Side::AtLeast, 0.5, true, "entropy 0.50 reaches 0.5"),
            (Side::AtLeast, 0.4, false, "entropy 0.40 is below 0.5"),
        ] {
            assert_eq!(says(side, value), (holds, text.to_owned()));
        }
        assert!(!says(Side::AtMost, f64::NAN).0 && !says(Side::AtLeast, f64::NAN).0);
    }
}
