//! Policies timed side by side: every row goes to all of them, one after the other.

use std::sync::Arc;

use anyhow::Result;
use badge_core::cost::TimeTotals;
use badge_core::policy::Policy;
use badge_tasks::Encoding;

use super::Replay;
use crate::inference::{Inference, OnRow};

/// Policies and the plain backbone with one exit, which answer the same rows at batch size 1.
#[derive(Debug)]
pub struct Turns<'a> {
    /// The rows.
    pub rows: Vec<&'a Encoding>,
    /// The policies.
    pub policies: Vec<Arc<Policy>>,
    /// The policy that is the plain backbone: `full`.
    pub plain: Arc<Policy>,
}

/// What one policy did, and the time of all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Where rows left and what they answered.
    pub replay: Replay,
    /// Seconds of the policy, and of the plain backbone on the same rows.
    pub totals: TimeTotals,
}

impl Turns<'_> {
    /// Answers every row under every policy and by the plain backbone, which is timed once for all
    /// policies. One result per policy, in their order; `on_row` is told of every policy's rows.
    ///
    /// # Errors
    /// When a row does not fit the model, or a logit is not finite.
    pub fn run(&self, model: &mut dyn Inference, on_row: OnRow) -> Result<Vec<Timed>> {
        if let Some(first) = self.rows.first() {
            model.classify_one(first, &self.plain)?; // The first row pays for cold caches.
        }
        let mut plain_s = 0.0;
        let mut timed = vec![Timed::with_capacity(self.rows.len()); self.policies.len()];
        let candidates = self.policies.len() + 1;
        for (row, encoding) in self.rows.iter().enumerate() {
            // Another one goes first at every row: those behind it find the row in the caches.
            for turn in 0..candidates {
                let candidate = (row + turn) % candidates;
                let Some(policy) = self.policies.get(candidate) else {
                    plain_s += model.classify_one(encoding, &self.plain)?.1;
                    continue;
                };
                let (answer, seconds) = model.classify_one(encoding, policy)?;
                let timed = &mut timed[candidate];
                timed.totals.early_s += seconds;
                timed.replay.depths.push(answer.depth);
                timed.replay.answers.push(answer.target());
                on_row(1);
            }
        }
        for timed in &mut timed {
            timed.totals.plain_s = plain_s;
        }
        Ok(timed)
    }
}

impl Timed {
    fn with_capacity(rows: usize) -> Self {
        Self {
            replay: Replay {
                depths: Vec::with_capacity(rows),
                answers: Vec::with_capacity(rows),
            },
            totals: TimeTotals::default(),
        }
    }
}
