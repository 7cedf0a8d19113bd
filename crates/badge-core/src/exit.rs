//! Where the exits are and what they read.

use serde::{Deserialize, Serialize};

/// Position of a block or an exit in the stack, counted from 0 as checkpoint names do.
///
/// People read and write a [`Depth`], counted from 1; the two convert only by method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExitIndex(pub usize);

impl ExitIndex {
    /// The number of blocks that have run when this exit answers.
    pub fn depth(self) -> Depth {
        Depth(self.0 + 1)
    }
}

/// Number of blocks that have run, counted from 1: `exit 3 of 12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Depth(pub usize);

impl Depth {
    /// The 0-based index of the last block that has run.
    ///
    /// # Panics
    /// On depth 0, which no exit has.
    pub fn index(self) -> ExitIndex {
        assert!(self.0 > 0, "depth counts from 1");
        ExitIndex(self.0 - 1)
    }
}

impl std::fmt::Display for Depth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What stands between an exit's \[CLS\] state and its classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// One pre-trained `tanh(W h + b)` that all exits share (PABEE's form; the default).
    #[default]
    Shared,
    /// Each exit has its own `tanh(W h + b)` (DeeBERT, BERxiT, ElasticBERT).
    Own,
    /// The classifier reads the \[CLS\] state itself.
    None,
}

/// Which blocks carry an exit, in ascending order; the deepest block always does.
///
/// In `config.json` the plan is a list of depths counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ExitPlan {
    depths: Vec<Depth>,
}

impl ExitPlan {
    /// An exit after each of `blocks` blocks.
    pub fn every_block(blocks: usize) -> Self {
        Self {
            depths: (1..=blocks).map(Depth).collect(),
        }
    }

    /// The given depths of a backbone with `blocks` blocks.
    ///
    /// # Errors
    /// A sentence that says what is wrong when a depth lies outside `1..=blocks`, the depths do not
    /// ascend strictly, or the deepest block carries no exit.
    pub fn new(depths: Vec<usize>, blocks: usize) -> Result<Self, String> {
        if let Some(bad) = depths.iter().find(|d| !(1..=blocks).contains(*d)) {
            return Err(format!("exit {bad} lies outside 1..={blocks}"));
        }
        if !depths.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err("exits must be listed in ascending order, each once".to_owned());
        }
        if depths.last() != Some(&blocks) {
            return Err(format!("the deepest block, {blocks}, must carry an exit"));
        }
        Ok(Self {
            depths: depths.into_iter().map(Depth).collect(),
        })
    }

    /// Number of exits.
    pub fn count(&self) -> usize {
        self.depths.len()
    }

    /// The depths that carry an exit, ascending.
    pub fn depths(&self) -> &[Depth] {
        &self.depths
    }

    /// Whether the block with this 0-based index carries an exit.
    pub fn has(&self, block: usize) -> bool {
        self.depths.binary_search(&Depth(block + 1)).is_ok()
    }

    /// The deepest exit.
    pub fn deepest(&self) -> Depth {
        *self.depths.last().expect("a plan holds the deepest block")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_keeps_ascending_depths_that_end_at_the_last_block() {
        let plan = ExitPlan::new(vec![2, 4, 6], 6).unwrap();
        assert_eq!(plan.count(), 3);
        assert!(plan.has(1) && !plan.has(0) && plan.has(5));
        assert_eq!(plan.deepest(), Depth(6));
    }

    #[test]
    fn impossible_plans_are_refused_with_a_reason() {
        for (depths, reason) in [
            (vec![0, 6], "outside 1..=6"),
            (vec![7], "outside 1..=6"),
            (vec![4, 2, 6], "ascending"),
            (vec![2, 2, 6], "ascending"),
            (vec![2, 4], "deepest block, 6"),
            (vec![], "deepest block, 6"),
        ] {
            let message = ExitPlan::new(depths.clone(), 6).unwrap_err();
            assert!(message.contains(reason), "{depths:?}: {message}");
        }
    }
}
