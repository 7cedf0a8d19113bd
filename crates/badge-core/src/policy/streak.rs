//! The memory of policies that count exits in a row.

use super::{Comparison, Memory, ModelExits, Streak};
use crate::distribution::Prediction;
use crate::divergence::Divergence;

/// How many exits in a row have fulfilled a condition, and what the last one was held against.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter {
    count: usize,
    last: Option<Comparison>,
}

impl Counter {
    /// Counts on where the condition holds, and from 0 where it does not; returns the count.
    pub(super) fn count(&mut self, comparison: Comparison) -> usize {
        self.count = if comparison.holds() {
            self.count + 1
        } else {
            0
        };
        self.last = Some(comparison);
        self.count
    }

    /// The streak that ends at the exit seen last.
    pub(super) fn streak(&self, what: &'static str, needed: usize) -> Streak {
        Streak {
            what,
            count: self.count,
            needed,
            last: self.last,
        }
    }
}

impl Memory for Counter {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// How many exits in a row have agreed with the one before them.
#[derive(Debug, Clone)]
pub struct Adjacent {
    previous: Prediction,
    has_previous: bool,
    counter: Counter,
}

impl Adjacent {
    /// Room for the answer that the next exit is compared with.
    pub(super) fn new(exits: &ModelExits) -> Self {
        let blank = Prediction::blank(exits.kind());
        Self {
            previous: blank.expect("a policy is built for at least one logit"),
            has_previous: false,
            counter: Counter::default(),
        }
    }

    /// Holds the divergence `D(p_{m-1}, p_m)` from the previous exit against a condition and
    /// remembers the answer; returns the count. The first exit agrees with none.
    pub(super) fn count(
        &mut self,
        current: &Prediction,
        divergence: Divergence,
        condition: impl FnOnce(f64) -> Comparison,
    ) -> usize {
        let count = if self.has_previous {
            let score = divergence.between_predictions(&self.previous, current);
            self.counter.count(condition(score))
        } else {
            0
        };
        self.previous.clone_from(current);
        self.has_previous = true;
        count
    }

    /// The streak that ends at the exit seen last.
    pub(super) fn streak(&self, needed: usize) -> Streak {
        self.counter.streak("agreements", needed)
    }
}

impl Memory for Adjacent {
    fn clear(&mut self) {
        self.has_previous = false;
        self.counter.clear();
    }
}
