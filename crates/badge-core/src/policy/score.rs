//! The memory of policies that hold one number against a threshold, and forget it.

use super::{Comparison, Evidence, Memory, Side};

/// The number that the exit seen last had.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastScore(Option<f64>);

/// A threshold with its side and the name of what is held against it.
pub(super) struct Threshold {
    pub(super) quantity: &'static str,
    pub(super) side: Side,
    pub(super) value: f64,
}

impl Memory for LastScore {
    fn clear(&mut self) {
        self.0 = None;
    }
}

impl Threshold {
    /// Holds a number against the threshold and remembers it.
    pub(super) fn observe(&self, memory: &mut LastScore, score: f64) -> bool {
        memory.0 = Some(score);
        self.compared(score).holds()
    }

    /// The number seen last, if there is one.
    pub(super) fn evidence(&self, memory: &LastScore) -> Option<Evidence> {
        let comparison = memory.0.map(|score| self.compared(score));
        comparison.map(Evidence::Comparison)
    }

    /// The number against the threshold.
    pub(super) fn compared(&self, score: f64) -> Comparison {
        Comparison {
            quantity: self.quantity,
            value: score,
            side: self.side,
            threshold: self.value,
        }
    }
}
